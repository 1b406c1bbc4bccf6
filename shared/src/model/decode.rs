use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::topic::{self, Excerpt};

use super::json;
use super::reject::RejectError;

/// What a payload may ask of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a payload. Default 64 KiB.
    pub payload_max: usize,
    /// Deepest nesting of objects and arrays, the payload's own object being the first level; it
    /// counts in ignored fields too. Default 16.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_max: 64 * 1_024,
            depth_max: 16,
        }
    }
}

/// A field of a message, for the search for what is wrong with a payload that does not parse.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) form: Form,
}

/// The JSON type of a field.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    Number,
    WholeNumber,
    Flag,
    TextMap,
}

impl Field {
    pub(super) const fn required(name: &'static str, form: Form) -> Self {
        Self {
            name,
            is_required: true,
            form,
        }
    }

    pub(super) const fn optional(name: &'static str, form: Form) -> Self {
        Self {
            name,
            is_required: false,
            form,
        }
    }

    fn check(&self, members: &[(String, &str)]) -> Result<(), RejectError> {
        let field = self.name;
        let mut values = members.iter().filter(|(key, _)| key == field);
        let Some((_, value)) = values.next() else {
            return if self.is_required {
                Err(RejectError::Missing { field })
            } else {
                Ok(())
            };
        };
        if values.next().is_some() {
            return Err(RejectError::Repeated { field });
        }
        let is_number = matches!(self.form, Form::Number | Form::WholeNumber);
        if is_number && is_not_finite(value.trim_matches('"')) {
            return Err(RejectError::NotFinite {
                field: field.into(),
                value: Excerpt::new(value),
            });
        }
        if self.form.fits(value) || (!self.is_required && *value == "null") {
            return Ok(());
        }
        Err(RejectError::IllTyped {
            field,
            value: Excerpt::new(value),
            expected: self.form.expected(),
        })
    }
}

impl Form {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Text => serde_json::from_str::<Text<'_>>(value).is_ok(),
            Self::Number => serde_json::from_str::<f64>(value).is_ok(),
            Self::WholeNumber => serde_json::from_str::<i64>(value).is_ok(),
            Self::Flag => serde_json::from_str::<bool>(value).is_ok(),
            Self::TextMap => serde_json::from_str::<BTreeMap<String, String>>(value).is_ok(),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::WholeNumber => "a whole number of its range",
            Self::Flag => "true or false",
            Self::TextMap => "an object of strings",
        }
    }
}

/// Parses a payload as one JSON object with those fields.
///
/// The good path is one pass of the parser beside the checks of UTF-8 and depth; only a payload
/// that is refused is looked at again, to say what is wrong with it.
pub(super) fn object<'a, T: Deserialize<'a>>(
    payload: &'a [u8],
    limits: &Limits,
    fields: &[Field],
) -> Result<T, RejectError> {
    if payload.len() > limits.payload_max {
        return Err(RejectError::TooLarge {
            len: payload.len(),
            max: limits.payload_max,
        });
    }
    let text = std::str::from_utf8(payload).map_err(|error| RejectError::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    if json::is_deeper_than(text, limits.depth_max) {
        return Err(RejectError::TooDeep {
            max: limits.depth_max,
        });
    }
    // serde would take the fields from an array too, by their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(RejectError::NotAnObject {
            payload: Excerpt::new(text),
            detail: Excerpt::new("it does not start with `{`"),
        });
    }
    serde_json::from_str(text).map_err(|error| diagnose(text, &error, fields))
}

/// What is wrong with a payload the parser refused.
fn diagnose(text: &str, error: &serde_json::Error, fields: &[Field]) -> RejectError {
    let members = json::members(text);
    // Python writes NaN and Infinity without quotes, which is no JSON at all: worth its own reason
    // in whatever field it stands.
    let bare = members
        .iter()
        .find(|(_, value)| value.ends_with(['N', 'y']) && is_not_finite(value));
    if let Some((key, value)) = bare {
        let known = fields.iter().find(|field| field.name == key);
        return RejectError::NotFinite {
            field: match known {
                Some(field) => field.name.into(),
                None => Excerpt::new(key).as_str().to_owned().into(),
            },
            value: Excerpt::new(value),
        };
    }
    // A syntax error cuts the members short, so a missing field then says nothing.
    let is_cut = error.is_syntax() || error.is_eof();
    fields
        .iter()
        .filter_map(|field| field.check(&members).err())
        .find(|error| !(is_cut && matches!(error, RejectError::Missing { .. })))
        .unwrap_or_else(|| RejectError::NotAnObject {
            payload: Excerpt::new(text),
            detail: Excerpt::new(&error.to_string()),
        })
}

/// Whether Rust reads `text`, as it is written, as NaN or an infinity; 1e999 is the latter.
fn is_not_finite(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|value| !value.is_finite())
}

/// A JSON string that is borrowed from the payload unless it holds escapes, also in an `Option`,
/// where serde's own `Cow` is always owned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(super) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// Checks the length of a text in bytes, and that it holds no control character (nor one of the few
/// others that cannot be in a topic, as texts get into topics) and none of `forbidden`; `rule` says so
/// in words.
pub(super) fn check_text(
    field: &'static str,
    text: &str,
    bytes: RangeInclusive<usize>,
    forbidden: &[char],
    rule: &'static str,
) -> Result<(), RejectError> {
    let is_bad = text.contains(forbidden) || topic::forbidden(text).is_some();
    if is_bad || !bytes.contains(&text.len()) {
        return Err(RejectError::InvalidField {
            field,
            value: Excerpt::new(text),
            rule,
        });
    }
    Ok(())
}

/// The payload of one of our messages.
pub(super) fn to_json<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message)
        .expect("structs of strings, numbers and maps with string keys always have a JSON form")
}
