//! Rules of alerting, asked of it over MQTT.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use fleet_shared::session::Publish;
use fleet_shared::topic::{self, templates};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::answer::{self, Answer};
use super::command::{busy, publish};
use super::problem::Problem;
use super::request::typed;
use crate::command::{Asked, Busy, request as request_to};
use crate::tracker::Ask;

/// Longest wait for the list of rules: alerting has it in memory.
const RULES_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait for a backtest, which reads the readings of the whole span.
const BACKTEST_LIMIT: Duration = Duration::from_secs(60);

/// The rules in force.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct RulesBody {
    /// When they were read.
    #[schema(value_type = Option<String>, format = DateTime)]
    loaded_at: Option<Timestamp>,
    /// Where they were read from.
    source: Option<String>,
    rules: Vec<RuleBody>,
}

/// A rule.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct RuleBody {
    name: String,
    group: Option<String>,
    severity: Option<String>,
    /// Filter of the topics it looks at.
    topic: Option<String>,
    /// What the sensors it looks at measure.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// When it fires, an expression.
    when: Option<String>,
    /// When it is over, if that is another condition.
    clear: Option<String>,
    /// How long the condition holds before it fires.
    #[serde(rename = "for")]
    hold: Option<String>,
    /// How long it goes on after the condition is over.
    keep_firing_for: Option<String>,
    /// The silence after which it fires, if it is about silence.
    absent: Option<String>,
    /// The silence after which its alerts end.
    #[serde(default)]
    resolve_after: Option<String>,
    /// What its alerts say.
    message: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    labels: Value,
    /// Alerts of it that fire.
    firing: u64,
    /// Sensors whose condition holds, but not for long enough.
    pending: u64,
}

/// The rules that alerting has in force, as they were at most a second ago.
#[utoipa::path(get, path = "/api/v1/rules", tag = "rules",
    responses((status = 200, body = RulesBody), (status = 304, description = "As before"), (status = 401, body = Problem), (status = 429, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn list(request: HttpRequest, api: web::Data<Api>) -> Answer {
    api.guard.read(&request)?;
    let (of, by) = (api.clone(), request.clone());
    let asking = async move {
        let rules = ask(&of, &by, "rules", &json!({}), RULES_LIMIT).await?;
        understood::<RulesBody>(rules)
    };
    answer::json(&request, &*api.rules.get(asking).await?)
}

/// What is tried on the past.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BacktestBody {
    /// Rules as YAML, as in alerting's file; absent for those in force.
    #[serde(default)]
    rules: Option<String>,
    /// Start of the span.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// End of the span.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Only readings of this sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sensor_id: Option<String>,
}

/// What would have fired.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct BacktestedBody {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Readings that were looked at.
    readings: u64,
    rules: Vec<RuleResult>,
    /// There was more than is told: more readings, or more episodes.
    truncated: bool,
}

/// What a rule would have done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct RuleResult {
    rule: String,
    severity: Option<String>,
    /// At most 1,000 of all rules together.
    episodes: Vec<Episode>,
    /// All its episodes, also those that are not told.
    #[serde(default)]
    fired: Option<u64>,
    /// Of all its episodes together.
    firing_seconds: f64,
    /// Episodes that began again soon after one ended.
    flaps: u64,
    /// Why it was not tried, if it was not.
    #[serde(default)]
    skipped: Option<String>,
}

/// An alert that would have been.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Episode {
    alert_id: Option<String>,
    sensor_id: String,
    #[schema(value_type = String, format = DateTime)]
    fired_at: Timestamp,
    /// Absent if it fired at the end of the span.
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    /// The reading that decided.
    #[schema(value_type = Option<serde_json::Value>)]
    value: Option<Value>,
    message: Option<String>,
}

/// Tries rules on stored readings: what would have fired. Nothing is notified and nothing stored.
#[utoipa::path(post, path = "/api/v1/rules/backtest", tag = "rules",
    request_body = BacktestBody, security(("token" = [])),
    responses((status = 200, body = BacktestedBody), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem), (status = 408, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn backtest(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> Answer {
    api.guard.write(&request)?;
    let asked: BacktestBody = typed(&request, payload).await?;
    if asked.from < Timestamp::UNIX_EPOCH || asked.from >= asked.to {
        let detail = "from must be before to, and not before 1970";
        return Err(Problem::bad_request(detail));
    }
    let asked = serde_json::to_value(&asked)
        .map_err(|error| Problem::bad_request(format!("The body is not as expected: {error}.")))?;
    let result = ask(&api, &request, "backtest", &asked, BACKTEST_LIMIT).await?;
    Ok(HttpResponse::Ok().json(understood::<BacktestedBody>(result)?))
}

/// Asks the active replica of alerting.
async fn ask(
    api: &Api,
    request: &HttpRequest,
    name: &str,
    body: &Value,
    limit: Duration,
) -> Result<Value, Problem> {
    let topic = topic::alerting_request(name).map_err(|_| Problem::stopping())?;
    let (id, payload) = (Uuid::now_v7(), body.to_string().into_bytes());
    let (session, asked, answered) = api
        .tracker
        .send(Ask::new(move |tracker, _| {
            if !tracker.fleet.services.any_online("alerting") {
                return Err(absent());
            }
            let session = tracker.session.clone().ok_or_else(Problem::stopping)?;
            let publish = Publish::new(topic, templates::ALERTING_REQUEST, payload);
            let asked = request_to(&tracker.client_id, publish, id, limit)
                .map_err(|_| Problem::stopping())?;
            let answered = tracker
                .requests
                .open(Asked::Alerting, id)
                .map_err(|Busy| busy())?;
            Ok((session, asked, answered))
        }))
        .await??;
    publish(api, request, &session, asked).await?;
    match tokio::time::timeout(limit, answered).await {
        Ok(Ok(answer)) => refused(answer),
        Ok(Err(_)) => Err(Problem::stopping()),
        Err(_) => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "/problems/alerting-timeout",
            "Alerting did not answer in time",
            format!(
                "No replica of alerting answered within {limit:?}. Nothing was changed; see whether one is active on the overview."
            ),
        )),
    }
}

fn absent() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "/problems/alerting-absent",
        "Alerting does not run",
        "Rules are kept by alerting, and no replica of it is online. Start one: `alerting --rules FILE`.",
    )
}

/// The answer, unless it is an error: then what alerting says of it.
fn refused(answer: Value) -> Result<Value, Problem> {
    let Some(error) = answer.get("error") else {
        return Ok(answer);
    };
    let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
    let detail = match text("detail") {
        "" => format!("It said: {error}."),
        detail => detail.to_owned(),
    };
    Err(match text("code") {
        "invalid_rules" => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "/problems/invalid-rules",
            "The rules cannot be used",
            detail,
        ),
        "store" | "unavailable" | "busy" => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "/problems/alerting-unavailable",
            "Alerting cannot answer now",
            detail,
        ),
        _ => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "/problems/alerting-refused",
            "Alerting refused the request",
            detail,
        ),
    }
    .answer(answer))
}

fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Problem> {
    serde_json::from_value(answer).map_err(|error| {
        tracing::warn!(%error, "alerting answered what is not expected");
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "/problems/alerting-answer",
            "Alerting answered something else",
            format!("{error}. Are alerting and this replica of the same version?"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_alerting_is_told_in_its_own_words() {
        let problem = |answer: Value| refused(answer).unwrap_err().to_string();
        let of_rules = json!({"error": {"code": "invalid_rules", "detail": "3:7 no such field"}});
        assert_eq!(
            problem(of_rules),
            "The rules cannot be used: 3:7 no such field"
        );
        assert!(problem(json!({"error": "odd"})).contains("odd"));
        assert_eq!(refused(json!({"rules": []})).unwrap(), json!({"rules": []}));
    }

    #[test]
    fn an_answer_of_another_form_is_no_answer_of_ours() {
        assert!(understood::<RulesBody>(json!({"rules": 1})).is_err());
        let rules = json!({"loaded_at": null, "source": "f", "rules": [{"name": "r", "firing": 1, "pending": 0}]});
        assert!(understood::<RulesBody>(rules).is_ok());
    }
}
