//! Plain conditions without an interpreter.
//!
//! Most conditions compare a field with a constant, or join such comparisons. Those are turned into
//! a small tree that is walked over the message where it lies; whatever is not of this kind is left
//! to CEL. A test holds that both say the same.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, operators};

use super::reader::{AGGREGATE, Aggregate};
use super::variables::Variables;
use super::{Subject, Topic};
use crate::window::Function;

/// Whole numbers up to here are the same as a floating-point number, so that comparing them as one
/// is what CEL does.
const EXACT_MAX: i64 = 1 << 53;

/// A condition as a tree.
#[derive(Debug, PartialEq)]
pub(super) enum Native {
    All(Vec<Native>),
    Any(Vec<Native>),
    Not(Box<Native>),
    Number(Number, Order, f64),
    Text(Text, Match, Box<str>),
    OneOf(Text, Box<[Box<str>]>),
    Online,
    Constant(bool),
}

/// A variable that is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Value,
    Battery,
    Signal,
    Answer(usize),
}

/// A variable that is a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Sensor,
    Kind,
    Unit,
    Location,
    Quality,
    Reason,
    Firmware,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Unequal,
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Equal,
    Unequal,
    Starts,
    Ends,
    Contains,
}

impl Native {
    /// The tree of an expression whose aggregates are variables already; none if it is not plain.
    pub(super) fn compile(node: &IdedExpr, topic: Topic) -> Option<Self> {
        match &node.expr {
            Expr::Ident(name) if name == "online" && topic == Topic::Status => Some(Self::Online),
            Expr::Literal(LiteralValue::Boolean(value)) => Some(Self::Constant(*value.inner())),
            Expr::Call(call) => match (call.func_name.as_str(), &call.target, &*call.args) {
                (operators::LOGICAL_AND, None, args) => all(args, topic).map(Self::All),
                (operators::LOGICAL_OR, None, args) => all(args, topic).map(Self::Any),
                (operators::LOGICAL_NOT, None, [negated]) => {
                    let negated = Self::compile(negated, topic)?;
                    Some(Self::Not(Box::new(negated)))
                }
                (operators::IN, None, [text, list]) => {
                    let Expr::List(list) = &list.expr else {
                        return None;
                    };
                    let texts = list
                        .elements
                        .iter()
                        .map(|element| text_of(element).map(Into::into));
                    Some(Self::OneOf(
                        Text::of(text, topic)?,
                        texts.collect::<Option<_>>()?,
                    ))
                }
                (method, Some(text), [argument]) => {
                    let how = match method {
                        "startsWith" => Match::Starts,
                        "endsWith" => Match::Ends,
                        "contains" => Match::Contains,
                        _ => return None,
                    };
                    Some(Self::Text(
                        Text::of(text, topic)?,
                        how,
                        text_of(argument)?.into(),
                    ))
                }
                (operator, None, [left, right]) => comparison(operator, left, right, topic),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it holds of a message that has every field it names.
    pub(super) fn holds(&self, variables: &Variables<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(variables)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(variables)),
            Self::Not(negated) => !negated.holds(variables),
            Self::Number(number, order, bound) => order.holds(number.get(variables), *bound),
            Self::Text(text, how, wanted) => how.holds(text.get(variables), wanted),
            Self::OneOf(text, wanted) => {
                let text = text.get(variables);
                wanted.iter().any(|wanted| **wanted == *text)
            }
            Self::Online => match variables.subject {
                Subject::Status(status) => status.online,
                Subject::Reading(_) => false,
            },
            Self::Constant(value) => *value,
        }
    }

    /// Adds the numbers that the value, or its mean and extremes, are compared with.
    pub(super) fn thresholds(&self, aggregates: &[Aggregate], found: &mut Vec<f64>) {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.thresholds(aggregates, found);
                }
            }
            Self::Not(negated) => negated.thresholds(aggregates, found),
            Self::Number(number, _, bound) if !found.contains(bound) => {
                let is_of_value = match number {
                    Number::Value => true,
                    Number::Answer(index) => aggregates.get(*index).is_some_and(|aggregate| {
                        !matches!(aggregate.function, Function::Count | Function::Rate)
                    }),
                    Number::Battery | Number::Signal => false,
                };
                if is_of_value {
                    found.push(*bound);
                }
            }
            _ => {}
        }
    }
}

fn all(args: &[IdedExpr], topic: Topic) -> Option<Vec<Native>> {
    args.iter()
        .map(|part| Native::compile(part, topic))
        .collect()
}

fn comparison(operator: &str, left: &IdedExpr, right: &IdedExpr, topic: Topic) -> Option<Native> {
    let order = Order::of(operator)?;
    if let (Some(number), Some(bound)) = (Number::of(left, topic), number_of(right)) {
        return Some(Native::Number(number, order, bound));
    }
    if let (Some(bound), Some(number)) = (number_of(left), Number::of(right, topic)) {
        return Some(Native::Number(number, order.turned(), bound));
    }
    let how = match order {
        Order::Equal => Match::Equal,
        Order::Unequal => Match::Unequal,
        _ => return None,
    };
    let (text, wanted) = match (Text::of(left, topic), Text::of(right, topic)) {
        (Some(text), None) => (text, text_of(right)?),
        (None, Some(text)) => (text, text_of(left)?),
        _ => return None,
    };
    Some(Native::Text(text, how, wanted.into()))
}

fn number_of(node: &IdedExpr) -> Option<f64> {
    match &node.expr {
        Expr::Literal(LiteralValue::Double(number)) => {
            Some(*number.inner()).filter(|number| number.is_finite())
        }
        Expr::Literal(LiteralValue::Int(number)) => {
            let number = *number.inner();
            (-EXACT_MAX..=EXACT_MAX)
                .contains(&number)
                .then_some(number as f64)
        }
        Expr::Call(call) if call.func_name == operators::NEGATE && call.target.is_none() => {
            match &*call.args {
                [negated] => number_of(negated).map(|number| -number),
                _ => None,
            }
        }
        _ => None,
    }
}

fn text_of(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

impl Number {
    fn of(node: &IdedExpr, topic: Topic) -> Option<Self> {
        let Expr::Ident(name) = &node.expr else {
            return None;
        };
        if let Some(index) = name.strip_prefix(AGGREGATE) {
            return index.parse().ok().map(Self::Answer);
        }
        match (topic, name.as_str()) {
            (Topic::Readings, "value") => Some(Self::Value),
            (Topic::Readings, "battery_percent") => Some(Self::Battery),
            (Topic::Status, "signal_strength") => Some(Self::Signal),
            _ => None,
        }
    }

    /// Not a number, which compares with nothing, if the message has no such field: that was found
    /// out before.
    fn get(self, variables: &Variables<'_>) -> f64 {
        match (self, variables.subject) {
            (Self::Answer(index), _) => variables.answers.get(index).copied().unwrap_or(f64::NAN),
            (Self::Value, Subject::Reading(reading)) => reading.value,
            (Self::Battery, Subject::Reading(reading)) => {
                reading.battery_percent.map_or(f64::NAN, f64::from)
            }
            (Self::Signal, Subject::Status(status)) => {
                status.signal_strength.map_or(f64::NAN, |dbm| dbm as f64)
            }
            _ => f64::NAN,
        }
    }
}

impl Text {
    fn of(node: &IdedExpr, topic: Topic) -> Option<Self> {
        let Expr::Ident(name) = &node.expr else {
            return None;
        };
        match (topic, name.as_str()) {
            (_, "sensor_id") | (Topic::Status, "device_id") => Some(Self::Sensor),
            (Topic::Readings, "type") => Some(Self::Kind),
            (Topic::Readings, "unit") => Some(Self::Unit),
            (Topic::Readings, "location") => Some(Self::Location),
            (Topic::Readings, "quality") => Some(Self::Quality),
            (Topic::Status, "reason") => Some(Self::Reason),
            (Topic::Status, "firmware_version") => Some(Self::Firmware),
            _ => None,
        }
    }

    fn get<'a>(self, variables: &Variables<'a>) -> &'a str {
        match variables.subject {
            Subject::Reading(reading) => match self {
                Self::Sensor => &reading.sensor_id,
                Self::Kind => &reading.kind,
                Self::Unit => &reading.unit,
                Self::Location => &reading.location,
                Self::Quality => reading.quality.map_or("", |quality| quality.as_str()),
                Self::Reason | Self::Firmware => "",
            },
            Subject::Status(status) => match self {
                Self::Sensor => &status.device_id,
                Self::Reason => status.reason.as_deref().unwrap_or_default(),
                Self::Firmware => status.firmware_version.as_deref().unwrap_or_default(),
                _ => "",
            },
        }
    }
}

impl Order {
    fn of(operator: &str) -> Option<Self> {
        match operator {
            operators::LESS => Some(Self::Less),
            operators::LESS_EQUALS => Some(Self::AtMost),
            operators::GREATER => Some(Self::Greater),
            operators::GREATER_EQUALS => Some(Self::AtLeast),
            operators::EQUALS => Some(Self::Equal),
            operators::NOT_EQUALS => Some(Self::Unequal),
            _ => None,
        }
    }

    /// With the sides changed.
    const fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::AtMost => Self::AtLeast,
            Self::Greater => Self::Less,
            Self::AtLeast => Self::AtMost,
            same @ (Self::Equal | Self::Unequal) => same,
        }
    }

    #[expect(
        clippy::float_cmp,
        reason = "conditions compare what was measured, as CEL does"
    )]
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Less => left < right,
            Self::AtMost => left <= right,
            Self::Greater => left > right,
            Self::AtLeast => left >= right,
            Self::Equal => left == right,
            Self::Unequal => left != right,
        }
    }
}

impl Match {
    fn holds(self, text: &str, wanted: &str) -> bool {
        match self {
            Self::Equal => text == wanted,
            Self::Unequal => text != wanted,
            Self::Starts => text.starts_with(wanted),
            Self::Ends => text.ends_with(wanted),
            Self::Contains => text.contains(wanted),
        }
    }
}
