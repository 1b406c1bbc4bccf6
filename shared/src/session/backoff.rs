//! When to try to connect again.

use std::time::Duration;

use super::options::Reconnect;

/// Pauses with full jitter under a ceiling that doubles up to a maximum.
///
/// Full jitter spreads the clients of a restarted broker evenly over the whole pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    settings: Reconnect,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(settings: Reconnect) -> Self {
        Self {
            settings,
            ceiling: settings.first.min(settings.max),
        }
    }

    /// A connection ended after `up`; zero when it was never made.
    ///
    /// Only one that lasted starts the ceiling over: a broker that accepts and then drops us
    /// would otherwise be asked again at once, for ever.
    pub(super) fn connection_ended(&mut self, up: Duration) {
        if up >= self.settings.stable_after {
            self.ceiling = self.settings.first.min(self.settings.max);
        }
    }

    /// The next pause; `chance` is uniform in 0..1.
    pub(super) fn pause(&mut self, chance: f64) -> Duration {
        let pause = self.ceiling.mul_f64(chance.clamp(0.0, 1.0));
        self.ceiling = self.ceiling.saturating_mul(2).min(self.settings.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Reconnect {
        Reconnect {
            first: Duration::from_millis(100),
            max: Duration::from_secs(10),
            stable_after: Duration::from_secs(5),
        }
    }

    #[test]
    fn ceiling_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::new(settings());
        let ceilings: Vec<u128> = (0..9).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(
            ceilings,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]
        );
    }

    #[test]
    fn pause_is_spread_over_the_whole_ceiling() {
        assert_eq!(Backoff::new(settings()).pause(0.0), Duration::ZERO);
        assert_eq!(
            Backoff::new(settings()).pause(0.25),
            Duration::from_millis(25)
        );
    }

    #[test]
    fn only_a_connection_that_lasted_starts_the_ceiling_over() {
        let mut backoff = Backoff::new(settings());
        backoff.pause(1.0);
        backoff.connection_ended(Duration::from_secs(4));
        assert_eq!(backoff.pause(1.0), Duration::from_millis(200));
        backoff.connection_ended(Duration::from_secs(5));
        assert_eq!(backoff.pause(1.0), Duration::from_millis(100));
    }
}
