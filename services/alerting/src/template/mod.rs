//! Texts with placeholders, in the language of Jinja, with bounds on what they may cost.
//!
//! A template is compiled once. Rendering it takes no more than a fixed amount of work and memory,
//! whatever is written in it: loops within loops, or a text times a million, end in an error.

mod syntax;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use minijinja::value::ValueKind;
use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter,
};

/// Longest template in bytes.
const SOURCE_BYTES_MAX: usize = 8_192;

/// Work of one rendering at most: an instruction costs one, 64 bytes made cost one. The texts that
/// ship with the program need some 6,000 for the longest notification.
const FUEL: u64 = 200_000;

/// Longest text that `join` makes, in bytes.
const JOINED_BYTES_MAX: usize = 65_536;

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
    #[error("{what} (in {NAME}:{line})")]
    Syntax { line: usize, what: String },
    #[error("{0}")]
    Language(#[from] minijinja::Error),
}

impl TemplateError {
    /// Line in the template, from 1.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::Length(_) => 1,
            Self::Syntax { line, .. } => (*line).max(1),
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
        syntax::check(source, NAME)?;
        let mut environment = Environment::empty();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("round", minijinja::filters::round);
        environment.add_filter("upper", minijinja::filters::upper);
        environment.add_filter("lower", minijinja::filters::lower);
        environment.add_filter("length", minijinja::filters::length);
        environment.add_filter("join", join);
        environment.add_filter("tojson", tojson);
        environment.set_formatter(write);
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

/// Whether it is a list, of which the engine does not count how long it is.
fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn write(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if is_list(value) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "a list is no text: go through it, or use `join`",
        ));
    }
    escape_formatter(out, state, value)
}

/// A value as JSON, so that a text with quotes in it breaks no payload.
fn tojson(value: &Value) -> Result<String, Error> {
    if is_list(value) {
        let what = "`tojson` takes no list";
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    serde_json::to_string(value).map_err(|error| {
        let what = "the value has no JSON form";
        Error::new(ErrorKind::BadSerialization, what).with_source(error)
    })
}

/// The texts and numbers of a list, with something between.
fn join(list: &Value, between: Option<Cow<'_, str>>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut text = String::new();
    for (index, value) in list.try_iter()?.enumerate() {
        if index > 0 {
            text.push_str(&between);
        }
        match value.as_str() {
            Some(part) => text.push_str(part),
            None if is_list(&value) => {
                let what = "`join` takes no lists in a list";
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
            None => text.push_str(&value.to_string()),
        }
        // What is empty counts too: a list of them is as long.
        if text.len() + index > JOINED_BYTES_MAX {
            let what = format!("`join` makes at most {JOINED_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, TemplateError> {
        let template = Template::compile(source)?;
        let values = [("a", Value::from(1)), ("l", Value::from(vec!["x", "y"]))];
        Ok(template.render(Value::from_pairs(values), 100)?)
    }

    #[test]
    fn a_text_is_cut_off_at_a_letter() {
        assert_eq!(render("{{ a }}b").unwrap(), "1b");
        assert_eq!(render(&"é".repeat(60)).unwrap(), "é".repeat(50));
        assert_eq!(render(&format!("x{}", "é".repeat(60))).unwrap().len(), 99);
    }

    #[test]
    fn lists_are_gone_through_looked_into_and_joined() {
        for (source, text) in [
            ("{% for x in l %}{{ x }};{% endfor %}", "x;y;"),
            ("{% for x in [1, 'b'] %}{{ x }}{% endfor %}", "1b"),
            (
                "{{ l | join(', ') }} {{ l | length }} {{ l[0] }}",
                "x, y 2 x",
            ),
            (
                "{% if a in [1, 2] and 'z' not in ['x'] %}yes{% endif %}",
                "yes",
            ),
            ("{{ 'x' in l }}", "True"),
        ] {
            assert_eq!(render(source).unwrap(), text, "{source}");
        }
        let error = render("one\n{{ [a] }}").unwrap_err();
        assert_eq!(error.line(), 2);
        assert!(error.to_string().contains("after `in`"), "{error}");
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
            format!(
                "{{% set a=[1] %}}{}{{{{ a }}}}",
                "{% set a=a+a %}".repeat(60)
            ),
            format!(
                "{{% set a=(1, 2) %}}{}{{{{ a == a }}}}",
                "{% set a=a+a %}".repeat(60)
            ),
            format!(
                "{{% with a=l %}}{}{{{{ a }}}}",
                "{% set a=a+a %}".repeat(60)
            ),
            "{{ l * 900000000 }}".to_owned(),
            "{{ (l * 900000000) | join }}".to_owned(),
            "{{ (l * 900000000) | tojson }}".to_owned(),
            "{{ {'a': 1} }}".to_owned(),
            "{{ a in [a] }}".to_owned(),
            "{% for x in l * 900000000 %}{% endfor %}".to_owned(),
        ] {
            assert!(render(&source).is_err(), "{source}");
        }
        let error = render(&"x".repeat(SOURCE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.to_string(), "it has 8193 bytes; 8192 are the most");
    }
}
