//! What decisions cost that are made for each message: matching a topic, reading a payload.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fleet_bench::payload;
use fleet_shared::model::{Limits, SensorReading};
use fleet_shared::session::read_packets;
use fleet_shared::topic::{TopicFilter, Trie};
use jiff::Timestamp;

/// Topics that take turns, so that the processor's caches do not know the answer.
const TOPICS: usize = 1_000;

/// A third each: a wildcard in the middle, at the start, and for all below.
fn filters(count: usize) -> Trie<usize> {
    let mut trie = Trie::new();
    for n in 0..count {
        let text = match n % 3 {
            0 => format!("sensors/site-{}/+/temperature", n / 3),
            1 => format!("sensors/+/room-{}/temperature", n / 3),
            _ => format!("sensors/site-{}/#", n / 3),
        };
        let filter = TopicFilter::parse(text).expect("a filter as the specification wants it");
        trie.insert(&filter, n).expect("there is room");
    }
    trie
}

fn matching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one topic, all matches");
    for count in [10, 1_000, 100_000] {
        let trie = filters(count);
        let places = count / 3;
        let topics: Vec<String> = (0..TOPICS)
            .map(|n| {
                let (site, room) = (n * 7_919 % places, n * 104_729 % places);
                format!("sensors/site-{site}/room-{room}/temperature")
            })
            .collect();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("filters", count), |bencher| {
            let mut turn = topics.iter().cycle();
            bencher.iter(|| {
                let mut found = 0;
                let topic = turn.next().map_or("", String::as_str);
                trie.for_each_match(black_box(topic), |number| found += number);
                found
            });
        });
    }
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let start = Timestamp::from_second(1_790_000_000).expect("a time within range");
    let payloads: Vec<Vec<u8>> = (0..TOPICS as u64).map(|n| payload(n, start).1).collect();
    let limits = Limits::default();
    criterion.bench_function("reading from JSON", |bencher| {
        let mut turn = payloads.iter().cycle();
        bencher.iter(|| {
            let payload = turn.next().map_or(&[][..], Vec::as_slice);
            SensorReading::parse(black_box(payload), &limits)
        });
    });
}

fn packets(criterion: &mut Criterion) {
    let mut bytes = Vec::new();
    let start = Timestamp::from_second(1_790_000_000).expect("a time within range");
    for n in 0..64 {
        let (topic, payload) = payload(n, start);
        fleet_bench::wire::publish(&mut bytes, n, &topic, Some(&[]), &payload);
    }
    let mut group = criterion.benchmark_group("packets of a socket read");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 PUBLISH", |bencher| {
        bencher.iter(|| read_packets(black_box(&bytes), 1_048_576));
    });
    group.finish();
}

criterion_group!(pure, matching, reading, packets);
criterion_main!(pure);
