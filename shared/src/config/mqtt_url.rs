//! The broker's URL.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::{Host, Url};

use crate::session::BrokerAddr;

/// A broker's address with credentials, from `mqtts://user:password@host:port`.
///
/// `Display` shows the address only.
#[derive(Clone, Debug)]
pub struct MqttUrl {
    /// Where the broker listens.
    pub addr: BrokerAddr,
    /// User name, decoded.
    pub username: Option<String>,
    /// Password, decoded.
    pub password: Option<SecretString>,
}

impl FromStr for MqttUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "give mqtt://HOST:PORT or mqtts://HOST:PORT";
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => format!("the scheme is missing; {EXPECTED}"),
            other => format!("{other}; {EXPECTED}"),
        })?;
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            "tcp" => return Err("the scheme is mqtt, not tcp".to_owned()),
            "ssl" | "tls" => return Err(format!("the scheme is mqtts, not {}", url.scheme())),
            "ws" | "wss" => {
                return Err(format!("MQTT over WebSocket is not supported; {EXPECTED}"));
            }
            other => return Err(format!("there is no scheme `{other}`; {EXPECTED}")),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("nothing may follow the port; {EXPECTED}"));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => decode(name)?,
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            _ => return Err(format!("the host is missing; {EXPECTED}")),
        };
        let port = url.port().unwrap_or(if tls { 8_883 } else { 1_883 });
        if port == 0 {
            return Err(format!("port 0 cannot be connected to; {EXPECTED}"));
        }
        Ok(Self {
            addr: BrokerAddr { host, port, tls },
            username: Some(decode(url.username())?).filter(|name| !name.is_empty()),
            password: url
                .password()
                .map(decode)
                .transpose()?
                .map(SecretString::from),
        })
    }
}

impl std::fmt::Display for MqttUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.addr.fmt(f)
    }
}

fn decode(part: &str) -> Result<String, String> {
    percent_decode_str(part)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "a percent-encoded part is not UTF-8".to_owned())
}
