//! The dashboard's files and the description of the API, all inside the program.

use actix_web::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use actix_web::{HttpRequest, HttpResponse, web};

use super::openapi;
use super::read::{Answer, json};

/// A file of the dashboard.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($path:literal, $file:literal, $kind:literal;)*) => {
        &[$(File { path: $path, content_type: $kind, bytes: include_bytes!(concat!("../../web/", $file)) }),*]
    };
}

static FILES: &[File] = files! {
    "/", "index.html", "text/html; charset=utf-8";
    "/app.js", "app.js", "text/javascript; charset=utf-8";
    "/pages.js", "pages.js", "text/javascript; charset=utf-8";
    "/parts.js", "parts.js", "text/javascript; charset=utf-8";
    "/live.js", "live.js", "text/javascript; charset=utf-8";
    "/theme.js", "theme.js", "text/javascript; charset=utf-8";
    "/style.css", "style.css", "text/css; charset=utf-8";
    "/icon.svg", "icon.svg", "image/svg+xml";
    "/vendor/uPlot.iife.min.js", "vendor/uPlot.iife.min.js", "text/javascript; charset=utf-8";
    "/vendor/uPlot.min.css", "vendor/uPlot.min.css", "text/css; charset=utf-8";
    "/docs", "docs.html", "text/html; charset=utf-8";
    "/docs.js", "docs.js", "text/javascript; charset=utf-8";
};

/// Adds every file.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    for file in FILES {
        config.route(
            file.path,
            web::get().to(async move |request| serve(&request, file)),
        );
    }
    config.route("/openapi.json", web::get().to(description));
}

fn serve(request: &HttpRequest, file: &'static File) -> HttpResponse {
    // The files change with the program only.
    let tag = concat!("W/\"", env!("CARGO_PKG_VERSION"), "\"");
    let tag = format!("{tag}-{}", file.bytes.len()).replace("\"-", "-") + "\"";
    let given = request.headers().get(IF_NONE_MATCH);
    let known = given.is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((ETAG, tag))
        .insert_header((CACHE_CONTROL, "no-cache"));
    if known {
        return response.finish();
    }
    response.content_type(file.content_type).body(file.bytes)
}

async fn description(request: HttpRequest) -> Answer {
    json(&request, &openapi())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.bytes.len()).sum();
        assert!(bytes < 200 * 1024, "{bytes}");
    }
}
