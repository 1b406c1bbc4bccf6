//! Checks of what becomes of a message on its way to one subscriber.

use std::io;
use std::time::{Duration, Instant};

use super::finding::{Finding, Status};
use super::wire::{Connect, Wire};
use super::{Clinic, QUIET};

/// Messages for a subscriber that is away: two and a half times the usual default of brokers.
const QUEUED: u32 = 2_500;

/// Messages for a subscriber that does not acknowledge; 1,000 is what the services need to be fast.
const IN_FLIGHT: u32 = 1_000;

/// QoS 2 publishes without their second step: half more than EMQX's default takes.
const EXACTLY_ONCE: u32 = 150;

/// The largest payload of a reading unless ingest is told otherwise, and what is tried above it.
const PAYLOADS: [usize; 3] = [66_000, 262_144, 900_000];

pub(super) async fn qos2(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "QoS 2";
    let topic = clinic.topic("qos2");
    let mut subscriber = clinic.open("qos2-sub").await?;
    let granted = subscriber.try_subscribe(&topic, 2).await?;
    let mut publisher = clinic.open("qos2-pub").await?;
    let code = publisher.publish(&topic, b"once", 2, false).await?;
    let came = subscriber.messages(2, QUIET, true).await;
    subscriber.leave(true).await;
    publisher.leave(true).await;
    let qos: Vec<u8> = came.iter().map(|message| message.qos).collect();
    if code < 0x80 && granted == 2 && qos == [2] {
        return Ok(Finding::new(
            CHECK,
            Status::Ok,
            "published, delivered and settled, once",
            "door readings and critical alerts go as they should",
        ));
    }
    Ok(Finding::new(
        CHECK,
        Status::Fail,
        format!("answer 0x{code:02x}, granted 0x{granted:02x}, deliveries at {qos:?}"),
        "what is published with QoS 2 does not arrive once",
    )
    .mend("max_qos 2", "mqtt.max_qos_allowed = 2"))
}

pub(super) async fn retained(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "retained messages";
    let topic = clinic.topic("retained");
    let mut publisher = clinic.open("retained-pub").await?;
    let code = publisher.publish(&topic, b"kept", 1, true).await?;
    let mut seen = Vec::new();
    for name in ["retained-one", "retained-two"] {
        let mut subscriber = clinic.open(name).await?;
        subscriber.subscribe(&topic, 1).await?;
        let came = subscriber.messages(1, QUIET, true).await;
        seen.push(came.first().is_some_and(|message| message.retain));
        subscriber.leave(true).await;
        // Nothing is to stay, however this ends.
        publisher.publish(&topic, b"", 1, true).await?;
    }
    publisher.leave(true).await;
    if seen == [true, false] {
        return Ok(Finding::new(
            CHECK,
            Status::Ok,
            "kept, marked as retained, and cleared by an empty payload",
            "presence and configuration of devices outlive their publishers",
        ));
    }
    Ok(Finding::new(
        CHECK,
        Status::Fail,
        format!("answer 0x{code:02x}; kept: {}, there after it was cleared: {}", seen[0], seen[1]),
        "status-tracker does not learn who was online before it started, and devices not their configuration",
    )
    .mend("retain_available true", "retainer.enable = true, mqtt.retain_available = true"))
}

pub(super) async fn session(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "persistent session";
    let topic = clinic.topic("session");
    let away = Connect {
        expiry: 3_600,
        ..clinic.connect("session-sub")
    };
    let mut subscriber = clinic.open_as(&away).await?;
    subscriber.subscribe(&topic, 1).await?;
    let expiry = subscriber.connack.expiry;
    subscriber.leave(false).await;
    let mut publisher = clinic.open("session-pub").await?;
    let refused = publisher.publish_all(&topic, QUEUED).await?;
    publisher.leave(true).await;
    let back = Connect {
        clean_start: false,
        ..away
    };
    let mut subscriber = clinic.open_as(&back).await?;
    let present = subscriber.connack.session_present;
    let came = subscriber.messages(QUEUED as usize, QUIET * 3, true).await;
    subscriber.leave(true).await;
    let found = format!(
        "{} of {QUEUED} messages were kept for a client that was away ({refused} refused to the publisher)",
        came.len()
    );
    if !present {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            "the session was gone when the client came back",
            "readings that arrive while a worker restarts are lost",
        )
        .mend(
            "persistent_client_expiration unset, persistence true",
            "mqtt.session_expiry_interval = 2h",
        ));
    }
    if came.len() < QUEUED as usize - refused as usize {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            found,
            "readings that the broker has acknowledged are dropped while a worker is away or slow",
        )
        .mend("max_queued_messages 0", "mqtt.max_mqueue_len = infinity"));
    }
    if let Some(expiry) = expiry.filter(|expiry| *expiry < 3_600) {
        return Ok(Finding::new(
            CHECK,
            Status::Warn,
            format!(
                "{found}; the broker keeps a session for {expiry} s where an hour was asked for"
            ),
            "a worker that is away for longer loses what came meanwhile",
        )
        .mend(
            "persistent_client_expiration 2h",
            "mqtt.session_expiry_interval = 2h",
        ));
    }
    Ok(Finding::new(
        CHECK,
        Status::Ok,
        found,
        "a worker may restart, and finds what came meanwhile",
    ))
}

pub(super) async fn receive_maximum(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "receive maximum";
    let topic = clinic.topic("flight");
    let mut subscriber = clinic.open("flight-sub").await?;
    subscriber.subscribe(&topic, 1).await?;
    let mut publisher = clinic.open("flight-pub").await?;
    let ours = publisher.connack.receive_maximum.unwrap_or(u16::MAX);
    publisher.publish_all(&topic, IN_FLIGHT).await?;
    let came = subscriber.messages(IN_FLIGHT as usize, QUIET, false).await;
    subscriber.leave(true).await;
    let flood = EXACTLY_ONCE.min(u32::from(ours));
    let taken = publisher
        .flood_exactly_once(&clinic.topic("flood"), flood)
        .await?;
    publisher.leave(true).await;
    let found = format!(
        "{}{} unacknowledged at a time to a subscriber; {ours} from a publisher, {taken} of {flood} of QoS 2",
        came.len(),
        if came.len() == IN_FLIGHT as usize {
            " or more"
        } else {
            ""
        },
    );
    if came.len() < IN_FLIGHT as usize || taken < flood {
        return Ok(Finding::new(
            CHECK,
            Status::Warn,
            found,
            "readings a second are at most messages in flight divided by the time of a commit, so ingest and bridge are slower than they could be",
        )
        .mend(
            "max_inflight_messages 0",
            "mqtt.max_inflight = 10000, mqtt.max_awaiting_rel = 10000",
        ));
    }
    Ok(Finding::new(
        CHECK,
        Status::Ok,
        found,
        "ingest and bridge can make large batches",
    ))
}

pub(super) async fn packet(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "maximum packet";
    let topic = clinic.topic("packet");
    let mut largest = 0;
    let mut said = None;
    for size in PAYLOADS {
        let mut subscriber = clinic.open("packet-sub").await?;
        said = subscriber.connack.packet_max;
        subscriber.subscribe(&topic, 1).await?;
        let mut publisher = clinic.open("packet-pub").await?;
        // A broker that finds it too large ends the connection, which is an answer too.
        let taken = publisher.publish(&topic, &vec![b'x'; size], 1, false).await;
        let came = match taken {
            Ok(code) if code < 0x80 => subscriber.messages(1, QUIET * 3, true).await,
            _ => Vec::new(),
        };
        publisher.leave(true).await;
        subscriber.leave(true).await;
        if came
            .first()
            .is_none_or(|message| message.payload.len() != size)
        {
            break;
        }
        largest = size;
    }
    let limit = said.map_or_else(String::new, |bytes| format!(" (CONNACK says {bytes})"));
    let found = format!("a payload of {largest} bytes was delivered{limit}");
    if largest < PAYLOADS[0] {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            found,
            "large readings cannot be published, and what ingest would dead-letter ends a device's connection",
        )
        .mend("max_packet_size 1048576", "mqtt.max_packet_size = 1MB"));
    }
    Ok(Finding::new(
        CHECK,
        Status::Ok,
        found,
        "the largest reading that ingest takes passes",
    ))
}

pub(super) async fn clock(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "clock";
    const LIFE: u32 = 100;
    const HELD: Duration = Duration::from_secs(3);
    let topic = clinic.topic("clock");
    let away = Connect {
        expiry: 60,
        ..clinic.connect("clock-sub")
    };
    let mut subscriber = clinic.open_as(&away).await?;
    subscriber.subscribe(&topic, 1).await?;
    subscriber.leave(false).await;
    let mut publisher = clinic.open("clock-pub").await?;
    publisher.send(&topic, b"short", 1, false, Some(1)).await?;
    publisher
        .send(&topic, b"long", 1, false, Some(LIFE))
        .await?;
    let sent = Instant::now();
    publisher.leave(true).await;
    tokio::time::sleep(HELD).await;
    let back = Connect {
        clean_start: false,
        ..away
    };
    let mut subscriber = clinic.open_as(&back).await?;
    let came = subscriber.messages(2, QUIET, true).await;
    let held = sent.elapsed().as_secs();
    subscriber.leave(true).await;
    let long = came.iter().find(|message| message.payload == b"long");
    let left = long.and_then(|message| message.expiry);
    let expired = came.iter().all(|message| message.payload != b"short");
    let passed = left.map(|left| u64::from(LIFE.saturating_sub(left)));
    let right = passed.is_some_and(|passed| passed.abs_diff(held) <= 2);
    let found = match (left, passed) {
        (Some(_), Some(passed)) => format!(
            "of a message held for {held} s the broker counted {passed} s; one of 1 s {}",
            if expired {
                "was dropped"
            } else {
                "came all the same"
            }
        ),
        _ => "the broker does not count down a message's life".to_owned(),
    };
    if right && expired {
        return Ok(Finding::new(
            CHECK,
            Status::Ok,
            found,
            "requests that are out of date do not reach a device",
        ));
    }
    Ok(Finding::new(
        CHECK,
        Status::Warn,
        found,
        "a command may reach a device long after somebody gave up on it",
    )
    .mend(
        "use 2.0 or newer",
        "nothing to set: look at the host's clock",
    ))
}

/// Whether the broker speaks the protocol at all.
pub(super) async fn mqtt5(clinic: &Clinic) -> Finding {
    const CHECK: &str = "MQTT 5";
    let why = match Wire::open(&clinic.options, &clinic.connect("mqtt5")).await {
        Ok(wire) if wire.connack.code == 0 => {
            let said = &wire.connack;
            let found = format!(
                "connected; receive maximum {}, maximum QoS {}, packet {}",
                said.receive_maximum.unwrap_or(u16::MAX),
                said.qos_max.unwrap_or(2),
                said.packet_max
                    .map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string()),
            );
            let whole = said.retain_available && said.shared_available;
            wire.leave(true).await;
            if whole {
                return Finding::new(CHECK, Status::Ok, found, "the fleet can talk to it");
            }
            return Finding::new(
                CHECK,
                Status::Fail,
                format!("{found}; without retained messages or shared subscriptions"),
                "neither presence nor shared work is possible",
            )
            .mend(
                "retain_available true",
                "mqtt.retain_available = true, mqtt.shared_subscription = true",
            );
        }
        Ok(wire) => match wire.connack.code {
            0x86 | 0x87 => {
                "it refuses our user name or password (MQTT_USERNAME, MQTT_PASSWORD)".to_owned()
            }
            code => format!("CONNACK says 0x{code:02x}"),
        },
        Err(error) => error.to_string(),
    };
    Finding::new(
        CHECK,
        Status::Fail,
        why,
        "no service of the fleet can connect",
    )
    .mend(
        "a listener with protocol mqtt, version 2.0 or newer, allow_anonymous or password_file",
        "a listener of type tcp or ssl, and an authentication that knows the account",
    )
}
