//! Texts with placeholders, in the language of Jinja, with bounds on what they may cost.
//!
//! A template is compiled once. Rendering it takes no more than a fixed amount of work and memory,
//! whatever is written in it: loops within loops, or a text times a million, end in an error.

use std::fmt;
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior, Value};

/// Longest template in bytes.
const SOURCE_BYTES_MAX: usize = 8_192;

/// Work of one rendering at most: an instruction costs one, 64 bytes made cost one. The texts that
/// ship with the program need some 6,000 for the longest notification.
const FUEL: u64 = 200_000;

const NAME: &str = "text";

/// Why a text could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the template does not render")]
pub struct RenderError(#[from] minijinja::Error);

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("it has {0} bytes; {SOURCE_BYTES_MAX} are the most")]
    Length(usize),
    #[error("{0}")]
    Language(#[from] minijinja::Error),
}

impl TemplateError {
    /// Line in the template, from 1.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::Length(_) => 1,
            Self::Language(error) => error.line().unwrap_or(1).max(1),
        }
    }
}

impl From<RenderError> for TemplateError {
    fn from(RenderError(error): RenderError) -> Self {
        Self::Language(error)
    }
}

/// A compiled template. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Template {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.source)
    }
}

impl Template {
    /// Compiles `source`. Names that are not given when it is rendered are errors then, unless they
    /// are only asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn compile(source: &str) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::Length(source.len()));
        }
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("round", minijinja::filters::round);
        environment.add_filter("upper", minijinja::filters::upper);
        environment.add_filter("lower", minijinja::filters::lower);
        environment.add_filter("length", minijinja::filters::length);
        environment.add_filter("join", minijinja::filters::join);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Self {
            source: source.into(),
            environment: Arc::new(environment),
        })
    }

    /// The template as it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text, cut off after `bytes_max`.
    ///
    /// # Errors
    /// If a value is missing or has not the type that the template takes it for, or if it takes too
    /// much work.
    pub(crate) fn render(&self, values: Value, bytes_max: usize) -> Result<String, RenderError> {
        let mut text = self.environment.get_template(NAME)?.render(values)?;
        if text.len() > bytes_max {
            text.truncate(text.floor_char_boundary(bytes_max));
        }
        Ok(text)
    }
}

/// A value as JSON, so that a text with quotes in it breaks no payload.
fn tojson(value: &Value) -> Result<String, minijinja::Error> {
    serde_json::to_string(value).map_err(|error| {
        let what = "the value has no JSON form";
        minijinja::Error::new(minijinja::ErrorKind::BadSerialization, what).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, TemplateError> {
        let template = Template::compile(source)?;
        Ok(template.render(Value::from_pairs([("a", 1)]), 100)?)
    }

    #[test]
    fn a_text_is_cut_off_at_a_letter() {
        assert_eq!(render("{{ a }}b").unwrap(), "1b");
        assert_eq!(render(&"é".repeat(60)).unwrap(), "é".repeat(50));
        assert_eq!(render(&format!("x{}", "é".repeat(60))).unwrap().len(), 99);
    }

    #[test]
    fn what_costs_too_much_ends_in_an_error() {
        let nested = |depth: usize| {
            let list = format!("[{}]", vec!["1"; 100].join(","));
            let open = format!("{{% for x in {list} %}}").repeat(depth);
            format!("{open}x{}", "{% endfor %}".repeat(depth))
        };
        assert!(render(&nested(2)).is_ok());
        for source in [
            nested(8),
            "{{ 'x' * 900000000 }}".to_owned(),
            format!("{{{{ 'x'{} }}}}", " * 99".repeat(20)),
            format!("{{{{ [1]{} | join }}}}", " * 99".repeat(20)),
        ] {
            assert!(render(&source).is_err(), "{source}");
        }
        let error = render(&"x".repeat(SOURCE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.to_string(), "it has 8193 bytes; 8192 are the most");
    }
}
