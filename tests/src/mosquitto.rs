//! A real Mosquitto.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_shared::session::BrokerAddr;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::certificate::{Authority, Issued};
use crate::process::{exit_code, signal};
use crate::{eventually, free_port, log};

/// Longest time Mosquitto may take to listen or, with a full queue to save, to exit.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a Mosquitto is started with; the default is what the fleet asks of a broker.
#[derive(Debug, Default)]
pub struct Setup {
    /// Lines added to the end of the configuration.
    pub lines: Vec<String>,
    /// TLS on the port: the broker's certificate, and whose client certificates it demands.
    pub tls: Option<(Issued, Option<Authority>)>,
}

/// A Mosquitto on a free port of 127.0.0.1, with its files in a directory of its own.
///
/// Sessions and retained messages survive [`Mosquitto::terminate`] and a new start, and are lost
/// with [`Mosquitto::kill`]: it saves when it ends and not before. Queues are unlimited.
#[derive(Debug)]
pub struct Mosquitto {
    dir: TempDir,
    port: u16,
    tls: bool,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts one with the default [`Setup`].
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// Starts one whose dynamic security refuses everybody one thing, such as `publishClientSend` to a
    /// filter, with 0x87. Its rules are kept in `dir`.
    pub async fn refusing(dir: &Path, what: &str, filter: &str) -> Self {
        let rules = serde_json::json!({
            "defaultACLAccess": {
                "publishClientSend": true, "publishClientReceive": true,
                "subscribe": true, "unsubscribe": true
            },
            "anonymousGroup": "everyone",
            "groups": [{"groupname": "everyone", "roles": [{"rolename": "limited"}]}],
            "roles": [{"rolename": "limited", "acls": [
                {"acltype": what, "topic": filter, "priority": 1, "allow": false}
            ]}],
            "clients": []
        });
        let file = dir.join("rules.json");
        fs::write(&file, rules.to_string()).expect("a writable folder");
        let lines = vec![
            "plugin mosquitto_dynamic_security.so".to_owned(),
            format!("plugin_opt_config_file {}", file.display()),
        ];
        Self::with(Setup { lines, tls: None }).await
    }

    /// Starts one as told.
    pub async fn with(setup: Setup) -> Self {
        // Another test may take the port between our look and Mosquitto's.
        for _ in 0..5 {
            let dir = TempDir::with_prefix("mosquitto-").expect("a temporary directory");
            let mut broker = Self {
                port: free_port(),
                tls: setup.tls.is_some(),
                dir,
                child: None,
            };
            broker.write_configuration(&setup);
            if broker.spawn().await.is_ok() {
                return broker;
            }
        }
        panic!("Mosquitto does not start; its log is above");
    }

    fn write_configuration(&self, setup: &Setup) {
        let dir = self.dir.path().display();
        let mut text = format!(
            "# Without it Mosquitto becomes a user that may not write here.\n\
             user root\n\
             listener {} 127.0.0.1\n\
             allow_anonymous true\n\
             set_tcp_nodelay true\n\
             max_inflight_messages 0\n\
             max_queued_messages 0\n\
             persistence true\n\
             persistence_location {dir}/\n\
             log_dest stderr\n\
             log_timestamp_format %Y-%m-%dT%H:%M:%S\n",
            self.port
        );
        if let Some((certificate, clients)) = &setup.tls {
            let cert = self.file("broker.crt", &certificate.certificate);
            let key = self.file("broker.key", &certificate.key);
            text += &format!("certfile {cert}\nkeyfile {key}\n");
            if let Some(authority) = clients {
                let ca = self.file("clients.crt", &authority.certificate());
                text += &format!("cafile {ca}\nrequire_certificate true\n");
            }
        }
        for line in &setup.lines {
            text += &format!("{line}\n");
        }
        self.file("mosquitto.conf", &text);
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("the temporary directory is writable");
        path.display().to_string()
    }

    async fn spawn(&mut self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.log());
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap_or("mosquitto");
        let child = Command::new(program)
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the temporary directory is writable"))
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "this test needs Mosquitto and cannot start `{program}` ({error}): install it \
                     with `apt-get install mosquitto mosquitto-clients`, or run `make test`"
                )
            });
        let child = self.child.insert(child);
        let port = self.port;
        let listening = eventually(PATIENCE, "Mosquitto listens", async || {
            match child.try_wait().expect("our own child") {
                Some(status) => Ok(Err(format!("mosquitto ended at once with {status}"))),
                None => TcpStream::connect(("127.0.0.1", port)).map(|_| Ok(())),
            }
        });
        let started = listening.await;
        if started.is_err() {
            self.child = None;
        }
        started
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its `MQTT_URL`; the host is `localhost`, so that a certificate can name it.
    #[must_use]
    pub fn url(&self) -> String {
        self.addr().to_string()
    }

    /// The same as the session takes it.
    #[must_use]
    pub fn addr(&self) -> BrokerAddr {
        BrokerAddr {
            host: "localhost".to_owned(),
            port: self.port,
            tls: self.tls,
        }
    }

    /// What it logged.
    #[must_use]
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("mosquitto.log")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("Mosquitto runs").id()
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        crate::process::resident_bytes(self.pid()).expect("Mosquitto runs")
    }

    /// Ends it as an operator does (SIGTERM) and waits; it saves its sessions first.
    pub async fn terminate(&mut self) {
        signal(self.pid(), Signal::SIGTERM);
        let child = self.child.as_mut().expect("Mosquitto runs");
        exit_code(child, PATIENCE, "Mosquitto").await;
        self.child = None;
    }

    /// Ends it as a crash does (SIGKILL): nothing is saved.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself: then there is nothing to kill.
            child.kill().ok();
            child.wait().expect("our own child");
        }
    }

    /// Starts it again on the same port with the same files.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "Mosquitto still runs");
        self.spawn().await.expect("Mosquitto starts again");
    }

    /// Lets it read certificates and passwords again (SIGHUP).
    pub fn hang_up(&self) {
        signal(self.pid(), Signal::SIGHUP);
    }

    /// Stops its execution (SIGSTOP): connections stay open, nothing is answered.
    pub fn pause(&self) {
        signal(self.pid(), Signal::SIGSTOP);
    }

    /// Lets it go on after [`Mosquitto::pause`].
    pub fn resume(&self) {
        signal(self.pid(), Signal::SIGCONT);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
        log::show_on_failure("mosquitto", [self.log().as_path()]);
    }
}
