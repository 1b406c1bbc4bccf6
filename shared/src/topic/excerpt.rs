use std::fmt;

/// A text from outside, made fit for one line of an error or a log: escaped, and shortened to
/// [`Excerpt::CHARS_MAX`] characters, the last of which is `…` when something was left out.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// Most characters an excerpt shows.
    pub const CHARS_MAX: usize = 64;

    /// The start of `text`, its control and unprintable characters escaped as Rust does.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut shown = String::new();
        let mut count = 0;
        // Where to cut, in bytes of `shown`, should the text turn out too long.
        let mut cut = 0;
        for char in text.chars() {
            // Quotes stay as they are: our messages put back-ticks around an excerpt.
            if matches!(char, '"' | '\'') {
                shown.push(char);
                count += 1;
            } else {
                let escaped = char.escape_debug();
                count += escaped.len();
                shown.extend(escaped);
            }
            if count > Self::CHARS_MAX {
                shown.truncate(cut);
                shown.push('…');
                break;
            }
            if count < Self::CHARS_MAX {
                cut = shown.len();
            }
        }
        Self(shown)
    }

    /// The excerpt as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Excerpt;

    #[test]
    fn excerpt_is_never_longer_than_its_limit() {
        assert_eq!(Excerpt::new(&"a".repeat(64)).as_str(), "a".repeat(64));
        assert_eq!(
            Excerpt::new(&"a".repeat(65)).as_str(),
            format!("{}…", "a".repeat(63))
        );
        let escapes = Excerpt::new(&"\u{1}".repeat(100));
        assert!(escapes.as_str().chars().count() <= 64, "{escapes}");
        assert!(escapes.as_str().ends_with("\\u{1}…"), "{escapes}");
    }

    #[test]
    fn excerpt_keeps_to_one_line() {
        assert_eq!(Excerpt::new("a\nb\0 \"c\"").as_str(), "a\\nb\\0 \"c\"");
    }
}
