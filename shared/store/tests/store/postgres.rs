//! The cases on a real PostgreSQL, and what only a server can go through.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_shared::config::DatabaseUrl;
use fleet_store::{Backend, OpenOptions, Outcome, Store, StoreError};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::database::Database;
use crate::sample::{batch_of, letter, reading, write};
use crate::server::{PASSWORD, Server};
use crate::{history, suite};

#[tokio::test]
async fn postgres_keeps_every_promise() {
    let Some(server) = Server::start() else {
        return;
    };
    let database = |name| Database::postgres(&server, name);
    suite::same_batch_twice_is_one_row_each(&database("twice")).await;
    suite::first_value_of_a_key_stays(&database("first")).await;
    suite::bad_row_fails_alone_among_a_thousand(&database("bad")).await;
    suite::every_field_comes_back(&database("fields")).await;
    suite::scan_meets_every_reading_once(&database("scan")).await;
    suite::redelivered_dead_letter_is_written_once(&database("redelivered")).await;
    suite::dead_letters_are_listed_counted_and_deleted(&database("letters")).await;
    history::transitions_of_several_replicas_are_stored_once(&database("transitions")).await;
    history::buckets_hold_lowest_mean_and_highest(&database("buckets")).await;
    history::readings_come_in_the_order_of_time(&database("by_time")).await;
    history::newest_dead_letters_come_first(&database("newest_letters")).await;
    suite::racing_writers_store_each_reading_once(&database("racing")).await;
    suite::stores_opened_at_once_agree_on_the_schema(&database("opened")).await;
    suite::retention_takes_the_old_and_leaves_the_new(&database("retention")).await;
    suite::reader_needs_a_schema_and_does_not_write(&database("reader")).await;
    suite::closed_store_says_so(&database("closed")).await;
    suite::empty_batch_is_nothing(&database("empty")).await;
    rows_postgres_refuses_fail_alone(&database("refused")).await;
    double_keys_are_counted_without_trust_in_the_schema(&database("doubles")).await;
    weak_commits_are_made_strong(&database("weak")).await;
    password_comes_from_a_file(&server).await;
    what_stays_wrong_is_permanent(&server).await;
}

async fn rows_postgres_refuses_fail_alone(database: &Database<'_>) {
    let store = database.writer().await;
    assert_eq!(store.backend(), Backend::Postgres);
    let mut readings: Vec<_> = (0..1_000).map(|n| reading(n, 0, 1.0)).collect();
    readings[3].reading.unit = "nul\0".to_owned();
    readings[4].reading.timestamp = "-009000-01-01T00:00:00Z".parse().unwrap();
    // Too long for an index page, and not to be compressed into it: found by PostgreSQL alone.
    let long = |seed: u32| {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'!' + u8::try_from((state >> 16) % 90).unwrap())
        };
        (0..9_000).map(next).collect::<String>()
    };
    readings[500].reading.sensor_id = long(1);
    readings[501].reading.kind = long(2);
    let mut nul = letter("t", "malformed", b"\0");
    nul.detail = "holds \0".to_owned();
    let batch = fleet_store::Batch {
        readings,
        dead_letters: vec![nul],
    };
    let outcomes = store.write_batch(Arc::new(batch)).await.unwrap();
    for (place, outcome) in outcomes.iter().enumerate() {
        let expected = match place {
            3 => "unit holds a NUL",
            4 => "before the first instant",
            500 | 501 => "index row",
            _ => {
                assert_eq!(*outcome, Outcome::Stored, "place {place}");
                continue;
            }
        };
        let Outcome::Failed(why) = outcome else {
            panic!("place {place}: {outcome:?}")
        };
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM readings"), "996");
    assert_eq!(
        database.sql("SELECT detail FROM dead_letters"),
        "holds \u{fffd}"
    );
}

async fn double_keys_are_counted_without_trust_in_the_schema(database: &Database<'_>) {
    let store = database.writer().await;
    write(&*store, (0..5).map(|n| reading(n, 0, 1.0)).collect()).await;
    database.sql(
        "ALTER TABLE readings DROP CONSTRAINT readings_pkey;
         INSERT INTO readings SELECT * FROM readings WHERE sensor_id < 'sensor-0002'",
    );
    assert_eq!(store.duplicate_keys().await.unwrap(), 2);
    // Without the key nothing can be written once, so nothing is written.
    let error = store
        .write_batch(batch_of(vec![reading(8, 0, 1.0)]))
        .await
        .unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
}

async fn weak_commits_are_made_strong(database: &Database<'_>) {
    let Database::Postgres(_, name) = database else {
        return;
    };
    database.sql(&format!(
        "ALTER DATABASE {name} SET synchronous_commit = off"
    ));
    let store = database.writer().await;
    database.sql(
        "CREATE TABLE seen AS SELECT ''::text AS setting;
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN NEW; END';
         CREATE TRIGGER see BEFORE INSERT ON readings FOR EACH STATEMENT EXECUTE FUNCTION see()",
    );
    write(&*store, vec![reading(1, 1, 1.0)]).await;
    assert_eq!(
        database.sql("SELECT setting FROM seen WHERE setting <> ''"),
        "on"
    );
}

async fn password_comes_from_a_file(server: &Server) {
    let url: DatabaseUrl = format!("postgres://fleet@127.0.0.1:{}/postgres", server.port())
        .parse()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = OpenOptions::reader("test");
    options.password_file = Some(folder.path().join("password"));
    let missing = fleet_store::open(&url, options.clone())
        .await
        .err()
        .unwrap();
    assert!(
        missing
            .to_string()
            .contains("cannot read PostgreSQL's password"),
        "{missing}"
    );
    fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
    // The password is taken; the database has no schema yet.
    let error = fleet_store::open(&url, options).await.err().unwrap();
    assert!(error.to_string().contains("start ingest"), "{error:?}");
}

async fn what_stays_wrong_is_permanent(server: &Server) {
    let right = server.url("twice");
    let cases = [
        (
            right.replace(PASSWORD, "falsch"),
            "correct DATABASE_URL or its password file",
        ),
        (right.replace("twice", "nowhere"), "correct DATABASE_URL"),
        (
            right.replace(&format!(":{PASSWORD}"), ""),
            "correct DATABASE_URL or its password file",
        ),
        (format!("{right}?sslmode=require"), "correct DATABASE_URL"),
        (format!("{right}?sslmode=perhaps"), "sslmode=perhaps"),
        (format!("{right}?nonsense=1"), "is not understood"),
    ];
    for (url, expected) in cases {
        let error = fleet_store::open(&url.parse().unwrap(), OpenOptions::writer("test")).await;
        let error = error.err().unwrap();
        assert!(
            !error.is_transient() && error.to_string().contains(expected),
            "{error:?}"
        );
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    }
}

/// Writes until the store answers, as its callers do.
async fn write_in_the_end(store: &dyn Store, n: i64) -> Vec<Outcome> {
    let batch = batch_of((0..50).map(|sensor| reading(sensor, n, 1.0)).collect());
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match store.write_batch(Arc::clone(&batch)).await {
            Ok(outcomes) => return outcomes,
            Err(error) => {
                assert!(error.is_transient(), "{error:?}");
                assert!(Instant::now() < deadline, "{error:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test]
async fn crashed_server_is_found_again() {
    let Some(server) = Server::start() else {
        return;
    };
    let database = Database::postgres(&server, "crash");
    let store = database.writer().await;
    for round in 0..3 {
        for n in 0..4 {
            let outcomes = write_in_the_end(&*store, round * 10 + n).await;
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Stored));
        }
        server.stop_immediately();
        let down = store
            .write_batch(batch_of(vec![reading(1, 999, 1.0)]))
            .await;
        assert!(
            matches!(down, Err(StoreError::Transient { .. })),
            "{down:?}"
        );
        assert!(store.ping().await.is_err_and(|error| error.is_transient()));
        server.launch();
        // With the server back, the first call finds its way to a new connection by itself.
        store.ping().await.unwrap();
    }
    assert_eq!(store.count_readings().await.unwrap(), 600);

    // A restart between two calls goes unnoticed.
    server.stop_immediately();
    server.launch();
    assert_eq!(
        write(&*store, vec![reading(1, 999, 1.0)]).await,
        [Outcome::Stored]
    );
}

#[tokio::test]
async fn silent_server_is_noticed_and_the_batch_stored_once() {
    let Some(server) = Server::start() else {
        return;
    };
    let database = Database::postgres(&server, "silent");
    let mut options = OpenOptions::writer("test");
    options.statement_timeout = Duration::from_millis(500);
    options.connect_timeout = Duration::from_millis(500);
    let store = fleet_store::open(&database.url(), options).await.unwrap();
    write_in_the_end(&*store, 0).await;
    server.signal(Signal::SIGSTOP);
    let batch = batch_of((0..50).map(|sensor| reading(sensor, 1, 1.0)).collect());
    for _ in 0..3 {
        let began = Instant::now();
        let error = store.write_batch(Arc::clone(&batch)).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }
    server.signal(Signal::SIGCONT);
    write_in_the_end(&*store, 1).await;
    assert_eq!(store.count_readings().await.unwrap(), 100);
}

#[tokio::test]
async fn server_without_a_port_is_transient() {
    let url = "postgres://fleet@127.0.0.1:1/fleet".parse().unwrap();
    let error = fleet_store::open(&url, OpenOptions::writer("test"))
        .await
        .err()
        .unwrap();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn certificates_are_checked_as_sslmode_says() {
    let Some(server) = Server::start() else {
        return;
    };
    let database = Database::postgres(&server, "tls");
    serve_tls(&server, "db.example");
    let open = async |host: &str, parameters: &str| {
        let url = format!(
            "postgres://fleet:{PASSWORD}@{host}:{}/tls?{parameters}",
            server.port()
        );
        fleet_store::open(&url.parse().unwrap(), OpenOptions::writer("test")).await
    };
    let root = format!("sslrootcert={}", server.path("root.pem").display());
    let other = format!("sslrootcert={}", server.path("other.pem").display());
    let ip = "127.0.0.1";
    for (host, parameters) in [
        (ip, "sslmode=disable".to_owned()),
        (ip, "sslmode=prefer".to_owned()),
        (ip, "sslmode=require".to_owned()),
        (ip, format!("sslmode=require&{root}")),
        (ip, format!("sslmode=verify-ca&{root}")),
        (
            "db.example",
            format!("sslmode=verify-full&{root}&hostaddr={ip}"),
        ),
    ] {
        let store = open(host, &parameters)
            .await
            .unwrap_or_else(|error| panic!("{parameters}: {error:?}"));
        store.ping().await.unwrap();
    }
    for parameters in [
        format!("sslmode=require&{other}"),
        format!("sslmode=verify-ca&{other}"),
        format!("sslmode=verify-full&{root}"),
    ] {
        let error = open(ip, &parameters).await.err().unwrap();
        assert!(!error.is_transient(), "{parameters}: {error:?}");
        assert!(
            format!("{error:?}").contains("InvalidCertificate"),
            "{parameters}: {error:?}"
        );
    }
    let encrypted = "SELECT count(*) > 0 FROM pg_stat_ssl WHERE ssl";
    let _store = open(ip, "sslmode=require").await.unwrap();
    assert_eq!(database.sql(encrypted), "t");
}

/// Turns TLS on, with a certificate for `name` alone.
///
/// Returns the authority that signed it.
fn serve_tls(server: &Server, name: &str) -> Issuer<'static, KeyPair> {
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (Issuer::new(params, key), certificate.pem())
    };
    let (root, root_pem) = authority();
    let (_, other_pem) = authority();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &root).unwrap();
    fs::write(server.path("root.pem"), root_pem).unwrap();
    fs::write(server.path("other.pem"), other_pem).unwrap();
    fs::write(server.path("data/server.crt"), certificate.pem()).unwrap();
    fs::write(server.path("data/server.key"), key.serialize_pem()).unwrap();
    server.own();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(server.path("data/server.key"), private).unwrap();
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.sql("postgres", "SELECT pg_reload_conf()");
    // The reload happens a moment later; asking until it shows is what is waited for.
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.sql(
        "postgres",
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    ) != "t"
    {
        assert!(Instant::now() < deadline, "the server does not turn TLS on");
    }
    root
}

/// A certificate for the user `fleet` and its key, as PEM.
fn client(authority: &Issuer<'static, KeyPair>) -> (String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "fleet");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn client_certificate_signs_in_and_is_read_for_every_connection() {
    let Some(server) = Server::start() else {
        return;
    };
    let database = Database::postgres(&server, "tls");
    let ours = serve_tls(&server, "db.example");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let stranger = Issuer::new(params, KeyPair::generate().unwrap());
    let rules = server.path("data/pg_hba.conf");
    let others = fs::read_to_string(&rules).unwrap();
    fs::write(
        &rules,
        format!("hostssl tls fleet 127.0.0.1/32 cert\n{others}"),
    )
    .unwrap();
    let root = server.path("root.pem");
    server.sql(
        "postgres",
        &format!("ALTER SYSTEM SET ssl_ca_file = '{}'", root.display()),
    );
    server.sql("postgres", "SELECT pg_reload_conf()");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let show = |(certificate, key): (String, String)| {
        fs::write(file("client.crt"), certificate).unwrap();
        fs::write(file("client.key"), key).unwrap();
    };
    let url = format!(
        "postgres://fleet@127.0.0.1:{}/tls?sslmode=verify-ca&sslrootcert={}",
        server.port(),
        root.display()
    );
    let with = format!(
        "{url}&sslcert={}&sslkey={}",
        file("client.crt").display(),
        file("client.key").display()
    );
    let open = async |url: &str| {
        fleet_store::open(&url.parse().unwrap(), OpenOptions::writer("test")).await
    };
    let error = open(&with).await.err().unwrap();
    assert!(error.to_string().contains("sslcert"), "{error}");
    let error = open(&format!("{url}&sslkey=x")).await.err().unwrap();
    assert!(error.to_string().contains("belong together"), "{error}");

    show(client(&ours));
    let deadline = Instant::now() + Duration::from_secs(20);
    let store = loop {
        // The server has read its rules when it refuses who comes without a certificate.
        match (open(&url).await, open(&with).await) {
            (Err(_), Ok(store)) => break store,
            (_, other) => assert!(Instant::now() < deadline, "{:?}", other.err()),
        }
    };
    let cut = || {
        server.sql(
            "postgres",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'tls'",
        )
    };
    let until = async |good: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.ping().await.is_ok() != good {
            assert!(Instant::now() < deadline, "expected {good}");
            cut();
        }
    };
    store.ping().await.unwrap();
    show(client(&stranger));
    cut();
    until(false).await;
    show(client(&ours));
    until(true).await;
    drop(database);
}
