//! Checks of what the broker says for a client that is gone, or there twice, or not itself.

use std::io;
use std::time::{Duration, Instant};

use super::finding::{Finding, Status};
use super::wire::{Connect, Will};
use super::{Clinic, QUIET};

/// Longest wait for a will without delay.
const WILL: Duration = Duration::from_secs(5);

/// A delay that is told apart from none, also on a busy machine.
const DELAY: u32 = 3;

pub(super) async fn will(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "last will";
    let topic = clinic.topic("will");
    let mut watcher = clinic.open("will-watch").await?;
    watcher.subscribe(&topic, 1).await?;
    let with = |name: &str, delay| Connect {
        will: Some(Will {
            topic: topic.clone(),
            delay,
        }),
        expiry: 30,
        ..clinic.connect(name)
    };
    drop(clinic.open_as(&with("will-now", 0)).await?);
    let at_once = watcher.message(WILL).await;
    drop(clinic.open_as(&with("will-late", DELAY)).await?);
    let gone = Instant::now();
    let early = watcher
        .message(Duration::from_secs(u64::from(DELAY)) / 2)
        .await;
    let late = match &early {
        Some(_) => None,
        None => {
            watcher
                .message(Duration::from_secs(u64::from(DELAY)) + WILL)
                .await
        }
    };
    let took = gone.elapsed();
    let back = Connect {
        will: None,
        expiry: 0,
        ..with("will-late", 0)
    };
    clinic.open_as(&back).await?.leave(true).await;
    let back = Connect {
        client_id: clinic.connect("will-now").client_id,
        ..back
    };
    clinic.open_as(&back).await?.leave(true).await;
    watcher.leave(true).await;
    if at_once.is_none() {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            format!(
                "no will within {} s of a connection that broke",
                WILL.as_secs()
            ),
            "a device that vanishes is shown online until it is silent for too long",
        )
        .mend(
            "an ACL that lets the will through",
            "an ACL that lets the will through",
        ));
    }
    match (early, late) {
        (None, Some(_)) => Ok(Finding::new(
            CHECK,
            Status::Ok,
            format!(
                "published at once; with a delay of {DELAY} s after {:.1} s",
                took.as_secs_f64()
            ),
            "a device that vanishes is noticed, and one that only reconnects need not be",
        )),
        (Some(_), _) => Ok(Finding::new(
            CHECK,
            Status::Warn,
            "published at once, also where a delay was asked for",
            "a device that reconnects is shown offline for a moment",
        )
        .mend("2.0 or newer", "nothing to set: use 5.0 or newer")),
        (None, None) => Ok(Finding::new(
            CHECK,
            Status::Warn,
            "published at once; with a delay not at all",
            "devices must not use a will delay on this broker",
        )
        .mend("2.0 or newer", "nothing to set: use 5.0 or newer")),
    }
}

pub(super) async fn takeover(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "takeover";
    let topic = clinic.topic("takeover");
    let mut watcher = clinic.open("takeover-watch").await?;
    watcher.subscribe(&topic, 1).await?;
    let device = Connect {
        will: Some(Will {
            topic: topic.clone(),
            delay: 0,
        }),
        expiry: 30,
        ..clinic.connect("takeover-device")
    };
    let mut first = clinic.open_as(&device).await?;
    let again = Connect {
        will: None,
        clean_start: false,
        ..device
    };
    let mut second = clinic.open_as(&again).await?;
    second.publish(&topic, b"birth", 1, false).await?;
    let ended = first.ends(WILL).await;
    let reason = first.ended;
    let came = watcher.messages(2, QUIET * 2, true).await;
    second.leave(true).await;
    watcher.leave(true).await;
    let payloads: Vec<&[u8]> = came
        .iter()
        .map(|message| message.payload.as_slice())
        .collect();
    let order = match payloads.as_slice() {
        [b"birth"] => "no will of the first",
        [b"will", b"birth"] => "the first's will, then the second's birth",
        [b"birth", b"will"] => "the second's birth, and the first's will after it",
        _ => "neither will nor birth as they should come",
    };
    let found = format!(
        "the first connection {}; {order}",
        match (ended, reason) {
            (true, Some(0x8e)) => "was told `session taken over`".to_owned(),
            (true, Some(code)) => format!("was ended with 0x{code:02x}"),
            (true, None) => "was closed".to_owned(),
            (false, _) => "stayed open".to_owned(),
        }
    );
    if !ended {
        return Ok(Finding::new(
            CHECK,
            Status::Fail,
            found,
            "two processes of one client id both think that they are it",
        )
        .mend("2.0 or newer", "broker.enable_session_registry = true"));
    }
    let means = if order.contains("after it") {
        "a late will of an old connection can follow a birth: status-tracker tells them apart by session_id"
    } else {
        "a device that reconnects is not shown offline by its older connection"
    };
    Ok(Finding::new(CHECK, Status::Ok, found, means))
}

pub(super) async fn acl(clinic: &Clinic) -> io::Result<Finding> {
    const CHECK: &str = "ACL";
    let mut device = clinic.open("acl").await?;
    // Empty and not retained: nobody takes it for a status, and nothing is left of it.
    let other = format!("devices/{}-somebody-else/status", clinic.unique);
    let code = device.publish(&other, b"", 1, false).await;
    device.leave(true).await;
    Ok(match code {
        Ok(code) if code >= 0x80 => Finding::new(
            CHECK,
            Status::Ok,
            format!("publishing for another device was refused with 0x{code:02x}"),
            "a device speaks for itself only",
        ),
        Err(_) => Finding::new(
            CHECK,
            Status::Ok,
            "publishing for another device ended the connection",
            "a device speaks for itself only",
        ),
        Ok(_) => Finding::new(
            CHECK,
            Status::Warn,
            "the account of this check may publish the status of any device",
            "if devices have this account, each can speak for all others; an operator's or service's account may need it",
        )
        .mend(
            "acl_file with `pattern write devices/%u/#`",
            "authorization rule {allow, all, publish, [\"devices/${username}/#\"]}, no_match = deny",
        ),
    })
}
