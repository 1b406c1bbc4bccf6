//! The fleet's services: which replicas run, and what those of ingest have done lately.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_shared::member::ServiceStatus;
use fleet_shared::report::{Delays, IngestReport, REPORT_EVERY};

use crate::presence::Now;

/// Replicas remembered at most; more are not the fleet's. The summary tells of all of them each
/// second: 2 MiB with the largest statuses, a quarter of one with those of our services.
const REPLICAS_MAX: usize = 1_024;

/// Services remembered at most; ours are five.
const SERVICES_MAX: usize = 64;

/// Largest status that is kept, in bytes; those of our services have about 200.
const STATUS_BYTES_MAX: usize = 2 * 1024;

/// A replica that is offline for so long is not waited for, as long as others of its service are
/// there: it may be one that was replaced by another of a new name, of which nobody says so.
const GONE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Largest report that is read, in bytes: 282 buckets and a name.
const REPORT_BYTES_MAX: usize = 32 * 1024;

/// A report says nothing of now after so long.
const FRESH: Duration = REPORT_EVERY.saturating_mul(3);

/// A replica: its retained status, and what it reported last.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) status: ServiceStatus,
    report: Option<(Duration, IngestReport)>,
    /// When it was first heard to be offline, on the steady clock; none while it is online.
    offline_since: Option<Duration>,
    /// It said goodbye itself, while we listened.
    left: bool,
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
    /// The status of a replica as the broker retains it; an empty one forgets the replica.
    ///
    /// # Errors
    /// Why it is refused, in a word: it cannot be read, tells of another than its topic, or is more
    /// than is kept.
    pub(crate) fn status(
        &mut self,
        service: &str,
        instance: &str,
        payload: &[u8],
        now: Now,
    ) -> Result<(), &'static str> {
        if payload.is_empty() {
            self.forget(service, instance);
            return Ok(());
        }
        if payload.len() > STATUS_BYTES_MAX {
            return Err("too_large");
        }
        let status = serde_json::from_slice::<ServiceStatus>(payload).map_err(|_| "malformed")?;
        if status.service != service || status.instance != instance {
            return Err("malformed");
        }
        let known = self.replicas.get_mut(service);
        if let Some(replica) = known.and_then(|replicas| replicas.get_mut(instance)) {
            replica.heard(status, now);
            return Ok(());
        }
        if self.count >= REPLICAS_MAX {
            self.forget_one_offline();
        }
        let new_service = !self.replicas.contains_key(service);
        if self.count >= REPLICAS_MAX || (new_service && self.replicas.len() >= SERVICES_MAX) {
            return Err("too_many");
        }
        self.count += 1;
        let replica = Replica {
            offline_since: (!status.online).then_some(now.uptime),
            left: false,
            status,
            report: None,
        };
        let replicas = self.replicas.entry(service.to_owned()).or_default();
        replicas.insert(instance.to_owned(), replica);
        Ok(())
    }

    fn forget(&mut self, service: &str, instance: &str) {
        let Some(replicas) = self.replicas.get_mut(service) else {
            return;
        };
        if replicas.remove(instance).is_some() {
            self.count -= 1;
        }
        if replicas.is_empty() {
            self.replicas.remove(service);
        }
    }

    /// Makes room: of what is offline, the replica that is so for longest.
    fn forget_one_offline(&mut self) {
        let of = |(service, replicas): (&String, &BTreeMap<String, Replica>)| {
            let offline = replicas.iter().filter_map(|(name, it)| {
                let since = it.offline_since?;
                Some((since, service.clone(), name.clone()))
            });
            offline.min()
        };
        if let Some((_, service, instance)) = self.replicas.iter().filter_map(of).min() {
            self.forget(&service, &instance);
        }
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

    /// Services by name, with their replicas by name: those that are there, and those that should be.
    pub(crate) fn iter(&self, now: Now) -> impl Iterator<Item = (&String, Vec<&Replica>)> {
        self.replicas.iter().map(move |(service, replicas)| {
            let any_online = self.any_online(service);
            let counts = |it: &&Replica| !any_online || it.is_expected(now);
            (service, replicas.values().filter(counts).collect())
        })
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
    /// Goodbye and last will say the same, but a will is made before the connection that it is about,
    /// and thus before the replica says that it is online; a goodbye is made after that.
    fn heard(&mut self, status: ServiceStatus, now: Now) {
        if status.online {
            (self.offline_since, self.left) = (None, false);
        } else if self.offline_since.is_none() {
            self.offline_since = Some(now.uptime);
            self.left = status.since > self.status.since;
        }
        self.status = status;
    }

    /// Whether it is there, or will be missed.
    fn is_expected(&self, now: Now) -> bool {
        self.offline_since
            .is_none_or(|since| !self.left && now.uptime.saturating_sub(since) < GONE_AFTER)
    }

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
        status_since(instance, online, 0)
    }

    fn status_since(instance: &str, online: bool, since: i64) -> Vec<u8> {
        let since = Timestamp::from_second(since).unwrap();
        ServiceStatus::new("ingest", instance, online, since)
            .in_group("ingest")
            .to_json()
    }

    fn take(services: &mut Services, instance: &str, status: &[u8]) -> Result<(), &'static str> {
        services.status("ingest", instance, status, now(1))
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
        let replicas = services.replicas.values().flat_map(BTreeMap::values);
        replicas.map(|it| services.share(it, now)).collect()
    }

    #[test]
    fn shares_and_rate_are_those_of_fresh_reports_of_replicas_that_are_there() {
        let mut services = Services::default();
        assert_eq!(services.intake(now(1)), Intake::default());
        for (instance, stored) in [("a", 300), ("b", 100)] {
            take(&mut services, instance, &status(instance, true)).unwrap();
            assert!(services.report("ingest", instance, &report(instance, stored), now(1)));
        }
        assert_eq!(services.intake(now(2)).stored_per_second, Some(80.0));
        assert_eq!(services.intake(now(2)).delays.count(), 2);
        assert_eq!(shares(&services, now(2)), [Some(0.75), Some(0.25)]);

        take(&mut services, "b", &status("b", false)).unwrap();
        assert_eq!(shares(&services, now(2)), [Some(1.0), None]);
        assert_eq!(services.intake(now(60)), Intake::default());
        take(&mut services, "a", b"").unwrap();
        assert!(!services.any_online("ingest"));
    }

    #[test]
    fn what_cannot_be_read_or_tells_of_another_is_refused() {
        let mut services = Services::default();
        assert!(take(&mut services, "a", b"{}").is_err());
        assert!(take(&mut services, "a", &status("b", true)).is_err());
        assert!(!services.report("ingest", "a", b"nonsense", now(1)));
        assert!(!services.report("ingest", "a", &report("b", 1), now(1)));
        let mut endless: IngestReport = serde_json::from_slice(&report("a", 1)).unwrap();
        endless.seconds = 0.0;
        let endless = serde_json::to_vec(&endless).unwrap();
        assert!(!services.report("ingest", "a", &endless, now(1)));
    }

    #[test]
    fn statuses_replicas_and_services_are_bounded() {
        let mut services = Services::default();
        let name = "x".repeat(STATUS_BYTES_MAX);
        let large = take(&mut services, &name, &status(&name, true));
        assert_eq!(large, Err("too_large"));
        for number in 0..SERVICES_MAX + 10 {
            let service = number.to_string();
            let status = ServiceStatus::new(&service, "a", true, Timestamp::UNIX_EPOCH);
            let taken = services.status(&service, "a", &status.to_json(), now(1));
            assert_eq!(taken.is_ok(), number < SERVICES_MAX);
        }
        for number in 0..SERVICES_MAX {
            let service = number.to_string();
            services.status(&service, "a", b"", now(1)).unwrap();
        }
        assert!(services.replicas.is_empty());
        for number in 0..REPLICAS_MAX + 10 {
            let name = number.to_string();
            let taken = take(&mut services, &name, &status(&name, true));
            assert_eq!(taken.is_ok(), number < REPLICAS_MAX);
        }
        assert_eq!(services.count, REPLICAS_MAX);

        // Who is gone makes room for who comes.
        take(&mut services, "7", &status("7", false)).unwrap();
        take(&mut services, "new", &status("new", true)).unwrap();
        assert!(!services.replicas["ingest"].contains_key("7"));
        assert_eq!(services.count, REPLICAS_MAX);
    }

    #[test]
    fn who_said_goodbye_is_not_missed_and_who_vanished_only_for_a_while() {
        let mut services = Services::default();
        let heard = |services: &mut Services, instance, online, since, at| {
            let status = status_since(instance, online, since);
            services
                .status("ingest", instance, &status, now(at))
                .unwrap();
        };
        let names = |services: &Services, at| -> Vec<String> {
            let all = services.iter(now(at)).flat_map(|(_, replicas)| replicas);
            all.map(|it| it.status.instance.clone()).collect()
        };
        // Retained from before we came: nobody knows how it went.
        heard(&mut services, "old", false, 50, 1);
        for instance in ["left", "stays", "vanished"] {
            heard(&mut services, instance, true, 100, 1);
        }
        heard(&mut services, "left", false, 200, 10);
        heard(&mut services, "vanished", false, 99, 10);
        assert_eq!(names(&services, 10), ["old", "stays", "vanished"]);
        // What the broker retains comes again with every connection.
        heard(&mut services, "old", false, 50, 600);
        heard(&mut services, "vanished", false, 99, 600);
        assert_eq!(names(&services, 905), ["stays", "vanished"]);
        assert_eq!(names(&services, 910), ["stays"]);
        heard(&mut services, "left", true, 300, 910);
        assert_eq!(names(&services, 910), ["left", "stays"]);
        // Where nobody is there, all are missed.
        heard(&mut services, "left", false, 400, 920);
        heard(&mut services, "stays", false, 400, 920);
        assert_eq!(names(&services, 9_999).len(), 4);
    }
}
