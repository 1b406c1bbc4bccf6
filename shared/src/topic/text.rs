//! Which text goes to a broker.

use std::borrow::Cow;

/// Whether a receiver may take a packet with this character for malformed and end the connection
/// (MQTT 5, section 1.5.4). Mosquitto does, so a message with it would never get there, and would cut
/// off everything behind it after each reconnect.
fn is_forbidden(char: char) -> bool {
    let code = u32::from(char);
    char.is_control() || code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code)
}

/// Where in `text` the first character is over which a broker may end the connection.
pub(crate) fn forbidden(text: &str) -> Option<usize> {
    // Most text is printable ASCII, which needs no look at its characters.
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return None;
    }
    let mut chars = text.char_indices();
    chars
        .find(|(_, char)| is_forbidden(*char))
        .map(|(at, _)| at)
}

/// The same text with U+FFFD in place of each character over which a broker may end the connection:
/// for user properties that only people read. A publish with such a character is
/// [`Invalid`](crate::session::PublishError::Invalid).
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    match forbidden(text) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let replaced = |char| {
                if is_forbidden(char) {
                    char::REPLACEMENT_CHARACTER
                } else {
                    char
                }
            };
            Cow::Owned(text.chars().map(replaced).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brokers_take_for_malformed_is_found_and_replaced() {
        for bad in [
            "\0",
            "\u{1}",
            "\u{7f}",
            "\u{85}",
            "\u{fdd0}",
            "\u{ffff}",
            "\u{1fffe}",
        ] {
            let text = format!("aé{bad}z");
            assert_eq!(forbidden(&text), Some(3), "{bad:?}");
            assert_eq!(printable(&text), "aé\u{fffd}z", "{bad:?}");
        }
        for good in ["", "devices/gerät-1/öffnen", "\u{1f6aa}", " ~\u{a0}"] {
            assert_eq!(forbidden(good), None, "{good:?}");
            assert!(matches!(printable(good), Cow::Borrowed(_)));
        }
    }
}
