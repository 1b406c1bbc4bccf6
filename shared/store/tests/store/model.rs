//! Any sequence of batches leaves what a map would hold, and is answered as a map would answer.

use std::collections::BTreeMap;

use fleet_store::{NewReading, Outcome, ReadingKey, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::database::Database;
use crate::sample::{reading, write};
use crate::server::Server;

/// Few keys and few values, so that batches repeat and contradict each other and themselves.
fn batches() -> impl Strategy<Value = Vec<Vec<NewReading>>> {
    let value = prop_oneof![
        Just(1.0),
        Just(2.0),
        Just(0.0),
        Just(-0.0),
        Just(f64::INFINITY)
    ];
    let one = (0_u32..4, 0_i64..130, value)
        .prop_map(|(sensor, second, value)| reading(sensor, second / 10 * 10, value));
    vec(vec(one, 0..40), 1..6)
}

#[derive(Default)]
struct Model(BTreeMap<ReadingKey, f64>);

impl Model {
    fn write(&mut self, new: &NewReading) -> &'static str {
        let value = new.reading.value;
        if !value.is_finite() {
            return "failed";
        }
        match self.0.get(&ReadingKey::of(&new.reading)) {
            Some(stored) if *stored == value => "duplicate",
            Some(_) => "conflict",
            None => {
                self.0.insert(ReadingKey::of(&new.reading), value);
                "stored"
            }
        }
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Stored => "stored",
        Outcome::Duplicate => "duplicate",
        Outcome::Conflict => "conflict",
        Outcome::Failed(_) => "failed",
    }
}

async fn check(store: &dyn Store, batches: Vec<Vec<NewReading>>) {
    let mut model = Model::default();
    for batch in batches {
        let expected: Vec<_> = batch.iter().map(|new| model.write(new)).collect();
        let outcomes = write(store, batch).await;
        assert_eq!(outcomes.iter().map(name).collect::<Vec<_>>(), expected);
    }
    let keys: Vec<_> = model.0.keys().cloned().collect();
    let values: Vec<_> = model.0.values().copied().map(Some).collect();
    assert_eq!(store.lookup(&keys).await.unwrap(), values);
    assert_eq!(store.count_readings().await.unwrap(), keys.len() as u64);
}

#[test]
fn any_batches_leave_sqlite_as_a_map_would_be() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 48,
        ..Config::default()
    });
    let checked = runner.run(&batches(), |batches| {
        runtime.block_on(async {
            let database = Database::sqlite();
            check(&*database.writer().await, batches).await;
        });
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn any_batches_leave_postgres_as_a_map_would_be() {
    let Some(server) = Server::start() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let database = Database::postgres(&server, "model");
    let store = runtime.block_on(database.writer());
    let mut runner = TestRunner::new(Config {
        cases: 48,
        ..Config::default()
    });
    let checked = runner.run(&batches(), |batches| {
        database.sql("TRUNCATE readings");
        runtime.block_on(check(&*store, batches));
        Ok(())
    });
    checked.unwrap();
}
