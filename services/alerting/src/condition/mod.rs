//! Conditions in CEL over one reading, one status, or the last while of a series.
//!
//! A call such as `avg('5m')` becomes a variable when the condition is compiled, so evaluation needs
//! no functions of ours and parses nothing. The plain ones, comparisons and what joins them, do
//! without CEL's evaluator: see [`native`].

mod bounds;
mod native;
mod reader;
mod variables;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cel::{Context, Env, IdedExpr, Value};
use fleet_shared::config::format_duration;
use fleet_shared::model::{SensorReading, StatusMessage};
use jiff::Timestamp;

use self::native::Native;
use self::reader::{Aggregate, Reader};
use self::variables::{Variables, has};
use crate::window::Window;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// A compiled condition. Cheap to clone.
#[derive(Clone)]
pub struct Condition {
    source: Arc<str>,
    expression: Arc<IdedExpr>,
    aggregates: Arc<[Aggregate]>,
    /// Variables it names that a message may lack.
    optional: Arc<[&'static str]>,
    /// The same without CEL, where it is plain enough.
    native: Option<Arc<Native>>,
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
    /// found now and not at the first reading. Takes as much of the stack as `source` nests, so it runs
    /// where there is room.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in `source`.
    pub fn compile(source: &str, topic: Topic, env: &Arc<Env>) -> Result<Self, ConditionError> {
        if source.len() > bounds::SOURCE_BYTES_MAX {
            let (bytes, most) = (source.len(), bounds::SOURCE_BYTES_MAX);
            return Err(ConditionError {
                line: 1,
                column: 1,
                message: format!("it has {bytes} bytes; {most} are the most"),
            });
        }
        let program = env.compile(source).map_err(|errors| parse_error(&errors))?;
        let info = program.source_info();
        let refused = |(id, message)| {
            let offset = info.offset_for(id).map_or(0, |(start, _)| start as usize);
            let (line, column) = place(source, offset);
            ConditionError {
                line,
                column,
                message,
            }
        };
        bounds::check(program.expression()).map_err(refused)?;
        let mut expression = program.expression().clone();
        let mut reader = Reader::new(topic);
        reader.read(&mut expression);
        if let Some(fault) = reader.fault {
            return Err(refused(fault));
        }
        let condition = Self {
            source: source.into(),
            native: Native::compile(&expression, topic).map(Arc::new),
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
        // Empty for most, and then without memory of its own.
        let mut answers = Vec::with_capacity(self.aggregates.len());
        for aggregate in self.aggregates.iter() {
            match window.and_then(|window| window.answer(aggregate.function, aggregate.span)) {
                Some(answer) => answers.push(answer),
                None => return Ok(None),
            }
        }
        let variables = Variables { subject, answers };
        match &self.native {
            Some(native) => Ok(Some(native.holds(&variables))),
            None => self.evaluate(&variables).map(Some),
        }
    }

    /// The numbers that the value, or its mean and extremes of a while, are compared with: for a plot.
    #[must_use]
    pub fn thresholds(&self) -> Vec<f64> {
        let mut found = Vec::new();
        if let Some(native) = &self.native {
            native.thresholds(&self.aggregates, &mut found);
        }
        found
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

#[cfg(test)]
mod tests;
