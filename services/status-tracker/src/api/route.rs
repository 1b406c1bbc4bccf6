//! Resources: a path, what may be done with it, and an answer to whatever else is tried.

use std::future::ready;

use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::http::StatusCode;
use actix_web::http::header::ALLOW;
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, ResponseError as _};
use actix_web::{Responder, Route, web};

use super::problem::Problem;

/// A path that can be used with the methods that `allow` lists.
pub(super) fn resource(path: &str, allow: &'static str) -> Methods {
    let refuse = move |request: HttpRequest| ready(wrong_method(&request, allow));
    // A path that is there with another method is not "not found".
    Methods(web::resource(path).default_service(web::to(refuse)))
}

/// A resource whose methods are being added.
pub(super) struct Methods(Resource);

impl Methods {
    /// Answers GET, and HEAD as the same without a body.
    pub(super) fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args> + Clone,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let resource = self.0.route(web::get().to(handler.clone()));
        Self(resource.route(web::head().to(handler)))
    }

    pub(super) fn route(self, route: Route) -> Self {
        Self(self.0.route(route))
    }
}

impl HttpServiceFactory for Methods {
    fn register(self, config: &mut AppService) {
        self.0.register(config);
    }
}

fn wrong_method(request: &HttpRequest, allow: &'static str) -> HttpResponse {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "/problems/method",
        "Not with this method",
        format!(
            "{} cannot be used with {}, but {allow}; see /docs.",
            request.method(),
            request.path()
        ),
    );
    let mut response = problem.error_response();
    let allow = actix_web::http::header::HeaderValue::from_static(allow);
    response.headers_mut().insert(ALLOW, allow);
    response
}
