//! The dashboard's files and the description of the API, all inside the program.

use std::future::ready;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use actix_web::http::header::{CACHE_CONTROL, ETAG};
use actix_web::{HttpRequest, HttpResponse, web};

use super::answer::{Answer, has, json};
use super::{openapi, resource};

/// A file of the dashboard.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

impl File {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        hasher.finish()
    }
}

macro_rules! files {
    ($($path:literal, $file:literal, $kind:literal;)*) => {
        &[$(File { path: $path, content_type: $kind, bytes: include_bytes!(concat!("../../web/", $file)) }),*]
    };
}

static FILES: &[File] = files! {
    "/", "index.html", "text/html; charset=utf-8";
    "/app.js", "app.js", "text/javascript; charset=utf-8";
    "/live.js", "live.js", "text/javascript; charset=utf-8";
    "/parts.js", "parts.js", "text/javascript; charset=utf-8";
    "/plot.js", "plot.js", "text/javascript; charset=utf-8";
    "/theme.js", "theme.js", "text/javascript; charset=utf-8";
    "/pages/alerting.js", "pages/alerting.js", "text/javascript; charset=utf-8";
    "/pages/alerts.js", "pages/alerts.js", "text/javascript; charset=utf-8";
    "/pages/commands.js", "pages/commands.js", "text/javascript; charset=utf-8";
    "/pages/configuration.js", "pages/configuration.js", "text/javascript; charset=utf-8";
    "/pages/dead-letters.js", "pages/dead-letters.js", "text/javascript; charset=utf-8";
    "/pages/device.js", "pages/device.js", "text/javascript; charset=utf-8";
    "/pages/devices.js", "pages/devices.js", "text/javascript; charset=utf-8";
    "/pages/frame.js", "pages/frame.js", "text/javascript; charset=utf-8";
    "/pages/overview.js", "pages/overview.js", "text/javascript; charset=utf-8";
    "/pages/rules.js", "pages/rules.js", "text/javascript; charset=utf-8";
    "/pages/silences.js", "pages/silences.js", "text/javascript; charset=utf-8";
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
        let get = move |request: HttpRequest| ready(serve(&request, file));
        config.service(resource(file.path, "GET, HEAD").get(get));
    }
    // Some type a slash at the end of what looks like a folder.
    config.service(web::redirect("/docs/", "/docs").permanent());
    config.service(resource("/openapi.json", "GET, HEAD").get(description));
}

fn serve(request: &HttpRequest, file: &'static File) -> HttpResponse {
    // Weak, since the same file may be compressed or not; it changes with the program only.
    let tag = format!("W/\"{:016x}\"", file.hash());
    let known = has(request, &tag);
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
        assert!(bytes < 200_000, "{bytes}");
    }
}
