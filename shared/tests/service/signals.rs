//! From a signal to an exit code.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::child::start;

const OFF: [&str; 3] = ["--admin-addr=off", "--log-format=json", "--behaviour"];

fn args(behaviour: &str) -> Vec<&str> {
    [&OFF[..], &[behaviour]].concat()
}

#[test]
fn first_signal_drains_and_exits_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let service = start(&args("obey"), &[]).ready();
        service.signal(signal);
        let ended = service.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stderr.contains(&format!("\"signal\":\"{signal}\"")),
            "{ended:?}"
        );
    }
}

#[test]
fn threads_at_work_do_not_hold_the_exit() {
    let service = start(&args("leave-thread"), &[]).ready();
    service.signal(Signal::SIGTERM);
    assert_eq!(service.ended().code, Some(0));
}

#[test]
fn drain_that_takes_too_long_is_given_up() {
    let service = start(&args("ignore"), &[("DRAIN_TIMEOUT", "50ms")]).ready();
    service.signal(Signal::SIGTERM);
    let ended = service.ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("--drain-timeout (DRAIN_TIMEOUT)"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("\"limit\":\"50ms\""), "{ended:?}");
}

#[test]
fn second_signal_exits_at_once() {
    let service = start(&args("ignore"), &[("DRAIN_TIMEOUT", "1h")]).ready();
    service.signal(Signal::SIGTERM);
    // Signals right after the first count as the first.
    while !service.ends_within(Duration::from_millis(50)) {
        service.signal(Signal::SIGINT);
    }
    let ended = service.ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("second signal"), "{ended:?}");
}

#[test]
fn end_without_a_signal_is_the_service_s_own() {
    assert_eq!(start(&args("end"), &[]).ended().code, Some(0));
    let failed = start(&args("fail"), &[]).ended();
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert_eq!(
        failed
            .stderr
            .matches("opening the store: disk full")
            .count(),
        1,
        "{failed:?}"
    );
}

#[test]
fn configuration_error_of_a_running_service_is_one_line() {
    let ended = start(
        &[&args("misconfigured")[..], &["--log=error"]].concat(),
        &[],
    )
    .ended();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "error: starting the writer: --batch-max is `0`: give 1 or more\n"
    );
}
