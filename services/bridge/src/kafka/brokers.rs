//! The list of brokers to begin with.

use std::net::Ipv6Addr;
use std::num::NonZeroU16;

use fleet_shared::config::ConfigError;

const FLAG: &str = "--kafka-brokers (KAFKA_BROKERS)";

/// Checks a list: librdkafka leaves out what it cannot read, and waits for ever if nothing is left.
///
/// # Errors
/// The first that is no broker, or that there is none.
pub(super) fn check(list: &str) -> Result<(), ConfigError> {
    let mut brokers = list.split(',').map(str::trim).filter(|it| !it.is_empty());
    let wrong = match brokers.clone().next() {
        None => Some(list),
        Some(_) => brokers.find(|broker| !is_broker(broker)),
    };
    wrong.map_or(Ok(()), |wrong| {
        let remedy = "write HOST or HOST:PORT, an IPv6 address in brackets, and commas between several, \
                      such as kafka-0:9092,[::1]:9092";
        Err(ConfigError::value(FLAG, wrong, remedy))
    })
}

fn is_broker(text: &str) -> bool {
    if let Some((address, behind)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        let port = behind.strip_prefix(':');
        return address.parse::<Ipv6Addr>().is_ok()
            && (behind.is_empty() || port.is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_in_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !host.is_empty() && host.chars().all(is_in_names) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.parse::<NonZeroU16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn lists_name_brokers_or_say_what_does_not() {
        for list in [
            "k",
            "k:9092",
            "kafka-0.kafka_net.svc:9092,10.0.0.1:1",
            "a:1, b:2,",
            "[::1]:9092,[fe80::1]",
        ] {
            assert!(check(list).is_ok(), "{list}");
        }
        for (list, wrong) in [
            ("", ""),
            (" , ", " , "),
            ("not a host:::", "not a host:::"),
            ("a:1,b:", "b:"),
            ("a:0", "a:0"),
            ("a:65536", "a:65536"),
            (":9092", ":9092"),
            ("::1", "::1"),
            ("[::1", "[::1"),
            ("[::1]9092", "[::1]9092"),
            ("[k]:9092", "[k]:9092"),
            ("ssl://k:9092", "ssl://k:9092"),
        ] {
            let error = check(list).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")), "{list}: {error}");
        }
    }
}
