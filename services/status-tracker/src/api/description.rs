//! The description of the API, as served at `/openapi.json`.

use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{RefOr, Response};

use super::{access, alert, command, dead_letter, device, live, rule, sensor, silence, summary};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mqtt-fleet",
        description = "Presence of devices, their sensors' readings, alerts, commands and live events. \
                       Every answer that is no success is a problem detail (RFC 9457)."
    ),
    tags(
        (name = "fleet", description = "The whole at a glance"),
        (name = "devices", description = "Presence, commands, configuration"),
        (name = "sensors", description = "Readings"),
        (name = "alerts", description = "What fires, why, and who took note; silences"),
        (name = "rules", description = "Asked of alerting over MQTT"),
        (name = "dead letters", description = "What could not be used, and a second try")
    ),
    paths(
        access::access,
        summary::summary,
        summary::trend,
        live::events,
        device::list,
        device::one,
        device::transitions,
        command::config,
        command::set_config,
        command::clear_config,
        command::send,
        sensor::list,
        sensor::readings,
        alert::list,
        alert::one,
        alert::acknowledge,
        silence::list,
        silence::create,
        silence::delete,
        rule::list,
        rule::backtest,
        dead_letter::list,
        dead_letter::replay
    )
)]
struct Description;

/// The description of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut openapi = Description::openapi();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = openapi.components.get_or_insert_with(Default::default);
    components
        .security_schemes
        .insert("token".to_owned(), token.into());
    for item in openapi.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.iter_mut().for_each(problem);
        }
    }
    openapi
}

/// Problems have a media type of their own.
fn problem((status, response): (&String, &mut RefOr<Response>)) {
    if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response)
        && let Some(content) = response.content.shift_remove("application/json")
    {
        let content_type = "application/problem+json".to_owned();
        response.content.insert(content_type, content);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_write_names_its_refusals_and_every_problem_its_media_type() {
        let openapi = serde_json::to_value(openapi()).unwrap();
        for (path, methods) in openapi["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                for (status, response) in responses {
                    let kinds = response["content"].as_object();
                    let kinds: Vec<_> = kinds.into_iter().flat_map(|it| it.keys()).collect();
                    if status.starts_with(['4', '5']) {
                        assert_eq!(
                            kinds,
                            ["application/problem+json"],
                            "{method} {path} {status}"
                        );
                    }
                }
                let writes = method != "get";
                for status in ["401", "403", "429"] {
                    assert!(
                        !writes || responses.contains_key(status),
                        "{method} {path} {status}"
                    );
                }
                assert_eq!(
                    writes,
                    operation["security"] != Value::Null,
                    "{method} {path}"
                );
            }
        }
    }
}
