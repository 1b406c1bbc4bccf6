//! The HTTP API, live events and the dashboard.

mod body;
mod guard;
mod live;
mod page;
mod problem;
mod read;
mod write;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::middleware::{Compress, DefaultHeaders};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError as _, web};
use fleet_shared::config::ConfigError;
use fleet_store::{AlertStore, Store};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

pub(crate) use body::{DeviceBody, SummaryBody};
use guard::Guard;
use problem::Problem;

use crate::config::HttpArgs;
use crate::event::Hub;
use crate::tracker::Tracker;

/// Connections of one worker; a browser opens six.
const CONNECTIONS_MAX: usize = 2_000;
const WORKERS: usize = 2;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The page needs nothing from elsewhere, and no inline script or style.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the handlers share.
pub(crate) struct Api {
    guard: Guard,
    tracker: Addr<Tracker>,
    store: Arc<dyn Store>,
    alerts: Arc<dyn AlertStore>,
    hub: Hub,
    streams: Arc<Semaphore>,
    command_timeout: Duration,
}

impl Api {
    pub(crate) fn new(
        args: &HttpArgs,
        token: Option<SecretString>,
        tracker: Addr<Tracker>,
        store: Arc<dyn Store>,
        alerts: Arc<dyn AlertStore>,
        hub: Hub,
    ) -> Self {
        Self {
            guard: Guard::new(token, args.require_token),
            tracker,
            store,
            alerts,
            hub,
            streams: Arc::new(Semaphore::new(live::STREAMS_MAX)),
            command_timeout: args.command_timeout,
        }
    }
}

/// A running server.
pub(crate) struct Server {
    /// Where it listens, with the port it got when 0 was asked for.
    pub(crate) addr: SocketAddr,
    pub(crate) handle: ServerHandle,
}

/// Serves the API.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn serve(addr: SocketAddr, api: Api) -> Result<Server, ConfigError> {
    let refused = |error: std::io::Error| {
        let remedy = format!("cannot listen there ({error}); choose another address");
        ConfigError::value("--http-addr (HTTP_ADDR)", addr, remedy)
    };
    let listener = TcpListener::bind(addr).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let api = web::Data::new(api);
    let app = move || {
        App::new()
            .app_data(api.clone())
            .app_data(web::QueryConfig::default().error_handler(|error, _| unreadable(&error)))
            .app_data(web::PathConfig::default().error_handler(|error, _| unreadable(&error)))
            .wrap(Compress::default())
            .wrap(headers())
            .configure(page::routes)
            .configure(routes)
            .default_service(web::to(nothing))
    };
    let server = HttpServer::new(app)
        .workers(WORKERS)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(REQUEST_TIMEOUT)
        .client_disconnect_timeout(REQUEST_TIMEOUT)
        .keep_alive(Duration::from_secs(75))
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)
        .map_err(refused)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "API server failed");
        }
    });
    Ok(Server {
        addr: bound,
        handle,
    })
}

fn headers() -> DefaultHeaders {
    DefaultHeaders::new()
        .add(("Content-Security-Policy", CONTENT_SECURITY_POLICY))
        .add(("X-Content-Type-Options", "nosniff"))
        .add(("X-Frame-Options", "DENY"))
        .add(("Referrer-Policy", "no-referrer"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
}

fn routes(config: &mut web::ServiceConfig) {
    // A path that is there with another method is not "not found".
    let at = |path: &str| web::resource(path).default_service(web::to(wrong_method));
    config
        .service(at("/api/v1/access").route(web::get().to(access)))
        .service(at("/api/v1/summary").route(web::get().to(read::summary)))
        .service(at("/api/v1/devices").route(web::get().to(read::devices)))
        .service(at("/api/v1/devices/{id}").route(web::get().to(read::device)))
        .service(at("/api/v1/devices/{id}/transitions").route(web::get().to(read::transitions)))
        .service(
            at("/api/v1/devices/{id}/config")
                .route(web::get().to(read::config))
                .route(web::put().to(write::set_config))
                .route(web::delete().to(write::clear_config)),
        )
        .service(at("/api/v1/devices/{id}/commands/{name}").route(web::post().to(write::command)))
        .service(at("/api/v1/sensors").route(web::get().to(read::sensors)))
        .service(at("/api/v1/sensors/{id}/readings").route(web::get().to(read::readings)))
        .service(at("/api/v1/alerts").route(web::get().to(read::alerts)))
        .service(at("/api/v1/dead-letters").route(web::get().to(read::dead_letters)))
        .service(at("/api/v1/events").route(web::get().to(live::events)));
}

/// What a client may do.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct Access {
    /// Whether this replica takes writes at all.
    writes: bool,
    /// Whether the token that was sent, if any, is right.
    authorized: bool,
}

/// What may be done with the token that is sent.
#[utoipa::path(get, path = "/api/v1/access", tag = "fleet", responses((status = 200, body = Access), (status = 304, description = "As before")))]
async fn access(request: HttpRequest, api: web::Data<Api>) -> read::Answer {
    let access = Access {
        writes: api.guard.can_write(),
        authorized: api.guard.authorized(&request),
    };
    read::json(&request, &access)
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    Problem::not_found(format!("There is no {}; see /docs.", request.path())).error_response()
}

async fn wrong_method(request: HttpRequest) -> HttpResponse {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "/problems/method",
        "Not with this method",
        format!(
            "{} cannot be used with {}; see /docs.",
            request.method(),
            request.path()
        ),
    );
    problem.error_response()
}

fn unreadable(error: &dyn std::fmt::Display) -> actix_web::Error {
    Problem::bad_request(format!("{error}; see /docs.")).into()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mqtt-fleet",
        description = "Presence of devices, their sensors' readings, commands and live events."
    ),
    paths(
        access,
        read::summary,
        read::devices,
        read::device,
        read::transitions,
        read::config,
        read::sensors,
        read::readings,
        read::dead_letters,
        read::alerts,
        live::events,
        write::command,
        write::set_config,
        write::clear_config
    )
)]
struct Description;

/// The description of the API, as served at `/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut openapi = Description::openapi();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = openapi.components.get_or_insert_with(Default::default);
    components
        .security_schemes
        .insert("token".to_owned(), token.into());
    openapi
}
