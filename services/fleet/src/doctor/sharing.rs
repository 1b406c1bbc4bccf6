//! Checks of shared subscriptions: who gets what, and what becomes of a dead member's share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::finding::{Finding, Status};
use super::wire::{Connect, REFUSED, Wire};
use super::{Clinic, QUIET};

const MEMBERS: usize = 3;

/// Messages on each of a few topics, which are published to in turns.
const TOPICS: usize = 7;
const EACH: usize = 10;

// A broker that gives to its members in turns would else give a topic to the same one each time, and
// look like one that keeps a topic together.
const _: () = assert!(common_divisor(TOPICS, MEMBERS) == 1);

const fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

pub(super) async fn strategy(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "shared subscription";
    let filter = clinic.shared("shared") + "/#";
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let mut member = clinic.open(&format!("shared-{number}")).await?;
        let code = member.try_subscribe(&filter, 1).await?;
        if code >= REFUSED {
            return Ok(Finding::new(
                CHECK,
                Status::Fail,
                format!("the broker refused `{filter}` with 0x{code:02x}"),
                "ingest, alerting and bridge cannot share their work",
            )
            .mend(
                "2.0 or newer; an ACL that allows $share/fleet-doctor/fleet/doctor/#",
                "mqtt.shared_subscription = true; a rule that allows fleet/doctor/#",
            ));
        }
        members.push(member);
    }
    let mut publisher = clinic.open("shared-pub").await?;
    for n in 0..TOPICS * EACH {
        let topic = format!("{}/{}", clinic.topic("shared"), n % TOPICS);
        publisher
            .publish(&topic, n.to_string().as_bytes(), 1, false)
            .await?;
    }
    publisher.leave(true).await;
    let (mut seen, mut keepers) = (BTreeMap::<Vec<u8>, u32>::new(), BTreeMap::new());
    let mut shares = Vec::new();
    for (number, mut member) in members.into_iter().enumerate() {
        let came = member.messages(TOPICS * EACH, QUIET, true).await;
        shares.push(came.len());
        for message in came {
            *seen.entry(message.payload).or_default() += 1;
            let keeper: &mut BTreeSet<usize> = keepers.entry(message.topic).or_default();
            keeper.insert(number);
        }
        member.leave(true).await;
    }
    let doubled = seen.values().filter(|times| **times > 1).count();
    let missing = TOPICS * EACH - seen.len();
    let found = format!(
        "{MEMBERS} members got {shares:?} of {} messages",
        TOPICS * EACH
    );
    if missing + doubled > 0 {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            format!("{found}; {missing} missing, {doubled} double"),
            "work is lost or done twice",
        )
        .mend("max_queued_messages 0", "mqtt.max_mqueue_len = infinity"));
    }
    let keeps = keepers.values().all(|keeper| keeper.len() == 1);
    let idle = shares.contains(&0);
    let (kept, means) = match (keeps, idle) {
        (true, false) => (
            "a topic stays with one member",
            "readings of a topic keep their order also with several members",
        ),
        (true, true) => (
            "a topic stays with one member, and one member got nothing",
            "order is kept, and adding members may bring nothing",
        ),
        (false, _) => (
            "a topic is spread over members",
            "work is even; with several members the order of a sensor's readings is not kept on the way (one bridge keeps it)",
        ),
    };
    Ok(Finding::new(
        CHECK,
        Status::Ok,
        format!("{found}, each once; {kept}"),
        means,
    ))
}

pub(super) async fn dead_member(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "dead member";
    const COUNT: usize = 20;
    let topic = clinic.topic("dead");
    let filter = clinic.shared("dead");
    let dying = Connect {
        expiry: 120,
        ..clinic.connect("dead-one")
    };
    let mut one = clinic.open_as(&dying).await?;
    let code = one.try_subscribe(&filter, 1).await?;
    if code >= REFUSED {
        one.leave(true).await;
        return Ok(Finding::new(
            CHECK,
            Status::Skip,
            format!("not tried: the broker refused `{filter}` with 0x{code:02x}"),
            "what becomes of a dead worker's share is not known",
        ));
    }
    let mut two = clinic.open("dead-two").await?;
    two.subscribe(&filter, 1).await?;
    let mut publisher = clinic.open("dead-pub").await?;
    for n in 0..COUNT {
        publisher
            .publish(&topic, n.to_string().as_bytes(), 1, false)
            .await?;
    }
    publisher.leave(true).await;
    let mut seen = BTreeSet::new();
    for message in two.messages(COUNT, QUIET, true).await {
        seen.insert(message.payload);
    }
    // It took its share and dies with it: no acknowledgement, no DISCONNECT.
    let held = one.messages(COUNT, QUIET, false).await.len();
    drop(one);
    let before = seen.len();
    for message in two.messages(COUNT, QUIET * 2, true).await {
        seen.insert(message.payload);
    }
    let handed_on = seen.len() - before;
    let back = Connect {
        clean_start: false,
        ..dying
    };
    let mut one: Wire = clinic.open_as(&back).await?;
    let again = one.messages(COUNT, QUIET, true).await;
    let returned = again.len();
    let marked = again.iter().all(|message| message.dup);
    seen.extend(again.into_iter().map(|message| message.payload));
    one.leave(true).await;
    two.leave(true).await;
    let found = format!(
        "of {held} that a dead member held, {handed_on} went to the other and {returned} came back to its session{}",
        if returned > 0 && !marked {
            " (not all marked DUP)"
        } else {
            ""
        }
    );
    if seen.len() < COUNT {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            format!("{found}; {} are lost", COUNT - seen.len()),
            "a worker that is killed loses the readings it held",
        )
        .mend(
            "persistence true, and clients with a session expiry",
            "mqtt.session_expiry_interval = 2h",
        ));
    }
    let means = if returned > 0 {
        "a worker that was killed must come back under its client id within the session expiry: use stable names (StatefulSet)"
    } else {
        "what a worker held goes to the others"
    };
    Ok(Finding::new(CHECK, Status::Ok, found, means))
}
