//! The HTTP API, live events and the dashboard.

mod access;
mod alert;
mod answer;
mod command;
mod dead_letter;
mod description;
mod device;
mod guard;
mod history;
mod live;
mod page;
mod problem;
mod query;
mod rate;
mod recent;
mod request;
mod route;
mod rule;
mod sensor;
mod silence;
mod summary;
mod trace;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actix_web::dev::ServerHandle;
use actix_web::middleware::{Compress, DefaultHeaders, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError as _, web};
use fleet_shared::config::ConfigError;
use fleet_shared::telemetry::Tracer;
use fleet_shared::tls::{ServerFiles, server_config};
use fleet_store::{AlertStore, Store};
use secrecy::SecretString;
use tokio::sync::{Mutex, Semaphore};

pub use description::openapi;
pub(crate) use device::DeviceBody;
pub(crate) use summary::SummaryBody;

use guard::Guard;
use history::History;
use problem::Problem;
use rate::Rates;
use recent::Recent;
use route::resource;

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
    history: History,
    rules: Recent<rule::RulesBody>,
    tracker: Addr<Tracker>,
    store: Arc<dyn Store>,
    alerts: Arc<dyn AlertStore>,
    hub: Hub,
    streams: Arc<Semaphore>,
    replaying: Mutex<()>,
    command_timeout: Duration,
    tracer: Tracer,
}

impl Api {
    pub(crate) fn new(
        args: &HttpArgs,
        token: Option<SecretString>,
        tracker: Addr<Tracker>,
        store: Arc<dyn Store>,
        alerts: Arc<dyn AlertStore>,
        hub: Hub,
        tracer: Tracer,
    ) -> Self {
        Self {
            guard: Guard::new(token, args.require_token),
            history: History::new(),
            rules: Recent::default(),
            tracker,
            store,
            alerts,
            hub,
            streams: Arc::new(Semaphore::new(live::STREAMS_MAX)),
            replaying: Mutex::new(()),
            command_timeout: args.command_timeout,
            tracer,
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
/// When the address cannot be listened on, or a certificate cannot be used.
pub(crate) fn serve(
    addr: SocketAddr,
    tls: Option<&ServerFiles>,
    api: Api,
) -> Result<Server, ConfigError> {
    let refused = |error: std::io::Error| {
        let remedy = format!("cannot listen there ({error}); choose another address");
        ConfigError::value("--http-addr (HTTP_ADDR)", addr, remedy)
    };
    let listener = TcpListener::bind(addr).map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    let api = web::Data::new(api);
    let rates = web::Data::new(Rates::default());
    let app = move || {
        App::new()
            .app_data(api.clone())
            .app_data(rates.clone())
            .app_data(web::PathConfig::default().error_handler(|error, _| unreadable(&error)))
            .wrap(Compress::default())
            .wrap(headers())
            .wrap(from_fn(trace::request))
            .wrap(from_fn(rate::limit))
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
        .disable_signals();
    let server = match tls {
        None => server.listen(listener),
        Some(files) => {
            let config = server_config(files).map_err(|error| {
                let setting = match &files.client_ca {
                    Some(ca) if *ca == error.path => "--tls-client-ca-file (TLS_CLIENT_CA_FILE)",
                    _ if files.key == error.path => "--tls-key-file (TLS_KEY_FILE)",
                    _ => "--tls-cert-file (TLS_CERT_FILE)",
                };
                ConfigError::value(setting, error.path.display(), &error.reason)
            })?;
            server.listen_rustls_0_23(listener, config)
        }
    };
    let server = server.map_err(refused)?.run();
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
        .add(("Cross-Origin-Opener-Policy", "same-origin"))
        .add(("Cross-Origin-Resource-Policy", "same-origin"))
        .add((
            "Permissions-Policy",
            "camera=(), geolocation=(), microphone=()",
        ))
}

fn routes(config: &mut web::ServiceConfig) {
    let at = |path: &str, allow| resource(&format!("/api/v1{path}"), allow);
    let read = "GET, HEAD";
    config
        .service(at("/access", read).get(access::access))
        .service(at("/summary", read).get(summary::summary))
        .service(at("/summary/trend", read).get(summary::trend))
        // A stream has no head of its own.
        .service(at("/events", "GET").route(web::get().to(live::events)))
        .service(at("/devices", read).get(device::list))
        .service(at("/devices/{id}", read).get(device::one))
        .service(at("/devices/{id}/transitions", read).get(device::transitions))
        .service(
            at("/devices/{id}/config", "GET, HEAD, PUT, DELETE")
                .get(command::config)
                .route(web::put().to(command::set_config))
                .route(web::delete().to(command::clear_config)),
        )
        .service(at("/devices/{id}/commands/{name}", "POST").route(web::post().to(command::send)))
        .service(at("/sensors", read).get(sensor::list))
        .service(at("/sensors/{id}/readings", read).get(sensor::readings))
        .service(at("/alerts", read).get(alert::list))
        .service(at("/alerts/{id}", read).get(alert::one))
        .service(at("/alerts/{id}/acknowledge", "POST").route(web::post().to(alert::acknowledge)))
        .service(
            at("/silences", "GET, HEAD, POST")
                .get(silence::list)
                .route(web::post().to(silence::create)),
        )
        .service(at("/silences/{id}", "DELETE").route(web::delete().to(silence::delete)))
        .service(at("/rules", read).get(rule::list))
        .service(at("/rules/backtest", "POST").route(web::post().to(rule::backtest)))
        .service(at("/dead-letters", read).get(dead_letter::list))
        .service(at("/dead-letters/replay", "POST").route(web::post().to(dead_letter::replay)));
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    Problem::not_found(format!("There is no {}; see /docs.", request.path())).error_response()
}

fn unreadable(error: &dyn std::fmt::Display) -> actix_web::Error {
    Problem::bad_request(format!("{error}; see /docs.")).into()
}
