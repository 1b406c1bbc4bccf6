//! Who else is in the group: decides whether a member may end its session when it leaves.

use std::collections::HashSet;

use super::ServiceStatus;

/// Members remembered at most; a group is a handful, more is not a group of ours.
const PEERS_MAX: usize = 1_024;

/// The online members of a member's group, as their retained statuses tell.
///
/// A member that leaves first announces that it does and waits until the broker has sent that
/// announcement back to it. The broker handles publishes one after the other, so of two members
/// that leave at once at least one has seen the other's announcement by then, and stays: the
/// group's last session is never ended while messages may still come.
#[derive(Debug)]
pub struct Peers {
    instance: String,
    group: String,
    online: HashSet<String>,
    leaving_seen: bool,
}

impl Peers {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(instance: &str, group: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            group: group.to_owned(),
            online: HashSet::new(),
            leaving_seen: false,
        }
    }

    /// A status arrived; what is not a status of this group is ignored.
    pub fn heard(&mut self, payload: &[u8]) {
        let Ok(status) = serde_json::from_slice::<ServiceStatus>(payload) else {
            return;
        };
        if status.group.as_ref() != Some(&self.group) {
            return;
        }
        if status.instance == self.instance {
            self.leaving_seen = !status.online;
        } else if !status.online {
            self.online.remove(&status.instance);
        } else if self.online.len() < PEERS_MAX {
            self.online.insert(status.instance);
        }
    }

    /// Our announcement that we leave came back: [`Peers::any_online`] counts from here on.
    #[must_use]
    pub fn leaving_seen(&self) -> bool {
        self.leaving_seen
    }

    /// Whether somebody else takes the group's messages.
    #[must_use]
    pub fn any_online(&self) -> bool {
        !self.online.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn status(instance: &str, group: &str, online: bool) -> Vec<u8> {
        ServiceStatus::new("ingest", instance, online, Timestamp::UNIX_EPOCH)
            .in_group(group)
            .to_json()
    }

    #[test]
    fn only_members_of_the_group_that_are_online_count() {
        let mut peers = Peers::new("a", "g");
        peers.heard(&status("a", "g", true));
        peers.heard(&status("x", "other", true));
        peers.heard(b"not json");
        assert!(!peers.any_online());
        peers.heard(&status("b", "g", true));
        assert!(peers.any_online());
        peers.heard(&status("b", "g", false));
        assert!(!peers.any_online());
    }

    #[test]
    fn of_two_that_leave_at_once_one_stays() {
        // The broker orders the two announcements; each worker decides when its own comes back.
        let mut peers = [Peers::new("a", "g"), Peers::new("b", "g")];
        for worker in &mut peers {
            worker.heard(&status("a", "g", true));
            worker.heard(&status("b", "g", true));
        }
        let mut may_end = Vec::new();
        for announced in ["b", "a"] {
            for worker in &mut peers {
                worker.heard(&status(announced, "g", false));
                if worker.instance == announced && worker.leaving_seen() {
                    may_end.push(worker.any_online());
                }
            }
        }
        assert_eq!(may_end, [true, false]);
    }
}
