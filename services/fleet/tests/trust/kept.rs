//! The commands `fleet accounts` and `fleet certs`, as they are typed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use fleet::access;
use fleet_tests::{Mosquitto, Setup, TempDir};

use crate::scene::read;

fn fleet(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn told(dir: &Path, arguments: &[&str]) -> String {
    let output = fleet(dir, arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn accounts_and_certificates_are_made_once_and_renewed_when_asked() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    assert!(
        told(dir, &["accounts", "--devices", "3"]).starts_with("9 accounts, 3 of them devices; 9")
    );
    let passwords = read(&dir.join("accounts/passwords.csv"));
    assert!(told(dir, &["accounts"]).contains("0 passwords are new"));
    assert_eq!(read(&dir.join("accounts/passwords.csv")), passwords);
    told(dir, &["accounts", "--renew", "sensor-002"]);
    let renewed = read(&dir.join("accounts/passwords.csv"));
    let changed = |name: &str| {
        let line = |text: &str| {
            text.lines()
                .find(|it| it.starts_with(name))
                .map(str::to_owned)
        };
        line(&passwords) != line(&renewed)
    };
    assert!(changed("sensor-002,") && !changed("sensor-001,"));

    assert!(told(dir, &["certs"]).contains("14 certificates made, 0 kept"));
    assert!(told(dir, &["certs"]).contains("0 certificates made, 14 kept"));
    assert!(
        told(dir, &["certs", "--renew", "accounts/sensor-003"]).contains("accounts/sensor-003.crt")
    );

    for secret in [
        "passwords.csv",
        "mosquitto/dynamic-security.json",
        "mosquitto/passwords",
        "emqx/users.csv",
    ] {
        let mode = std::fs::metadata(dir.join("accounts").join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    for made in [
        "mosquitto/dynamic-security.json",
        "mosquitto/passwords",
        "emqx/users.csv",
        "emqx/acl.conf",
    ] {
        let text = read(&dir.join("accounts").join(made));
        for line in renewed.lines().skip(1) {
            let password = line.split(',').nth(1).unwrap();
            assert!(!text.contains(password), "{made} holds a password");
        }
    }
    for (arguments, expected) in [
        (&["accounts", "--renew", "nobody"][..], "nobody"),
        (&["certs", "--renew", "servers/nothing"], "servers/nothing"),
        (&["accounts", "--file", "missing.yaml"], "missing.yaml"),
        (&["certs", "--valid-for", "soon"], "soon"),
    ] {
        let output = fleet(dir, arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains(expected) && error.lines().count() == 1,
            "{error}"
        );
    }
    let table = told(dir, &["accounts", "--show"]);
    assert!(
        table.contains("sensor-001 (device)\n") && table.contains("sensors/"),
        "{table}"
    );
}

/// The configuration that is written is one that Mosquitto starts with.
#[actix::test]
async fn mosquitto_starts_with_the_configuration_that_is_made() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    told(dir, &["accounts"]);
    told(dir, &["certs"]);
    let here = dir.display();
    let lines: Vec<_> = access::configuration()
        .replace("/etc/mosquitto/certs/broker", &format!("{here}/certs/servers/broker"))
        .replace("/etc/mosquitto/certs", &format!("{here}/certs"))
        .replace("/etc/mosquitto/fleet", &format!("{here}/accounts/mosquitto"))
        .lines()
        .map(|line| match line.strip_prefix("listener ") {
            Some(_) => format!("listener {}", fleet_tests::free_port()),
            None => line.to_owned(),
        })
        // The test's own folder is in the lines before these.
        .filter(|line| !line.starts_with("persistence"))
        .collect();
    let broker = Mosquitto::with(Setup { lines, tls: None }).await;
    fleet_tests::eventually(crate::scene::SOON, "Mosquitto runs", async || {
        let logged = broker.logged();
        if logged.contains("running") {
            Ok(())
        } else {
            Err(logged)
        }
    })
    .await;
}
