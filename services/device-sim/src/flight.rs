//! Publishes of a device that the broker has not settled yet.

use std::collections::VecDeque;

use fleet_shared::telemetry::Span;

use crate::run::HandedOver;
use crate::schedule::Step;

/// A step that was handed to the session.
pub(crate) struct Sent {
    /// What was said.
    pub(crate) step: Step,
    /// When.
    pub(crate) handed_over: HandedOver,
    /// Its span, while it is traced.
    pub(crate) span: Option<Span>,
}

/// What is on its way, by the token it was submitted under. Tokens count up and outcomes come mostly
/// in order, so a place is found by subtraction.
#[derive(Default)]
pub(crate) struct Flight {
    first: u64,
    places: VecDeque<Option<Sent>>,
    open: u32,
}

/// Places that an idle device keeps room for; more are given back.
const PLACES_KEPT: usize = 4;

impl Flight {
    /// How many are on their way.
    pub(crate) fn len(&self) -> u32 {
        self.open
    }

    /// Whether none is.
    pub(crate) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Notes a step; the token under which it goes.
    pub(crate) fn insert(&mut self, sent: Sent) -> u64 {
        self.places.push_back(Some(sent));
        self.open += 1;
        self.first + self.places.len() as u64 - 1
    }

    /// Takes a step back; nothing if it was taken before.
    pub(crate) fn take(&mut self, token: u64) -> Option<Sent> {
        let place = usize::try_from(token.checked_sub(self.first)?).ok()?;
        let sent = self.places.get_mut(place)?.take()?;
        self.open -= 1;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        if self.places.is_empty() && self.places.capacity() > PLACES_KEPT {
            self.places = VecDeque::new();
        }
        Some(sent)
    }

    /// Takes all of it, in the order in which it was sent.
    pub(crate) fn take_all(&mut self) -> Vec<Sent> {
        self.first += self.places.len() as u64;
        self.open = 0;
        std::mem::take(&mut self.places)
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::schedule::Action;

    fn sent(second: u64) -> Sent {
        Sent {
            step: Step {
                due: Duration::from_secs(second),
                action: Action::Report {
                    signal_strength: 0,
                    battery_percent: None,
                },
            },
            handed_over: HandedOver::default(),
            span: None,
        }
    }

    fn second(sent: Option<Sent>) -> Option<u64> {
        sent.map(|sent| sent.step.due.as_secs())
    }

    #[test]
    fn each_is_found_once_by_its_token_in_any_order() {
        let mut flight = Flight::default();
        let tokens: Vec<u64> = (0..10).map(|number| flight.insert(sent(number))).collect();
        assert_eq!(flight.len(), 10);
        for number in [3, 0, 9, 1, 2] {
            let token = tokens[usize::try_from(number).unwrap()];
            assert_eq!(second(flight.take(token)), Some(number));
            assert_eq!(second(flight.take(token)), None);
        }
        let left: Vec<_> = flight
            .take_all()
            .into_iter()
            .map(|sent| sent.step.due.as_secs())
            .collect();
        assert_eq!(left, [4, 5, 6, 7, 8]);
        assert!(flight.is_empty());
        for token in tokens {
            assert!(flight.take(token).is_none());
        }
        let token = flight.insert(sent(77));
        assert_eq!(second(flight.take(token)), Some(77));
        assert_eq!(
            (flight.places.capacity() <= PLACES_KEPT, flight.len()),
            (true, 0)
        );
    }
}
