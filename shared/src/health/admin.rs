//! The HTTP server of probes and metrics.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_rt::ArbiterHandle;
use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;

use super::Health;
use crate::config::ConfigError;
use crate::telemetry::Metrics;

/// A probe and a scraper or two connect at a time; the rest is for people.
const CONNECTIONS_MAX: usize = 64;
const BACKLOG: u32 = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A running admin server; it stops with the process, or when told.
#[derive(Debug)]
pub struct Admin {
    addr: SocketAddr,
    server: ServerHandle,
}

impl Admin {
    /// Where it listens, with the port it got when 0 was asked for.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops at once, without waiting for requests.
    pub async fn stop(self) {
        self.server.stop(false).await;
    }
}

struct Shared {
    health: Health,
    metrics: Metrics,
    main_loop: ArbiterHandle,
}

/// Serves `GET /livez`, `/readyz`, `/metrics` and `/debug/actors` on a thread of its own, for the
/// Arbiter that calls: alive means that this one's event loop turns, and those that the health watches.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(addr: SocketAddr, health: Health, metrics: Metrics) -> Result<Admin, ConfigError> {
    let refused = |error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another process listens there; choose another address, or `off`".to_owned()
            }
            _ => format!("cannot listen there ({error}); choose another address, or `off`"),
        };
        ConfigError::value("--admin-addr (ADMIN_ADDR)", addr, remedy)
    };
    let listener = TcpListener::bind(addr).map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    let shared = web::Data::new(Shared {
        health,
        metrics,
        main_loop: actix_rt::Arbiter::current(),
    });
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(metrics_text))
            .route("/debug/actors", web::get().to(actors))
            .default_service(web::to(not_found))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .worker_max_blocking_threads(1)
        .max_connections(CONNECTIONS_MAX)
        .backlog(BACKLOG)
        .client_request_timeout(REQUEST_TIMEOUT)
        .client_disconnect_timeout(REQUEST_TIMEOUT)
        .keep_alive(Duration::from_secs(15))
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)
        .map_err(refused)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "admin server failed");
        }
    });
    Ok(Admin {
        addr,
        server: handle,
    })
}

/// The server has its own thread, so an answer alone would not show that the actors' loops turn.
async fn livez(shared: web::Data<Shared>) -> HttpResponse {
    let stuck = shared.health.stuck_loops(&shared.main_loop).await;
    if stuck.is_empty() {
        HttpResponse::Ok().json(json!({"status": "alive"}))
    } else {
        HttpResponse::ServiceUnavailable().json(json!({"status": "stuck", "loops": stuck}))
    }
}

async fn actors(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(shared.health.actor_states().await)
}

async fn readyz(shared: web::Data<Shared>) -> HttpResponse {
    let snapshot = shared.health.snapshot();
    let status = if snapshot.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    HttpResponse::build(status).json(snapshot)
}

async fn metrics_text(shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(shared.metrics.encode())
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let (method, path) = (request.method(), request.path());
    HttpResponse::NotFound()
        .content_type("application/problem+json")
        .json(json!({
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": format!("there is no {method} {path}; try GET /livez, /readyz, /metrics or /debug/actors"),
        }))
}
