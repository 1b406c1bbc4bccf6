//! One scalar out of a JSON payload, without reading more of it than needed.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON pointer (RFC 6901) to a string, number or boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

/// Steps of a pointer at most; it bounds the depth of every look-up.
const STEPS_MAX: usize = 16;

impl Pointer {
    /// Takes a text such as `/sensor_id`; none if it is no pointer.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let steps: Vec<String> = text
            .strip_prefix('/')?
            .split('/')
            .map(|step| step.replace("~1", "/").replace("~0", "~"))
            .collect();
        let whole = steps.iter().all(|step| !step.is_empty());
        (whole && steps.len() <= STEPS_MAX).then_some(Self(steps))
    }

    /// Appends what stands there to `into`; false, with nothing appended, if nothing does.
    ///
    /// What follows in the payload is not looked at, so it may be anything.
    pub(crate) fn append(&self, payload: &[u8], into: &mut String) -> bool {
        let before = into.len();
        let mut found = false;
        let look = Look {
            steps: &self.0,
            into,
            found: &mut found,
        };
        let mut json = serde_json::Deserializer::from_slice(payload);
        // Once it is found the rest is left unread, which the parser calls an error.
        drop(look.at(&mut json));
        if !found {
            into.truncate(before);
        }
        found
    }
}

struct Look<'a> {
    steps: &'a [String],
    into: &'a mut String,
    found: &'a mut bool,
}

impl Look<'_> {
    fn at<'de, D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }

    fn scalar<E>(self, value: impl fmt::Display) -> Result<(), E> {
        if self.steps.is_empty() {
            use fmt::Write as _;
            *self.found = write!(self.into, "{value}").is_ok();
        }
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        self.at(json)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        if self.steps.is_empty() {
            self.into.push_str(value);
            *self.found = true;
        }
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while let Some(is_it) = map.next_key_seed(Is(step))? {
            if is_it {
                let look = Look {
                    steps: rest,
                    into: self.into,
                    found: self.found,
                };
                return map.next_value_seed(look);
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let index = self
            .steps
            .split_first()
            .and_then(|(step, rest)| Some((step.parse::<usize>().ok()?, rest)));
        let mut at = 0;
        if let Some((index, rest)) = index {
            while at < index {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
                at += 1;
            }
            let look = Look {
                steps: rest,
                into: self.into,
                found: self.found,
            };
            seq.next_element_seed(look)?;
            return Ok(());
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Whether a key is the one looked for, without a copy of it.
struct Is<'a>(&'a str);

impl<'de> serde::de::DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(pointer: &str, payload: &str) -> Option<String> {
        let mut text = "before ".to_owned();
        let found = Pointer::parse(pointer)
            .unwrap()
            .append(payload.as_bytes(), &mut text);
        let text = text.strip_prefix("before ").unwrap().to_owned();
        assert!(found || text.is_empty());
        found.then_some(text)
    }

    #[test]
    fn scalar_is_found_wherever_it_stands() {
        let payload = r#"{"a":{"b":[1,{"c":"x"},true]},"sensor_id":"t-\u00e9","n":-3,"f":1.5}"#;
        for (pointer, expected) in [
            ("/sensor_id", Some("t-é")),
            ("/a/b/0", Some("1")),
            ("/a/b/1/c", Some("x")),
            ("/a/b/2", Some("true")),
            ("/n", Some("-3")),
            ("/f", Some("1.5")),
            ("/a", None),
            ("/a/b", None),
            ("/a/b/7", None),
            ("/a/b/x", None),
            ("/missing", None),
            ("/sensor_id/deeper", None),
        ] {
            assert_eq!(at(pointer, payload).as_deref(), expected, "{pointer}");
        }
    }

    #[test]
    fn what_is_no_json_has_no_scalar_and_what_follows_it_does_not_matter() {
        assert_eq!(at("/a", "not json"), None);
        assert_eq!(at("/a", ""), None);
        assert_eq!(at("/a", "{\"a\":null}"), None);
        assert_eq!(
            at("/a", "{\"a\":\"x\" and then nonsense").as_deref(),
            Some("x")
        );
    }

    #[test]
    fn text_that_is_no_pointer_is_refused() {
        for text in ["", "a", "/", "/a/", "//a"] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        let slash = Pointer::parse("/a~1b~0").unwrap();
        let mut text = String::new();
        assert!(slash.append(br#"{"a/b~":"x"}"#, &mut text));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut text = String::new();
            Pointer::parse("/a/0/b").unwrap().append(&payload, &mut text);
        }

        #[test]
        fn it_agrees_with_serde_json(key in "[a-z]{1,4}", value in "\\PC{0,12}", other in any::<i64>()) {
            let payload = serde_json::json!({"zz": other, key.clone(): {"v": value.clone()}}).to_string();
            prop_assert_eq!(at(&format!("/{key}/v"), &payload), Some(value));
        }
    }
}
