//! Texts with placeholders, such as `{device}-{1}-temperature`.

/// A text whose `{names}` are filled in for every reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// A placeholder of the topic template.
    Level(String),
    /// What the n-th wildcard of the value's pointer stood for, from 1.
    Wildcard(usize),
}

impl Text {
    /// Takes `text`, whose placeholders may be `levels` or the numbers 1 to `wildcards`.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub(super) fn parse(text: &str, levels: &[String], wildcards: usize) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(length) = rest[open..].find('}') else {
                return Err("a `{` without `}`".to_owned());
            };
            if open > 0 {
                parts.push(Part::Literal(rest[..open].to_owned()));
            }
            let name = &rest[open + 1..open + length];
            parts.push(match name.parse::<usize>() {
                Ok(number) if (1..=wildcards).contains(&number) => Part::Wildcard(number - 1),
                Ok(_) => {
                    return Err(format!(
                        "`{{{name}}}` names a `*` of the value's pointer, which has {wildcards}"
                    ));
                }
                Err(_) if levels.iter().any(|level| level == name) => Part::Level(name.to_owned()),
                Err(_) => {
                    return Err(format!(
                        "`{{{name}}}` is no placeholder of the topic, which has {}",
                        if levels.is_empty() {
                            "none".to_owned()
                        } else {
                            levels.join(", ")
                        }
                    ));
                }
            });
            rest = &rest[open + length + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// The text for one reading.
    pub(super) fn render<'a>(
        &self,
        level: impl Fn(&str) -> Option<&'a str>,
        wildcards: &[&str],
    ) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                // Both were checked when the file was read.
                Part::Level(name) => text.push_str(level(name).unwrap_or_default()),
                Part::Wildcard(at) => text.push_str(wildcards.get(*at).unwrap_or(&"")),
            }
        }
        text
    }
}
