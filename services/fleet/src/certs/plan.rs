//! Whether a certificate is to be made: decided from what is there, what is wanted, and the time.

use std::time::Duration;

use jiff::Timestamp;

use super::Facts;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be recognised by clients under its names.
    Server,
    /// To be recognised by servers as the account that is its common name.
    Client,
}

/// A certificate that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// File name without its end, and common name.
    pub name: String,
    /// What for.
    pub purpose: Purpose,
    /// Host names and addresses, of a server.
    pub names: Vec<String>,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is good.
    Keep,
    /// It is made, for that reason.
    Make(&'static str),
}

/// Keeps a certificate that has its key, is signed by the present authority, has the wanted names,
/// and is good for more than a third of its time.
#[must_use]
pub fn decide(
    wanted: &Wanted,
    there: Option<&Facts>,
    authority: &Facts,
    valid_for: Duration,
    renew: bool,
    now: Timestamp,
) -> Decision {
    let Some(there) = there else {
        return Decision::Make("new");
    };
    if renew {
        return Decision::Make("asked for");
    }
    if there.authority_key != authority.own_key {
        return Decision::Make("the authority is new");
    }
    let (mut is, mut should) = (there.names.clone(), wanted.names.clone());
    is.sort_unstable();
    should.sort_unstable();
    if is != should {
        return Decision::Make("other names");
    }
    let left = there.not_after.duration_since(now);
    if left < jiff::SignedDuration::try_from(valid_for / 3).unwrap_or_default() {
        return Decision::Make("it ends soon");
    }
    Decision::Keep
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn facts(names: &[&str], authority: u8) -> Facts {
        Facts {
            common_name: "broker".to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            serial: "1".to_owned(),
            not_after: "2026-04-01T00:00:00Z".parse().unwrap(),
            own_key: vec![authority],
            authority_key: vec![authority],
        }
    }

    fn decided(there: Option<&Facts>, authority: u8, renew: bool, now: &str) -> Decision {
        let wanted = Wanted {
            name: "broker".to_owned(),
            purpose: Purpose::Server,
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let authority = facts(&[], authority);
        decide(
            &wanted,
            there,
            &authority,
            DAY * 90,
            renew,
            now.parse().unwrap(),
        )
    }

    #[test]
    fn what_is_good_stays_and_each_reason_for_a_new_one_is_told() {
        let good = facts(&["127.0.0.1", "localhost"], 1);
        let other = facts(&["localhost"], 1);
        let early = "2026-01-01T00:00:00Z";
        assert_eq!(decided(Some(&good), 1, false, early), Decision::Keep);
        for (there, authority, renew, now, reason) in [
            (None, 1, false, early, "new"),
            (Some(&good), 1, true, early, "asked for"),
            (Some(&good), 2, false, early, "the authority is new"),
            (Some(&other), 1, false, early, "other names"),
            (
                Some(&good),
                1,
                false,
                "2026-03-03T00:00:00Z",
                "it ends soon",
            ),
            (
                Some(&good),
                1,
                false,
                "2027-01-01T00:00:00Z",
                "it ends soon",
            ),
        ] {
            assert_eq!(
                decided(there, authority, renew, now),
                Decision::Make(reason)
            );
        }
    }
}
