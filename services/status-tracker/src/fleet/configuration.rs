//! Desired and reported configurations of devices, in bounded memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// Largest configuration that is kept, in bytes.
const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// Of all configurations and the names of their devices together: 128 bytes for each of a million
/// devices, or the two largest for each of a thousand.
const BYTES_MAX: usize = 128 * 1024 * 1024;

/// Desired and reported configuration of a device, as JSON text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    pub(crate) desired: Option<Arc<str>>,
    pub(crate) reported: Option<Arc<str>>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Desired,
    Reported,
}

impl Configuration {
    fn side(&mut self, side: Side) -> &mut Option<Arc<str>> {
        match side {
            Side::Desired => &mut self.desired,
            Side::Reported => &mut self.reported,
        }
    }

    fn bytes(&self) -> usize {
        let texts = [&self.desired, &self.reported];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    }
}

/// The configurations of all devices.
///
/// They go with the device. What the broker retains for one that was forgotten and comes back is
/// known again with the next connection, or when it is published anew.
#[derive(Debug)]
pub(crate) struct Configurations {
    of: BTreeMap<Arc<str>, Configuration>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Configurations {
    fn default() -> Self {
        Self {
            of: BTreeMap::new(),
            bytes: 0,
            bytes_max: BYTES_MAX,
        }
    }
}

impl Configurations {
    pub(crate) fn get(&self, device_id: &str) -> Option<&Configuration> {
        self.of.get(device_id)
    }

    /// Devices that have one.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn forget(&mut self, device_id: &str) {
        if let Some(was) = self.of.remove(device_id) {
            self.bytes -= device_id.len() + was.bytes();
        }
    }

    /// Takes what the broker retains; nothing if it is empty.
    ///
    /// # Errors
    /// Why it is refused, in a word. When there is no room for it, what was known before is dropped
    /// too, as it is not so any more.
    pub(super) fn set(
        &mut self,
        device_id: &str,
        side: Side,
        payload: &[u8],
    ) -> Result<(), &'static str> {
        let text = std::str::from_utf8(payload)
            .ok()
            .filter(|text| text.len() <= CONFIG_BYTES_MAX)
            .filter(|text| text.is_empty() || serde_json::from_str::<Value>(text).is_ok())
            .ok_or("malformed")?;
        let mut configuration = self.of.get(device_id).cloned().unwrap_or_default();
        self.forget(device_id);
        let kept = configuration.bytes();
        let was = configuration.side(side).take();
        let others = kept - was.map_or(0, |text| text.len());
        let fits = self.bytes + device_id.len() + others + text.len() <= self.bytes_max;
        if !text.is_empty() && fits {
            *configuration.side(side) = Some(text.into());
        }
        let bytes = configuration.bytes();
        if bytes > 0 {
            self.bytes += device_id.len() + bytes;
            self.of.insert(device_id.into(), configuration);
        }
        match fits || text.is_empty() {
            true => Ok(()),
            false => Err("no_room"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(configurations: &Configurations, device_id: &str) -> [Option<String>; 2] {
        let known = configurations.get(device_id).cloned().unwrap_or_default();
        [known.desired, known.reported].map(|it| it.map(|text| text.to_string()))
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_with_the_device() {
        let mut configurations = Configurations {
            bytes_max: 20,
            ..Configurations::default()
        };
        let c = &mut configurations;
        assert_eq!(c.set("d1", Side::Desired, b"[1234]"), Ok(()));
        assert_eq!(c.set("d1", Side::Reported, b"[123]"), Ok(()));
        assert_eq!((c.len(), c.bytes), (1, 13));
        assert_eq!(c.set("d2", Side::Desired, b"[1234]"), Err("no_room"));
        assert_eq!((c.len(), c.bytes), (1, 13));
        assert_eq!(c.set("d2", Side::Desired, b"[123]"), Ok(()));
        // What it was is not so any more.
        assert_eq!(c.set("d1", Side::Reported, b"[123456]"), Err("no_room"));
        assert_eq!(text(c, "d1"), [Some("[1234]".to_owned()), None]);
        assert_eq!(c.bytes, 15);
        for _ in 0..3 {
            c.forget("d1");
            c.set("d1", Side::Desired, b"[1]").unwrap();
        }
        assert_eq!(c.bytes, 12);
        c.set("d1", Side::Desired, b"").unwrap();
        c.forget("d2");
        assert_eq!((c.len(), c.bytes), (0, 0));
    }

    #[test]
    fn what_is_no_configuration_changes_nothing() {
        let mut configurations = Configurations::default();
        configurations.set("d", Side::Desired, b"{}").unwrap();
        let long = format!("\"{}\"", "x".repeat(CONFIG_BYTES_MAX));
        for bad in [&b"{"[..], b"\xff", long.as_bytes()] {
            assert!(configurations.set("d", Side::Desired, bad).is_err());
        }
        assert_eq!(text(&configurations, "d"), [Some("{}".to_owned()), None]);
    }
}
