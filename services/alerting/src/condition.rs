//! Conditions in CEL over one reading, one status, or the last while of a series.
//!
//! A call such as `avg('5m')` becomes a variable when the condition is compiled, so evaluation needs
//! no functions of ours and parses nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cel::common::ast::{Expr, LiteralValue};
use cel::common::types::{CelBool, CelDouble, CelInt, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, IdedExpr, Value};
use fleet_shared::config::{duration, format_duration};
use fleet_shared::model::{SensorReading, StatusMessage};
use jiff::Timestamp;

use crate::window::{Function, Window};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Readings, on `sensors/#`.
    Readings,
    /// Presence of devices, on `devices/+/status`.
    Status,
}

impl Topic {
    /// The variables a condition may name, and whether a message may lack them.
    const fn variables(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Readings => &[
                ("value", false),
                ("sensor_id", false),
                ("type", false),
                ("unit", false),
                ("location", false),
                ("timestamp", false),
                ("battery_percent", true),
                ("quality", true),
            ],
            Self::Status => &[
                ("online", false),
                ("sensor_id", false),
                ("device_id", false),
                ("timestamp", true),
                ("reason", true),
                ("firmware_version", true),
                ("signal_strength", true),
                ("uptime_seconds", true),
            ],
        }
    }
}

/// The message a condition is asked about.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A reading.
    Reading(&'a SensorReading),
    /// The presence of a device.
    Status(&'a StatusMessage),
}

impl Subject<'_> {
    /// The sensor or device.
    #[must_use]
    pub fn sensor_id(&self) -> &str {
        match self {
            Self::Reading(reading) => &reading.sensor_id,
            Self::Status(status) => &status.device_id,
        }
    }
}

/// Why a condition cannot be used, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConditionError {
    /// Line in the condition, from 1.
    pub line: usize,
    /// Column in that line, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aggregate {
    function: Function,
    span: Duration,
}

/// A compiled condition. Cheap to clone.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    expression: Arc<IdedExpr>,
    aggregates: Arc<[Aggregate]>,
    /// Variables it names that a message may lack.
    optional: Arc<[&'static str]>,
    env: Arc<Env>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.source)
    }
}

/// The language of conditions; made once for all rules of a file.
#[must_use]
pub(crate) fn language() -> Arc<Env> {
    Arc::new(Env::stdlib())
}

impl Condition {
    /// Compiles `source` and tries it on a message with every field, so that what cannot work is
    /// found now and not at the first reading.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in `source`.
    pub fn compile(source: &str, topic: Topic, env: &Arc<Env>) -> Result<Self, ConditionError> {
        let program = env.compile(source).map_err(|errors| parse_error(&errors))?;
        let mut expression = program.expression().clone();
        let info = program.source_info();
        let mut reader = Reader {
            topic,
            aggregates: Vec::new(),
            optional: Vec::new(),
            local: Vec::new(),
            fault: None,
        };
        reader.read(&mut expression);
        if let Some((id, message)) = reader.fault {
            let offset = info.offset_for(id).map_or(0, |(start, _)| start as usize);
            let (line, column) = place(source, offset);
            return Err(ConditionError {
                line,
                column,
                message,
            });
        }
        let condition = Self {
            source: source.into(),
            expression: Arc::new(expression),
            aggregates: reader.aggregates.into(),
            optional: reader.optional.into(),
            env: env.clone(),
        };
        condition.rehearse(topic)?;
        Ok(condition)
    }

    /// The condition as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The longest time it looks back, if it looks at more than one reading.
    #[must_use]
    pub fn span(&self) -> Option<Duration> {
        self.aggregates.iter().map(|aggregate| aggregate.span).max()
    }

    /// What the parts of it that look back say of `window`, by how they are written.
    #[must_use]
    pub fn answers(&self, window: &Window) -> Vec<(String, f64)> {
        let answer = |aggregate: &Aggregate| {
            let answer = window.answer(aggregate.function, aggregate.span)?;
            let (name, span) = (aggregate.function.name(), format_duration(aggregate.span));
            Some((format!("{name}('{span}')"), answer))
        };
        self.aggregates.iter().filter_map(answer).collect()
    }

    /// Whether it holds. None when that cannot be said: the message lacks a field it names, or its
    /// window is not full.
    ///
    /// # Errors
    /// What CEL says, such as a division by zero.
    pub fn holds(
        &self,
        subject: Subject<'_>,
        window: Option<&Window>,
    ) -> Result<Option<bool>, String> {
        if self.optional.iter().any(|name| !has(&subject, name)) {
            return Ok(None);
        }
        let mut answers = Vec::with_capacity(self.aggregates.len());
        for aggregate in self.aggregates.iter() {
            match window.and_then(|window| window.answer(aggregate.function, aggregate.span)) {
                Some(answer) => answers.push(answer),
                None => return Ok(None),
            }
        }
        self.evaluate(&Variables { subject, answers }).map(Some)
    }

    fn evaluate(&self, variables: &Variables<'_>) -> Result<bool, String> {
        let mut context = Context::with_env(self.env.clone());
        context.set_variable_resolver(variables);
        match Value::resolve(&self.expression, &context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("it is {other:?}, not true or false")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn rehearse(&self, topic: Topic) -> Result<(), ConditionError> {
        let at = Timestamp::UNIX_EPOCH;
        let reading = sample_reading(at);
        let status = sample_status(at);
        let subject = match topic {
            Topic::Readings => Subject::Reading(&reading),
            Topic::Status => Subject::Status(&status),
        };
        let variables = Variables {
            subject,
            answers: vec![1.0; self.aggregates.len()],
        };
        self.evaluate(&variables)
            .map(drop)
            .map_err(|message| ConditionError {
                line: 1,
                column: 1,
                message: format!("the condition cannot be evaluated: {message}"),
            })
    }
}

/// A reading with every field, for trying conditions and templates.
pub(crate) fn sample_reading(at: Timestamp) -> SensorReading {
    SensorReading {
        sensor_id: "sensor-1".to_owned(),
        kind: "temperature".to_owned(),
        value: 1.0,
        unit: "celsius".to_owned(),
        location: "site-1/room-1".to_owned(),
        timestamp: at,
        battery_percent: Some(50),
        quality: Some(fleet_shared::model::Quality::Good),
    }
}

/// A status with every field.
pub(crate) fn sample_status(at: Timestamp) -> StatusMessage {
    StatusMessage {
        device_id: "sensor-1".to_owned(),
        online: false,
        at: Some(at),
        reason: Some("unexpected_disconnect".to_owned()),
        firmware_version: Some("1.0.0".to_owned()),
        signal_strength: Some(-60),
        uptime_seconds: Some(1),
        session_id: None,
    }
}

fn parse_error(errors: &cel::ParseErrors) -> ConditionError {
    let first = errors.errors.first();
    ConditionError {
        line: first.map_or(1, |error| error.pos.0.unsigned_abs().max(1)),
        column: first.map_or(1, |error| error.pos.1.unsigned_abs().max(1)),
        message: first.map_or_else(
            || "the condition is not CEL".to_owned(),
            |error| format!("the condition is not CEL: {}", error.msg),
        ),
    }
}

/// Line and column, both from 1, of the character at `offset`.
fn place(source: &str, offset: usize) -> (usize, usize) {
    let before: String = source.chars().take(offset).collect();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..].chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Names of the variables that stand for aggregates; `@` begins no name that can be written.
const AGGREGATE: &str = "@";

/// Walks a condition: puts variables in place of aggregates, and finds names nobody knows.
struct Reader {
    topic: Topic,
    aggregates: Vec<Aggregate>,
    optional: Vec<&'static str>,
    /// Variables of comprehensions.
    local: Vec<String>,
    fault: Option<(u64, String)>,
}

impl Reader {
    fn read(&mut self, node: &mut IdedExpr) {
        if self.fault.is_some() {
            return;
        }
        let id = node.id;
        match &mut node.expr {
            Expr::Ident(name) => self.name(id, name),
            Expr::Call(call) => {
                if call.target.is_none()
                    && let Some(function) = Function::from_name(&call.func_name)
                {
                    let replaced = self.aggregate(id, function, &call.func_name, &call.args);
                    if let Some(name) = replaced {
                        node.expr = Expr::Ident(name);
                    }
                    return;
                }
                if let Some(target) = &mut call.target {
                    self.read(target);
                }
                for argument in &mut call.args {
                    self.read(argument);
                }
            }
            Expr::Select(select) => self.read(&mut select.operand),
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.read(element);
                }
            }
            Expr::Comprehension(comprehension) => {
                self.read(&mut comprehension.iter_range);
                let locals = self.local.len();
                self.local.push(comprehension.iter_var.clone());
                self.local.extend(comprehension.iter_var2.clone());
                self.local.push(comprehension.accu_var.clone());
                self.read(&mut comprehension.accu_init);
                self.read(&mut comprehension.loop_cond);
                self.read(&mut comprehension.loop_step);
                self.read(&mut comprehension.result);
                self.local.truncate(locals);
            }
            Expr::Map(_) | Expr::Struct(_) => {
                self.fault = Some((id, "a condition has no use for maps".to_owned()));
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn name(&mut self, id: u64, name: &str) {
        if self.local.iter().any(|local| local == name) {
            return;
        }
        let known = self.topic.variables();
        match known.iter().find(|(variable, _)| *variable == name) {
            Some((variable, true)) if !self.optional.contains(variable) => {
                self.optional.push(variable);
            }
            Some(_) => {}
            None => {
                let names: Vec<&str> = known.iter().map(|(variable, _)| *variable).collect();
                self.fault = Some((
                    id,
                    format!(
                        "there is no variable `{name}`; there are {}",
                        names.join(", ")
                    ),
                ));
            }
        }
    }

    fn aggregate(
        &mut self,
        id: u64,
        function: Function,
        name: &str,
        arguments: &[IdedExpr],
    ) -> Option<String> {
        if self.topic == Topic::Status {
            self.fault = Some((id, format!("`{name}` needs values, and a status has none")));
            return None;
        }
        let span = match arguments {
            [
                IdedExpr {
                    expr: Expr::Literal(LiteralValue::String(text)),
                    ..
                },
            ] => duration(text.inner()).ok().filter(|span| !span.is_zero()),
            _ => None,
        };
        let Some(span) = span else {
            self.fault = Some((
                id,
                format!("`{name}` takes one duration in quotes, such as {name}('5m')"),
            ));
            return None;
        };
        let aggregate = Aggregate { function, span };
        let known = self.aggregates.iter().position(|known| *known == aggregate);
        let index = known.unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len() - 1
        });
        Some(format!("{AGGREGATE}{index}"))
    }
}

fn has(subject: &Subject<'_>, name: &str) -> bool {
    match subject {
        Subject::Reading(reading) => match name {
            "battery_percent" => reading.battery_percent.is_some(),
            "quality" => reading.quality.is_some(),
            _ => true,
        },
        Subject::Status(status) => match name {
            "timestamp" => status.at.is_some(),
            "reason" => status.reason.is_some(),
            "firmware_version" => status.firmware_version.is_some(),
            "signal_strength" => status.signal_strength.is_some(),
            "uptime_seconds" => status.uptime_seconds.is_some(),
            _ => true,
        },
    }
}

/// The message as a condition sees it.
struct Variables<'a> {
    subject: Subject<'a>,
    answers: Vec<f64>,
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(index) = variable.strip_prefix(AGGREGATE) {
            let answer = self.answers.get(index.parse::<usize>().ok()?)?;
            return Some(number(*answer));
        }
        match self.subject {
            Subject::Reading(reading) => match variable {
                "value" => Some(number(reading.value)),
                "sensor_id" => Some(text(&reading.sensor_id)),
                "type" => Some(text(&reading.kind)),
                "unit" => Some(text(&reading.unit)),
                "location" => Some(text(&reading.location)),
                "timestamp" => Some(CowVal::owned(CelString::from(
                    reading.timestamp.to_string(),
                ))),
                "battery_percent" => reading.battery_percent.map(|percent| whole(percent.into())),
                "quality" => reading.quality.map(|quality| text(quality.as_str())),
                _ => None,
            },
            Subject::Status(status) => match variable {
                "online" => Some(CowVal::owned(CelBool::from(status.online))),
                "sensor_id" | "device_id" => Some(text(&status.device_id)),
                "timestamp" => status
                    .at
                    .map(|at| CowVal::owned(CelString::from(at.to_string()))),
                "reason" => status.reason.as_deref().map(text),
                "firmware_version" => status.firmware_version.as_deref().map(text),
                "signal_strength" => status.signal_strength.map(|dbm| whole(dbm.into())),
                "uptime_seconds" => status
                    .uptime_seconds
                    .map(|seconds| whole(i64::try_from(seconds).unwrap_or(i64::MAX))),
                _ => None,
            },
        }
    }
}

fn number<'b>(value: f64) -> CowVal<'b, 'b> {
    CowVal::owned(CelDouble::from(value))
}

fn whole<'b>(value: i64) -> CowVal<'b, 'b> {
    CowVal::owned(CelInt::from(value))
}

fn text(value: &str) -> CowVal<'_, '_> {
    CowVal::owned(CelString::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(source: &str) -> Result<Condition, ConditionError> {
        Condition::compile(source, Topic::Readings, &language())
    }

    fn reading(value: f64) -> SensorReading {
        SensorReading {
            value,
            ..sample_reading(Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn whole_numbers_and_fractions_compare() {
        for source in ["value > 30", "value > 30.0", "30 < value", "value >= 30.5"] {
            let condition = compile(source).unwrap();
            let holds = |value| {
                condition
                    .holds(Subject::Reading(&reading(value)), None)
                    .unwrap()
            };
            assert_eq!(holds(30.5), Some(true), "{source}");
            assert_eq!(holds(29.5), Some(false), "{source}");
        }
    }

    #[test]
    fn every_field_can_be_named() {
        let condition = compile(
            "type == 'temperature' && unit == 'celsius' && sensor_id.startsWith('sensor') \
             && location.startsWith('site-1/') && quality == 'good' && battery_percent < 60 \
             && quality in ['good', 'fair'] && timestamp.startsWith('1970')",
        )
        .unwrap();
        let holds = condition.holds(Subject::Reading(&reading(1.0)), None);
        assert_eq!(holds, Ok(Some(true)));
    }

    #[test]
    fn a_reading_without_the_field_says_nothing() {
        let condition = compile("battery_percent < 20").unwrap();
        let mut reading = reading(1.0);
        reading.battery_percent = None;
        assert_eq!(condition.holds(Subject::Reading(&reading), None), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_found_at_its_place() {
        for (source, line, column, message) in [
            ("value >", 1, 8, "not CEL"),
            ("value > 1 && valeu < 2", 1, 14, "no variable `valeu`"),
            ("value > 1 &&\n  avg(5) > 2", 2, 3, "avg('5m')"),
            ("value", 1, 1, "not true or false"),
            ("unit > 3", 1, 1, "cannot be evaluated"),
            ("nosuch(value) > 3", 1, 1, "cannot be evaluated"),
        ] {
            let error = compile(source).unwrap_err();
            assert!(error.message.contains(message), "{source}: {error:?}");
            assert_eq!(error.line, line, "{source}: {error:?}");
            assert!(
                error.column.abs_diff(column) <= 4,
                "{source}: {column} {error:?}"
            );
        }
    }

    #[test]
    fn aggregates_are_answered_from_the_window() {
        let condition = compile("avg('1m') > 10 && max('1m') < 100 && rate('1m') > 0").unwrap();
        assert_eq!(condition.span(), Some(Duration::from_secs(60)));
        let mut window = Window::default();
        let mut last = None;
        for second in 0..=6 {
            let at = Timestamp::from_second(second * 10).unwrap();
            window.push(at, 10.0 + second as f64, Duration::from_secs(60));
            last = condition
                .holds(Subject::Reading(&reading(0.0)), Some(&window))
                .unwrap();
            assert_eq!(last.is_some(), second == 6);
        }
        assert_eq!(last, Some(true));
    }

    #[test]
    fn status_has_its_own_variables() {
        let env = language();
        let status = sample_status(Timestamp::UNIX_EPOCH);
        let offline = Condition::compile("!online", Topic::Status, &env).unwrap();
        assert_eq!(
            offline.holds(Subject::Status(&status), None),
            Ok(Some(true))
        );
        assert!(Condition::compile("value > 3", Topic::Status, &env).is_err());
    }
}
