//! Local addresses to connect from: one address has ports for some 28,000 to 64,000 connections.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// Addresses at most: a thousand connections from each are a hundred million devices.
const ADDRESSES_MAX: usize = 65_536;

/// A list of local addresses, as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(Vec<IpAddr>);

impl Sources {
    /// The address of the device at `index`: devices take turns.
    #[must_use]
    pub fn of(&self, index: usize) -> Option<IpAddr> {
        self.0.get(index % self.0.len().max(1)).copied()
    }
}

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut addresses = Vec::new();
        for part in text.split(',').map(str::trim) {
            let wrong = || {
                format!("`{part}` is no address and no range such as 127.0.0.2-127.0.0.9 of IPv4")
            };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse(), last.parse()) {
                (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) if first <= last => {
                    let range = u32::from(first)..=u32::from(last);
                    let room = ADDRESSES_MAX.saturating_sub(addresses.len());
                    if (range.end() - range.start()) as usize >= room {
                        return Err(format!("gives more than {ADDRESSES_MAX} addresses"));
                    }
                    addresses.extend(range.map(|address| IpAddr::V4(Ipv4Addr::from(address))));
                }
                (Ok(first), Ok(last)) if first == last => addresses.push(first),
                _ => return Err(wrong()),
            }
        }
        Ok(Self(addresses))
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(IpAddr::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_written_out_and_devices_take_turns() {
        let sources: Sources = "127.0.0.2-127.0.0.4, ::1".parse().unwrap();
        assert_eq!(sources.to_string(), "127.0.0.2,127.0.0.3,127.0.0.4,::1");
        assert_eq!(sources.of(4), "127.0.0.2".parse().ok());
        for wrong in [
            "",
            "host",
            "127.0.0.4-127.0.0.2",
            "::1-::2",
            "0.0.0.0-255.255.255.255",
            "127.0.0.1-",
        ] {
            assert!(wrong.parse::<Sources>().is_err(), "{wrong}");
        }
    }
}
