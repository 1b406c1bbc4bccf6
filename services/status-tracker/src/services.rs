//! The fleet's services: which replicas run, and what those of ingest have done lately.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_shared::member::ServiceStatus;
use fleet_shared::report::{Delays, IngestReport, REPORT_EVERY};

use crate::presence::Now;

/// Replicas remembered at most; more are not the fleet's.
const REPLICAS_MAX: usize = 1_024;

/// Largest report that is read, in bytes: 282 buckets and a name.
const REPORT_BYTES_MAX: usize = 32 * 1024;

/// A report says nothing of now after so long.
const FRESH: Duration = REPORT_EVERY.saturating_mul(3);

/// A replica: its retained status, and what it reported last.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) status: ServiceStatus,
    report: Option<(Duration, IngestReport)>,
}

/// All replicas of all services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    replicas: BTreeMap<String, BTreeMap<String, Replica>>,
    count: usize,
}

/// What the fresh reports of ingest add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Intake {
    /// New rows a second; none without a fresh report.
    pub(crate) stored_per_second: Option<f64>,
    /// From a reading's timestamp to its commit.
    pub(crate) delays: Delays,
}

impl Services {
    /// The status of a replica as the broker retains it; an empty one forgets the replica. False if
    /// it cannot be read, or tells of another than its topic.
    pub(crate) fn status(&mut self, service: &str, instance: &str, payload: &[u8]) -> bool {
        if payload.is_empty() {
            if let Some(replicas) = self.replicas.get_mut(service)
                && replicas.remove(instance).is_some()
            {
                self.count -= 1;
            }
            return true;
        }
        let Ok(status) = serde_json::from_slice::<ServiceStatus>(payload) else {
            return false;
        };
        if status.service != service || status.instance != instance {
            return false;
        }
        let known = self.replicas.get_mut(service);
        if let Some(replica) = known.and_then(|replicas| replicas.get_mut(instance)) {
            replica.status = status;
        } else if self.count < REPLICAS_MAX {
            self.count += 1;
            let replica = Replica {
                status,
                report: None,
            };
            let replicas = self.replicas.entry(service.to_owned()).or_default();
            replicas.insert(instance.to_owned(), replica);
        }
        true
    }

    /// A report of a replica; one of a replica that has no status is not kept.
    pub(crate) fn report(
        &mut self,
        service: &str,
        instance: &str,
        payload: &[u8],
        now: Now,
    ) -> bool {
        if payload.len() > REPORT_BYTES_MAX {
            return false;
        }
        let Ok(report) = serde_json::from_slice::<IngestReport>(payload) else {
            return false;
        };
        let sound = report.seconds.is_finite() && report.seconds > 0.0;
        if report.instance != instance || !sound {
            return false;
        }
        let known = self.replicas.get_mut(service);
        if let Some(replica) = known.and_then(|replicas| replicas.get_mut(instance)) {
            replica.report = Some((now.uptime, report));
        }
        true
    }

    /// Services by name, with their replicas by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, Replica>)> {
        let services = self.replicas.iter();
        services.filter(|(_, replicas)| !replicas.is_empty())
    }

    /// Whether a replica of the service is there.
    pub(crate) fn any_online(&self, service: &str) -> bool {
        let replicas = self.replicas.get(service);
        replicas.is_some_and(|replicas| replicas.values().any(|it| it.status.online))
    }

    /// What ingest does now.
    pub(crate) fn intake(&self, now: Now) -> Intake {
        let mut intake = Intake::default();
        let replicas = self.replicas.values().flat_map(BTreeMap::values);
        for report in replicas.filter_map(|replica| replica.fresh(now)) {
            let rate = report.stored as f64 / report.seconds;
            *intake.stored_per_second.get_or_insert(0.0) += rate;
            intake.delays.merge(&report.delivery_us);
        }
        intake
    }

    /// The part of its group's readings that a replica stored; none if the group stored nothing, or
    /// the replica did not report.
    pub(crate) fn share(&self, replica: &Replica, now: Now) -> Option<f64> {
        let own = replica.fresh(now)?;
        let all = self.replicas.values().flat_map(BTreeMap::values);
        let group: f64 = all
            .filter_map(|it| it.fresh(now))
            .filter(|it| it.group == own.group)
            .map(|it| it.stored as f64 / it.seconds)
            .sum();
        (group > 0.0).then(|| own.stored as f64 / own.seconds / group)
    }
}

impl Replica {
    /// Its last report, if it is there and that is not too old.
    pub(crate) fn fresh(&self, now: Now) -> Option<&IngestReport> {
        let (at, report) = self.report.as_ref()?;
        let fresh = self.status.online && now.uptime.saturating_sub(*at) <= FRESH;
        fresh.then_some(report)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn now(seconds: u64) -> Now {
        Now {
            at: Timestamp::UNIX_EPOCH,
            uptime: Duration::from_secs(seconds),
        }
    }

    fn status(instance: &str, online: bool) -> Vec<u8> {
        ServiceStatus::new("ingest", instance, online, Timestamp::UNIX_EPOCH)
            .in_group("ingest")
            .to_json()
    }

    fn report(instance: &str, stored: u64) -> Vec<u8> {
        let mut delivery_us = Delays::default();
        delivery_us.record(Duration::from_millis(stored));
        let report = IngestReport {
            instance: instance.to_owned(),
            group: "ingest".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            seconds: 5.0,
            stored,
            dead_letters: 0,
            queue: 0,
            window: 1,
            delivery_us,
        };
        serde_json::to_vec(&report).unwrap()
    }

    fn shares(services: &Services, now: Now) -> Vec<Option<f64>> {
        let replicas = services.iter().flat_map(|(_, replicas)| replicas.values());
        replicas.map(|it| services.share(it, now)).collect()
    }

    #[test]
    fn shares_and_rate_are_those_of_fresh_reports_of_replicas_that_are_there() {
        let mut services = Services::default();
        assert_eq!(services.intake(now(1)), Intake::default());
        for (instance, stored) in [("a", 300), ("b", 100)] {
            assert!(services.status("ingest", instance, &status(instance, true)));
            assert!(services.report("ingest", instance, &report(instance, stored), now(1)));
        }
        assert_eq!(services.intake(now(2)).stored_per_second, Some(80.0));
        assert_eq!(services.intake(now(2)).delays.count(), 2);
        assert_eq!(shares(&services, now(2)), [Some(0.75), Some(0.25)]);

        assert!(services.status("ingest", "b", &status("b", false)));
        assert_eq!(shares(&services, now(2)), [Some(1.0), None]);
        assert_eq!(services.intake(now(60)), Intake::default());
        assert!(services.status("ingest", "a", b""));
        assert!(!services.any_online("ingest"));
    }

    #[test]
    fn what_cannot_be_read_or_tells_of_another_is_refused() {
        let mut services = Services::default();
        assert!(!services.status("ingest", "a", b"{}"));
        assert!(!services.status("ingest", "a", &status("b", true)));
        assert!(!services.report("ingest", "a", b"nonsense", now(1)));
        assert!(!services.report("ingest", "a", &report("b", 1), now(1)));
        let mut endless: IngestReport = serde_json::from_slice(&report("a", 1)).unwrap();
        endless.seconds = 0.0;
        let endless = serde_json::to_vec(&endless).unwrap();
        assert!(!services.report("ingest", "a", &endless, now(1)));
        for number in 0..REPLICAS_MAX + 10 {
            let name = number.to_string();
            assert!(services.status("ingest", &name, &status(&name, true)));
        }
        assert_eq!(services.count, REPLICAS_MAX);
    }
}
