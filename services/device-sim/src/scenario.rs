//! What to simulate: devices of a profile, or a file.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::{ConfigError, duration};
use fleet_shared::session::QoS;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::chaos::Chaos;
use crate::crew::Crew;
use crate::profile::{Profile, ProfileName, Setting};
use crate::replay::{self, Mapping, Speed, Table};
use crate::source::Sources;

/// Readings a second of one device at most: its window of 1,000 publishes fills a link with a
/// round trip of 100 ms.
const DEVICE_RATE_MAX: f64 = 10_000.0;
/// Devices up to which one thread is enough.
const DEVICES_PER_THREAD: u32 = 100;

/// What to simulate, and what to tell about it.
#[derive(clap::Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Devices")]
pub struct Scenario {
    /// How many devices there are.
    #[arg(long, env = "SIM_DEVICES", value_name = "N", default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub devices: u32,
    /// Number of the first device; several simulators share a fleet by it.
    #[arg(long, env = "SIM_FIRST_DEVICE", value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub first_device: u32,
    /// What kind of devices they are: tutorial, mixed, load or a YAML file.
    #[arg(long, env = "SIM_PROFILE", value_name = "NAME|FILE", default_value_t)]
    pub profile: ProfileName,
    /// Readings a second of all devices together; without it each sensor keeps its own pace.
    #[arg(long, env = "SIM_RATE", value_name = "READINGS_PER_SECOND", allow_negative_numbers = true, value_parser = rate)]
    pub rate: Option<f64>,
    /// Ends the schedule after this time; without it the simulator runs until it is stopped.
    #[arg(long, env = "SIM_DURATION", value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Makes values and schedule repeatable; without it they differ from run to run.
    #[arg(long, env = "SIM_SEED", value_name = "S", allow_negative_numbers = true, value_parser = seed)]
    pub seed: Option<u64>,
    /// Time from which the readings' timestamps count (RFC 3339); without it the present.
    #[arg(long, env = "SIM_START_TIME", value_name = "TIME")]
    pub start_time: Option<Timestamp>,
    /// Connections opened a second.
    #[arg(long, env = "SIM_CONNECT_RATE", value_name = "N", default_value_t = 2_000, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub connect_rate: u32,
    /// What goes wrong on purpose: a YAML file. The ledger tells what was done.
    #[arg(long, env = "SIM_CHAOS", value_name = "FILE")]
    pub chaos: Option<PathBuf>,
    /// Local addresses to connect from, in turns: a list with ranges, 127.0.0.2-127.0.0.9.
    #[arg(long, env = "SIM_SOURCE", value_name = "ADDRESSES")]
    pub source: Option<Sources>,
    /// Passwords of the devices, lines `account,password`; a device's user name is its id.
    #[arg(long, env = "SIM_DEVICE_PASSWORDS", value_name = "FILE")]
    pub device_passwords: Option<PathBuf>,
    /// Folder with the certificate of each device: ID.crt and ID.key.
    #[arg(long, env = "SIM_DEVICE_CERTS", value_name = "DIR")]
    pub device_certs: Option<PathBuf>,
    /// Threads; without it one for up to 100 devices, else one a core.
    #[arg(long, env = "SIM_THREADS", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub threads: Option<u16>,

    /// Gets a line for each reading once the broker has acknowledged it (QoS 1 and 2).
    #[arg(long, env = "SIM_LEDGER", value_name = "FILE", help_heading = "Proof")]
    pub ledger: Option<PathBuf>,
    /// After the schedule's end, the run fails when nothing was acknowledged for so long.
    #[arg(long, env = "SIM_STALL_TIMEOUT", value_name = "DURATION", default_value = "30s", allow_hyphen_values = true, value_parser = duration, help_heading = "Proof")]
    pub stall_timeout: Duration,
    /// Form of the summary at the end.
    #[arg(
        long,
        env = "SIM_OUTPUT",
        value_enum,
        default_value_t,
        help_heading = "Proof"
    )]
    pub output: Output,

    /// Publishes the columns of a CSV file with the times of the file, instead of a profile.
    #[arg(long, env = "SIM_REPLAY", value_name = "CSV", help_heading = "Replay")]
    pub replay: Option<PathBuf>,
    /// How many times as fast as recorded; `max`, or 0, as fast as the broker takes it.
    #[arg(long, env = "SIM_SPEED", value_name = "X", default_value_t = Speed::Max, allow_negative_numbers = true, help_heading = "Replay")]
    pub speed: Speed,
    /// COLUMN=TYPE:UNIT,…; without it every numeric column, with a type from its header.
    #[arg(
        long,
        env = "SIM_REPLAY_MAP",
        value_name = "MAP",
        help_heading = "Replay"
    )]
    pub replay_map: Option<Mapping>,
    /// Column of the time; without it one called date, time, timestamp or datetime.
    #[arg(
        long,
        env = "SIM_REPLAY_TIME_COLUMN",
        value_name = "COLUMN",
        help_heading = "Replay"
    )]
    pub replay_time_column: Option<String>,
    /// Time zone of times without an offset, such as Europe/Brussels.
    #[arg(
        long,
        env = "SIM_REPLAY_TIMEZONE",
        value_name = "ZONE",
        default_value = "UTC",
        help_heading = "Replay"
    )]
    pub replay_timezone: String,
    /// Location of the sensors; may have several levels.
    #[arg(
        long,
        env = "SIM_REPLAY_LOCATION",
        value_name = "LOCATION",
        default_value = "replay",
        help_heading = "Replay"
    )]
    pub replay_location: String,
    /// Start of the sensors' ids; without it the file's name and a dash.
    #[arg(
        long,
        env = "SIM_REPLAY_SENSOR_PREFIX",
        value_name = "PREFIX",
        help_heading = "Replay"
    )]
    pub replay_sensor_prefix: Option<String>,
    /// QoS of the readings: one for all types, so that the ledger can prove them.
    #[arg(long, env = "SIM_REPLAY_QOS", value_name = "0|1|2", default_value = "1", allow_negative_numbers = true, value_parser = qos, help_heading = "Replay")]
    pub replay_qos: QoS,
}

/// What is printed at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table; and a progress line on a terminal while it runs.
    #[default]
    Text,
    /// One line of JSON.
    Json,
    /// Nothing: somebody else tells.
    #[value(skip)]
    Nothing,
}

impl Default for Scenario {
    /// What the command line says without flags.
    fn default() -> Self {
        Self {
            devices: 10,
            first_device: 1,
            profile: ProfileName::default(),
            rate: None,
            duration: None,
            seed: None,
            start_time: None,
            connect_rate: 2_000,
            source: None,
            chaos: None,
            device_passwords: None,
            device_certs: None,
            threads: None,
            ledger: None,
            stall_timeout: Duration::from_secs(30),
            output: Output::default(),
            replay: None,
            speed: Speed::Max,
            replay_map: None,
            replay_time_column: None,
            replay_timezone: "UTC".to_owned(),
            replay_location: "replay".to_owned(),
            replay_sensor_prefix: None,
            replay_qos: QoS::AtLeastOnce,
        }
    }
}

impl Scenario {
    /// Device ids, and the locations that each device publishes readings of: what its account at
    /// the broker has to allow. Where kinds of device are drawn by chance, `seed` decides.
    ///
    /// # Errors
    /// As of a run: a profile or a file that cannot be used.
    pub fn locations(&self) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
        let crew = self.crew(self.seed.unwrap_or_default(), Timestamp::UNIX_EPOCH)?;
        Ok(crew.locations())
    }

    /// The devices of a run with this seed that starts at `start`.
    pub(crate) fn crew(&self, seed: u64, start: Timestamp) -> Result<Crew, ConfigError> {
        match &self.replay {
            Some(file) => self.replay_crew(file),
            None => self.live_crew(seed, start),
        }
    }

    /// What goes wrong in a run with this seed.
    pub(crate) fn chaos(&self, seed: u64) -> Result<Option<Chaos>, ConfigError> {
        let open = |file: &PathBuf| {
            Chaos::open(file, seed).map_err(|error| {
                let error = crate::run::chain(&error);
                ConfigError::value("--chaos (SIM_CHAOS)", file.display(), error)
            })
        };
        self.chaos.as_ref().map(open).transpose()
    }

    fn live_crew(&self, seed: u64, start: Timestamp) -> Result<Crew, ConfigError> {
        let profile = |pace| {
            let setting = Setting {
                seed,
                start,
                end: self.duration,
                pace,
            };
            let file = self.profile.load()?;
            Profile::new(file, setting)
        };
        let profile = |pace| {
            profile(pace).map_err(|error| {
                let error = crate::run::chain(&error);
                ConfigError::value("--profile (SIM_PROFILE)", &self.profile, error)
            })
        };
        let at_its_own_pace = profile(1.0)?;
        let natural = at_its_own_pace.rate(self.first_device, self.devices);
        let devices = f64::from(self.devices);
        let rate = self.rate.unwrap_or(natural);
        if rate / devices > DEVICE_RATE_MAX {
            let remedy = format!(
                "a device publishes at most {DEVICE_RATE_MAX} readings a second; \
                 give --devices {} or more, or a lower rate",
                (rate / DEVICE_RATE_MAX).ceil()
            );
            return Err(ConfigError::value("--rate (SIM_RATE)", rate, remedy));
        }
        let profile = match self.rate {
            Some(rate) if natural > 0.0 => profile(rate / natural)?,
            _ => at_its_own_pace,
        };
        Ok(Crew::Live {
            profile,
            first: self.first_device,
            devices: self.devices,
            asked_rate: self.rate,
        })
    }

    fn replay_crew(&self, file: &std::path::Path) -> Result<Crew, ConfigError> {
        let prefix = match &self.replay_sensor_prefix {
            Some(prefix) => prefix.clone(),
            None => format!(
                "{}-",
                file.file_stem().unwrap_or_default().to_string_lossy()
            ),
        };
        let zone = time_zone(&self.replay_timezone)?;
        let table = Table::open(
            file,
            self.replay_map.as_ref(),
            self.replay_time_column.as_deref(),
            &zone,
        )
        .map_err(|error| {
            ConfigError::value(
                "--replay (SIM_REPLAY)",
                file.display(),
                crate::run::chain(&error),
            )
        })?;
        if table.repeated_rows > 0 {
            tracing::warn!(
                rows = table.repeated_rows,
                "rows with the time of an earlier row are left out: their readings would have its keys"
            );
        }
        let sensors = replay::sensors(&table, &prefix, &self.replay_location, self.replay_qos)
            .map_err(|error| {
                let settings = "--replay-map, --replay-location and --replay-sensor-prefix";
                ConfigError::setting(settings, error.to_string())
            })?;
        Ok(Crew::Replay {
            table: Arc::new(table),
            sensors,
            prefix,
            speed: self.speed,
            end: self.duration,
        })
    }

    /// On how many threads the devices run.
    pub(crate) fn threads(&self, devices: usize) -> usize {
        let wanted = self.threads.map(usize::from).unwrap_or_else(|| {
            if devices <= DEVICES_PER_THREAD as usize {
                1
            } else {
                std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
            }
        });
        wanted.min(devices).max(1)
    }
}

fn time_zone(name: &str) -> Result<TimeZone, ConfigError> {
    // UTC has to work where no time zone database is installed.
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).map_err(|error| {
        let remedy = format!("{error}; give UTC or a name of the system's time zone database");
        ConfigError::value("--replay-timezone (SIM_REPLAY_TIMEZONE)", name, remedy)
    })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("give a number above zero, such as 0.5 or 10000".to_owned()),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("give a whole number from 0 to {}", u64::MAX))
}

fn qos(text: &str) -> Result<QoS, String> {
    let level: u8 = text.parse().map_err(|_| "QoS is 0, 1 or 2".to_owned())?;
    QoS::try_from(level)
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Config;

    fn scenario(flags: &[&str]) -> Scenario {
        Config::try_parse_from([&["device-sim"], flags].concat())
            .unwrap()
            .scenario
    }

    #[test]
    fn the_default_is_what_the_command_line_says_without_flags() {
        assert_eq!(Scenario::default(), scenario(&[]));
    }

    /// The flags of the simulator itself; those of every program are told elsewhere.
    fn help() -> String {
        let own = ["Devices", "Proof", "Replay"];
        // What the environment of the test sets is not part of the help.
        let command = Config::command().mut_args(|arg| {
            let shared = arg
                .get_help_heading()
                .is_none_or(|heading| !own.contains(&heading));
            arg.hide_env_values(true).hide(shared)
        });
        command
            .disable_help_flag(true)
            .disable_version_flag(true)
            .term_width(96)
            .render_help()
            .to_string()
    }

    #[test]
    fn help_tells_every_flag() {
        Config::command().debug_assert();
        insta::assert_snapshot!(help());
    }

    #[test]
    fn the_readme_tells_every_flag() {
        let readme = include_str!("../README.md");
        let flags = help();
        let (_, flags) = flags.split_once("[OPTIONS]").unwrap();
        assert!(
            readme.contains(flags.trim()),
            "put this into README.md:\n{flags}"
        );
    }

    #[test]
    fn a_negative_value_is_refused_by_its_flag_and_not_taken_for_one() {
        for (flag, value) in [
            ("--devices", "-1"),
            ("--first-device", "-1"),
            ("--rate", "-0.5"),
            ("--duration", "-1s"),
            ("--seed", "-1"),
            ("--connect-rate", "-1"),
            ("--threads", "-1"),
            ("--stall-timeout", "-1s"),
            ("--speed", "-2"),
            ("--replay-qos", "-1"),
        ] {
            let error = Config::try_parse_from(["device-sim", flag, value]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{error}");
            let error = error.to_string();
            assert!(error.contains(flag) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn what_was_asked_for_is_the_rate_that_was_given() {
        let asked = |flags: &[&str]| {
            let crew = scenario(flags).crew(1, Timestamp::UNIX_EPOCH);
            crew.unwrap().asked_rate()
        };
        assert_eq!(asked(&["--rate", "2000"]), Some(2_000.0));
        // Sensors at their own pace are asked for nothing.
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn a_rate_needs_enough_devices() {
        let error = scenario(&["--rate", "25000", "--devices", "2"])
            .crew(1, Timestamp::UNIX_EPOCH)
            .unwrap_err()
            .to_string();
        insta::assert_snapshot!(error, @"--rate (SIM_RATE) is `25000`: a device publishes at most 10000 readings a second; give --devices 3 or more, or a lower rate");
        assert!(
            scenario(&["--rate", "20000", "--devices", "2"])
                .crew(1, Timestamp::UNIX_EPOCH)
                .is_ok()
        );
    }

    #[test]
    fn a_replay_names_what_is_wrong() {
        let error = |flags: &[&str]| {
            let crew = scenario(flags).crew(1, Timestamp::UNIX_EPOCH);
            crew.err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        let missing = error(&["--replay", "/no/such.csv"]);
        assert!(
            missing.starts_with("--replay (SIM_REPLAY) is `/no/such.csv`: cannot open"),
            "{missing}"
        );
        let zone = error(&[
            "--replay",
            "/no/such.csv",
            "--replay-timezone",
            "Mars/Crater",
        ]);
        assert!(
            zone.starts_with("--replay-timezone (SIM_REPLAY_TIMEZONE) is `Mars/Crater`"),
            "{zone}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "date,a\n2020-01-01,1\n").unwrap();
        let file = file.path().to_str().unwrap();
        let location = error(&["--replay", file, "--replay-location", "lab/#"]);
        insta::assert_snapshot!(location);
        let prefix = error(&["--replay", file, "--replay-sensor-prefix", "a/"]);
        insta::assert_snapshot!(prefix);
    }

    #[test]
    fn threads_follow_the_number_of_devices() {
        assert_eq!(Scenario::default().threads(100), 1);
        assert_eq!(scenario(&["--threads", "4"]).threads(100), 4);
        assert_eq!(scenario(&["--threads", "4"]).threads(2), 2);
    }
}
