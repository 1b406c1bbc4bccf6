//! What the JSON parser does not tell: how deep a text nests, and which member is to blame.
//! Neither function recurses, neither fails: on broken JSON they answer as far as they can read.

/// Whether objects and arrays in `text` nest deeper than `max`.
///
/// Counting opening brackets, which compiles to a few vector instructions, answers for nearly
/// every payload; only one with more brackets than levels allowed is looked at closely.
pub(super) fn is_deeper_than(text: &str, max: usize) -> bool {
    let opening = text.bytes().filter(|byte| matches!(byte, b'{' | b'['));
    if opening.count() <= max {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Goes past the closing quote of a string whose opening one has been read.
fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

/// The members of the object in `text`: each key, and its value as it is written.
pub(super) fn members(text: &str) -> Vec<(String, &str)> {
    let mut members = Vec::new();
    let Some(mut rest) = text.trim_start().strip_prefix('{') else {
        return members;
    };
    loop {
        rest = rest.trim_start();
        let Some(key_len) = string_len(rest) else {
            return members;
        };
        let (key, after) = rest.split_at(key_len);
        let Some(after) = after.trim_start().strip_prefix(':') else {
            return members;
        };
        let len = value_len(after);
        let (value, after) = after.split_at(len);
        if let Ok(key) = serde_json::from_str(key) {
            members.push((key, value.trim()));
        }
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return members,
        }
    }
}

/// The length of the string `text` starts with, quotes included.
fn string_len(text: &str) -> Option<usize> {
    let mut bytes = text.strip_prefix('"')?.bytes();
    skip_string(&mut bytes);
    Some(text.len() - bytes.len())
}

/// The length of the value `text` starts with: up to a comma or a bracket that closes what was
/// open before it.
fn value_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut bytes = text.bytes();
    loop {
        let at = text.len() - bytes.len();
        match bytes.next() {
            None => return at,
            Some(b',' | b'}' | b']') if depth == 0 => return at,
            Some(b'"') => skip_string(&mut bytes),
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => depth -= 1,
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_deeper_than, members};

    #[test]
    fn depth_counts_containers_and_not_their_text() {
        assert!(!is_deeper_than("{}", 1));
        assert!(is_deeper_than("{\"a\":[]}", 1));
        assert!(!is_deeper_than("{\"a\":[]}", 2));
        assert!(!is_deeper_than(r#"{"a":"[[[[\"[[[["}"#, 1));
        assert!(!is_deeper_than("[[],[],[],[],[]]", 2));
        assert!(is_deeper_than(&"[".repeat(100_000), 16));
    }

    #[test]
    fn members_are_found_as_written() {
        let text = r#" { "a" : NaN , "b\u0063":"x,}\"" ,"d":{"e":[1,2]},"f":1e999}"#;
        let expected = [
            ("a", "NaN"),
            ("bc", r#""x,}\"""#),
            ("d", r#"{"e":[1,2]}"#),
            ("f", "1e999"),
        ];
        let found = members(text);
        assert_eq!(found.len(), expected.len());
        for ((key, value), (expected_key, expected_value)) in found.iter().zip(expected) {
            assert_eq!((key.as_str(), *value), (expected_key, expected_value));
        }
    }

    #[test]
    fn members_of_broken_text_are_those_before_the_break() {
        for text in [
            "", "[", "{", "{\"a", "{\"a\"", "{\"a\\", "{a:1}", "nonsense",
        ] {
            assert!(members(text).is_empty(), "{text}");
        }
        assert_eq!(members("{\"a\":").len(), 1);
        assert_eq!(members("{\"a\":1,").len(), 1);
        assert_eq!(members("{\"a\":]}").len(), 1);
    }
}
