//! JSON pointers with wildcards.

use serde_json::Value;

/// A JSON pointer (RFC 6901) in which a segment may be `*`: every member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Name(String),
    Any,
}

/// Matches of one pointer in one payload at most; a payload with more is not a device's.
const MATCHES_MAX: usize = 256;

/// A value and the names that the wildcards stood for, from the left.
pub(super) type Match<'a> = (Vec<&'a str>, &'a Value);

impl Pointer {
    /// Takes `text` as a pointer.
    ///
    /// # Errors
    /// What is wrong with it, as a clause.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("a JSON pointer is empty or starts with `/`".to_owned());
        };
        let segments = rest
            .split('/')
            .map(|segment| match segment {
                "*" => Segment::Any,
                name => Segment::Name(name.replace("~1", "/").replace("~0", "~")),
            })
            .collect();
        Ok(Self(segments))
    }

    /// How many wildcards it has.
    pub(super) fn wildcards(&self) -> usize {
        self.0
            .iter()
            .filter(|segment| **segment == Segment::Any)
            .count()
    }

    /// Everything it points to, in the order of the payload's keys; the first 256 of it.
    pub(super) fn find<'a>(&self, value: &'a Value) -> Vec<Match<'a>> {
        let mut found = vec![(Vec::new(), value)];
        for segment in &self.0 {
            let mut next = Vec::new();
            for (names, value) in found {
                match (segment, value) {
                    (Segment::Name(name), Value::Object(members)) => {
                        next.extend(members.get(name).map(|value| (names, value)));
                    }
                    (Segment::Name(name), Value::Array(items)) => {
                        let item = name.parse().ok().and_then(|at: usize| items.get(at));
                        next.extend(item.map(|value| (names, value)));
                    }
                    (Segment::Any, Value::Object(members)) => {
                        for (name, value) in members {
                            let mut names = names.clone();
                            names.push(name.as_str());
                            next.push((names, value));
                        }
                    }
                    _ => {}
                }
                next.truncate(MATCHES_MAX);
            }
            found = next;
        }
        found
    }

    /// The one thing that a pointer without wildcards points to.
    pub(super) fn get<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wildcard_stands_for_every_member_and_is_named() {
        let payload = json!({"A": {"t": 1}, "B": {"t": 2}, "C": 3});
        let pointer = Pointer::parse("/*/t").unwrap();
        let found: Vec<_> = pointer
            .find(&payload)
            .into_iter()
            .map(|(names, value)| (names[0].to_owned(), value.clone()))
            .collect();
        assert_eq!(
            found,
            [("A".to_owned(), json!(1)), ("B".to_owned(), json!(2))]
        );
    }

    #[test]
    fn escapes_and_indexes_are_those_of_rfc_6901() {
        let payload = json!({"a/b": [{"~": 7}]});
        let pointer = Pointer::parse("/a~1b/0/~0").unwrap();
        assert_eq!(pointer.get(&payload), Some(&json!(7)));
        assert_eq!(Pointer::parse("").unwrap().get(&payload), Some(&payload));
        assert!(Pointer::parse("a").is_err());
    }
}
