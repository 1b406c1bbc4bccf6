//! What each service in the process is told: what its own command line would say elsewhere.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use alerting::WatchArgs;
use device_sim::Scenario;
use fleet_shared::config::{ConfigError, DatabaseArgs, DatabaseUrl, MqttArgs};
use ingest::{Drain, Intake};
use status_tracker::{HttpArgs, Tracking};
use uuid::Uuid;

use super::args::{BrokerChoice, UpArgs};
use super::secure::Secured;
use crate::place::{ledger_file, store_file, token_file};

/// Client ids of the services, apart from those of the same services elsewhere on this host.
const INGEST: &str = "fleet-up-ingest";
const ALERTING: &str = "fleet-up-alerting";
const STATUS: &str = "fleet-up-status";
#[cfg(feature = "kafka")]
const BRIDGE: &str = "fleet-up-bridge";
/// The group of alerting: processes with one store, so not that of an alerting elsewhere.
const ALERTING_GROUP: &str = "fleet-up";

/// How to reach the broker, and who the services are to it.
#[derive(Debug)]
pub(super) struct Way {
    /// What all sessions have in common.
    pub(super) mqtt: MqttArgs,
    /// Accounts, if it asks for them.
    pub(super) secured: Option<Secured>,
}

impl Way {
    /// The settings of a service's sessions. With accounts, its client ids begin with its name.
    fn of(&self, account: &str, client_id: &str) -> MqttArgs {
        let mqtt = MqttArgs {
            mqtt_client_id: Some(self.client_id(account, client_id)),
            ..self.mqtt.clone()
        };
        match &self.secured {
            None => mqtt,
            Some(secured) => secured.sign_in(account, mqtt),
        }
    }

    fn client_id(&self, account: &str, client_id: &str) -> String {
        match self.secured {
            None => client_id.to_owned(),
            Some(_) => format!("{account}-{client_id}"),
        }
    }
}

fn database(args: &UpArgs) -> DatabaseArgs {
    DatabaseArgs {
        database_url: DatabaseUrl::Sqlite(store_file(&args.data_dir)),
        database_password_file: None,
    }
}

/// What is simulated; with accounts, [`with_passwords`] adds the devices' own.
pub(super) fn devices(args: &UpArgs) -> Scenario {
    Scenario {
        devices: args.devices,
        duration: args.duration,
        seed: args.seed,
        ledger: Some(ledger_file(&args.data_dir)),
        output: device_sim::Output::Nothing,
        ..Scenario::default()
    }
}

/// The same, each device with its password.
pub(super) fn with_passwords(scenario: Scenario, way: &Way) -> Scenario {
    Scenario {
        device_passwords: way.secured.as_ref().map(Secured::passwords_file),
        ..scenario
    }
}

/// The embedded broker ends with this process, and its sessions with it; they are taken to their end.
/// Another broker keeps the last one's, as for any replica.
fn drain(args: &UpArgs) -> Drain {
    match args.broker {
        BrokerChoice::Embedded => Drain::End,
        BrokerChoice::Url(_) => Drain::Auto,
    }
}

pub(super) fn ingest(args: &UpArgs, way: &Way) -> ingest::Config {
    ingest::Config {
        common: args.common.clone(),
        mqtt: way.of("ingest", INGEST),
        database: database(args),
        intake: Intake {
            sessions: args.ingest,
            drain: drain(args),
            ..Intake::default()
        },
    }
}

pub(super) fn alerting(args: &UpArgs, way: &Way) -> alerting::Config {
    alerting::Config {
        common: args.common.clone(),
        mqtt: way.of("alerting", ALERTING),
        database: database(args),
        watch: WatchArgs {
            rules: args.rules.clone(),
            routes: args.routes.clone(),
            group: way.client_id("alerting", ALERTING_GROUP),
            ..WatchArgs::default()
        },
    }
}

/// None without brokers of Kafka.
///
/// # Errors
/// A variable that cannot be used.
#[cfg(feature = "kafka")]
pub(super) fn bridge(args: &UpArgs, way: &Way) -> Result<Option<bridge::Config>, ConfigError> {
    let Some(brokers) = kafka(args) else {
        return Ok(None);
    };
    let mut bridge = fleet_shared::config::part::<bridge::BridgeArgs>(
        "bridge",
        [format!("--kafka-brokers={brokers}")],
    )?;
    bridge.drain = drain(args);
    Ok(Some(bridge::Config {
        common: args.common.clone(),
        mqtt: way.of("bridge", BRIDGE),
        bridge,
    }))
}

/// The brokers of Kafka; an empty list is none.
pub(super) fn kafka(args: &UpArgs) -> Option<&str> {
    let brokers = args.kafka_brokers.as_deref();
    brokers.filter(|brokers| !brokers.is_empty())
}

/// # Errors
/// If a token has to be made and cannot be written.
pub(super) fn status_tracker(
    args: &UpArgs,
    way: &Way,
) -> Result<status_tracker::Config, ConfigError> {
    let mut http = args.http.clone();
    if http.api_token.is_none() && http.api_token_file.is_none() {
        let file = token_file(&args.data_dir);
        make_token(&file)?;
        http.api_token_file = Some(file);
    }
    Ok(status_tracker::Config {
        common: args.common.clone(),
        mqtt: way.of("status-tracker", STATUS),
        database: database(args),
        tracking: Tracking::default(),
        http: HttpArgs { ..http },
    })
}

/// A token that only this user can read, unless there is one from an earlier run.
fn make_token(file: &Path) -> Result<(), ConfigError> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    let written = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => Err(error),
        // 122 bits of chance from the operating system, as a token of its own.
        Ok(mut opened) => writeln!(opened, "{}", Uuid::new_v4().simple()),
    };
    written.map_err(|error| {
        let remedy = format!("cannot keep the API's token there ({error}); set API_TOKEN");
        ConfigError::value("--data-dir (FLEET_DATA_DIR)", file.display(), remedy)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = token_file(folder.path());
        make_token(&file).unwrap();
        let token = std::fs::read_to_string(&file).unwrap();
        assert_eq!(token.trim().len(), 32);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        make_token(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
        let error = make_token(&folder.path().join("none/x")).unwrap_err();
        assert!(error.to_string().contains("API_TOKEN"), "{error}");
    }
}
