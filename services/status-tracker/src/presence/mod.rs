//! Who is there: decides from statuses, wills, heartbeats and silence whether a device is online.
//!
//! Pure: time comes in as [`Now`], what is to be done goes out as values. The rules are written
//! down in `docs/presence.md`; in short, the newest session of a device decides, what an older one
//! says is not believed, and silence is judged only while we can hear.

mod device;
mod interval;
#[cfg(test)]
mod property_tests;
mod session;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::model::StatusMessage;
use jiff::Timestamp;
use uuid::Uuid;

use device::{Device, Link};
pub use view::DeviceView;

/// Reason of a device that was not heard for longer than its limit.
pub const SILENT: &str = "silent";

/// Reason of a device that said goodbye.
pub const GOODBYE: &str = "disconnected";

/// Reason of a device that is there.
pub const CONNECTED: &str = "connected";

/// Reason of a device that is heard again after it was silent.
pub const HEARD_AGAIN: &str = "heard_again";

/// How long a wrong retained status may stand before it is repaired: a newer status of the device
/// that is on its way does the same, and better.
const REPAIR_AFTER: Duration = Duration::from_secs(2);

/// Pause before the same device is repaired again.
const REPAIR_AGAIN: Duration = Duration::from_secs(30);

/// A moment on both clocks: the wall's for what is shown and stored, the steady one for waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The time of day.
    pub at: Timestamp,
    /// Time since the process started; never goes back.
    pub uptime: Duration,
}

/// What bounds the judgement.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Silence after which any device counts as offline; devices that report at an interval have a
    /// limit of three of those when that is shorter.
    pub silence_max: Duration,
    /// After our connection came up, the time in which offline news of a device that was online is
    /// held back: after a restart of the broker all wills are published, and the devices return.
    pub settle: Duration,
    /// Three times offline within it makes a device flapping.
    pub flap_window: Duration,
    /// Devices held at most; further ones are counted and left out.
    pub devices_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            silence_max: Duration::from_secs(300),
            settle: Duration::from_secs(30),
            flap_window: Duration::from_secs(600),
            devices_max: 1_000_000,
        }
    }
}

/// What is shown of a device in one word.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is connected.
    Online,
    /// It is not.
    Offline,
    /// It went offline three times or more within the flap window.
    Flapping,
    /// Nothing of it was heard that says either.
    Unknown,
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Online, Self::Offline, Self::Flapping, Self::Unknown];

    /// As in payloads and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Flapping => "flapping",
            Self::Unknown => "unknown",
        }
    }
}

/// How a status came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// As it was published.
    Live,
    /// From the broker's memory, at a subscription: no sign of life.
    Retained,
    /// Published by a tracker to repair what the broker remembers: no sign of life.
    Repair,
}

/// A device went on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which device.
    pub device_id: Arc<str>,
    /// When we learned of it.
    pub at: Timestamp,
    /// To what.
    pub online: bool,
    /// Why, in a word or as its will says.
    pub reason: Arc<str>,
    /// The newest session of the device.
    pub session_id: Option<Uuid>,
}

/// What a device measures of itself; what it does not is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Charge of its battery, 0 to 100.
    pub battery_percent: Option<u8>,
    /// Received signal strength in dBm.
    pub signal_strength: Option<i32>,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
}

/// What a message made of the presence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// To be stored.
    pub transition: Option<Transition>,
    /// What is shown of the device is different now, apart from the times.
    pub changed: bool,
    /// It was not believed: an older session's, or one that contradicts a newer message.
    pub stale: bool,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// To be stored.
    pub transitions: Vec<Transition>,
    /// Devices whose retained status is wrong and is to be published anew, see
    /// [`Presence::view`].
    pub repairs: Vec<Arc<str>>,
    /// Devices that look different now.
    pub changed: Vec<Arc<str>>,
}

/// Every device and its state.
#[derive(Debug)]
pub struct Presence {
    settings: Settings,
    devices: Vec<Device>,
    index: BTreeMap<Arc<str>, u32>,
    words: HashSet<Arc<str>>,
    connected: bool,
    up_since: Duration,
    left_out: u64,
}

impl Presence {
    /// Nobody is known, and we are not connected.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            devices: Vec::new(),
            index: BTreeMap::new(),
            words: HashSet::new(),
            connected: false,
            up_since: Duration::ZERO,
            left_out: 0,
        }
    }

    /// The last stored transition of a device, before we connect for the first time. It is shown as
    /// unknown until the broker or the device says more.
    pub fn recall(&mut self, device_id: &str, online: bool, at: Timestamp, session: Option<Uuid>) {
        if let Some(device) = self.entry(device_id) {
            device.recorded = Some(online);
            device.since = at.as_microsecond();
            device.session = session.map_or(0, |id| id.as_u128());
        }
    }

    /// A device went offline at that time, as the store tells: counts towards flapping.
    pub fn recall_offline(&mut self, device_id: &str, at: Timestamp) {
        if let Some(device) = self.entry(device_id) {
            device.offlines.push(at);
        }
    }

    /// Our connection is up: what was missed may still come, so offline news waits.
    pub fn link_up(&mut self, now: Now) {
        self.connected = true;
        self.up_since = now.uptime;
    }

    /// Our connection is down: nobody's silence counts.
    pub fn link_down(&mut self) {
        self.connected = false;
    }

    /// A status or a will arrived.
    pub fn status(&mut self, status: &StatusMessage, arrival: Arrival, now: Now) -> Effect {
        let firmware = status.firmware_version.as_deref().map(|it| self.word(it));
        let reason = self.reason_of(status);
        let settling = now.uptime < self.up_since + self.settings.settle;
        let settings = self.settings;
        let Some(device) = self.entry(&status.device_id) else {
            return Effect::default();
        };
        if !device.believes(status, arrival, now, &settings) {
            if device.link != Link::Unknown {
                device.wrong_since.get_or_insert(now.uptime);
            }
            return Effect {
                stale: true,
                ..Effect::default()
            };
        }
        device.learn(status, firmware, arrival, now);
        let transition = if status.online {
            device.go_online(reason, now)
        } else if settling && device.was_online() {
            device.hold(reason);
            None
        } else {
            device.go_offline(reason, now)
        };
        Effect {
            transition,
            changed: device.look(now, &settings),
            stale: false,
        }
    }

    /// A sign of life that is no status, such as telemetry. A device that was only silent is online
    /// again; one that is said to be gone is not, since the message may have been under way.
    pub fn alive(&mut self, device_id: &str, now: Now) -> Effect {
        let again = self.word(HEARD_AGAIN);
        let settings = self.settings;
        let Some(device) = self.entry(device_id) else {
            return Effect::default();
        };
        device.heard(now);
        let silent = device.link == Link::Offline && device.reason.as_deref() == Some(SILENT);
        let transition = if silent {
            device.wrong_since.get_or_insert(now.uptime);
            device.go_online(again, now)
        } else {
            None
        };
        Effect {
            transition,
            changed: device.look(now, &settings),
            stale: false,
        }
    }

    /// A device measured itself. One that is not known stays so: it has not said whether it is there.
    pub fn measured(&mut self, device_id: &str, measures: Measures) {
        if let Some(place) = self.index.get(device_id) {
            self.devices[*place as usize].measure(measures);
        }
    }

    /// The retained status was cleared: the device is decommissioned.
    pub fn forget(&mut self, device_id: &str) -> bool {
        let Some(place) = self.index.remove(device_id) else {
            return false;
        };
        self.devices.swap_remove(place as usize);
        if let Some(moved) = self.devices.get(place as usize)
            && let Some(index) = self.index.get_mut(&moved.id)
        {
            *index = place;
        }
        true
    }

    /// Looks at every device: who is silent, whose held news is due, what is to be repaired. To be
    /// called about once a second; 100,000 devices take a few milliseconds.
    pub fn sweep(&mut self, now: Now) -> Swept {
        let mut swept = Swept::default();
        if self.connected {
            let silent = self.word(SILENT);
            let settled = now.uptime >= self.up_since + self.settings.settle;
            for device in &mut self.devices {
                let transition = if device.held && settled {
                    let reason = device.reason.clone().unwrap_or_else(|| silent.clone());
                    device.go_offline(reason, now)
                } else if device.is_silent(self.up_since, now, &self.settings) {
                    device.wrong_since.get_or_insert(now.uptime);
                    device.go_offline(silent.clone(), now)
                } else {
                    None
                };
                swept.transitions.extend(transition);
                if device.repair_due(now) {
                    swept.repairs.push(device.id.clone());
                }
                if device.look(now, &self.settings) {
                    swept.changed.push(device.id.clone());
                }
            }
        }
        swept
    }

    /// The store knows the present state of the device since `at`, from another replica or an earlier
    /// run: all replicas show the same time.
    pub fn adopt_since(&mut self, device_id: &str, online: bool, at: Timestamp) {
        if let Some(place) = self.index.get(device_id) {
            let device = &mut self.devices[*place as usize];
            if device.recorded == Some(online) {
                device.since = at.as_microsecond();
            }
        }
    }

    /// One device as it is now.
    #[must_use]
    pub fn view(&self, device_id: &str, now: Now) -> Option<DeviceView> {
        let place = *self.index.get(device_id)?;
        Some(self.devices[place as usize].view(now, &self.settings))
    }

    /// Whether the device is known.
    #[must_use]
    pub fn knows(&self, device_id: &str) -> bool {
        self.index.contains_key(device_id)
    }

    /// Ids and states of devices in the order of their ids, from behind `after` on.
    pub fn states(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, State)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.index
            .range::<str, _>((from, Bound::Unbounded))
            .map(|(id, place)| (id, self.devices[*place as usize].shown))
    }

    /// How many devices are in each state, in the order of [`State::ALL`].
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for device in &self.devices {
            counts[device.shown as usize] += 1;
        }
        counts
    }

    /// Number of devices known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether no device is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Messages of devices beyond the limit so far.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn entry(&mut self, device_id: &str) -> Option<&mut Device> {
        if let Some(place) = self.index.get(device_id) {
            return self.devices.get_mut(*place as usize);
        }
        if self.devices.len() >= self.settings.devices_max {
            self.left_out += 1;
            return None;
        }
        let place = u32::try_from(self.devices.len()).ok()?;
        let id: Arc<str> = device_id.into();
        self.index.insert(id.clone(), place);
        self.devices.push(Device::new(id));
        self.devices.last_mut()
    }

    fn reason_of(&mut self, status: &StatusMessage) -> Arc<str> {
        match (&status.reason, status.online) {
            (_, true) => self.word(CONNECTED),
            (Some(reason), false) => self.word(reason),
            (None, false) => self.word(GOODBYE),
        }
    }

    /// One copy of each text that many devices share; texts beyond a bound are not shared.
    fn word(&mut self, text: &str) -> Arc<str> {
        const WORDS_MAX: usize = 4_096;
        if let Some(word) = self.words.get(text) {
            return word.clone();
        }
        let word: Arc<str> = text.into();
        if self.words.len() < WORDS_MAX {
            self.words.insert(word.clone());
        }
        word
    }
}
