use super::error::TopicError;
use super::filter::TopicFilter;
use super::trie::Trie;

/// Calls the handlers of every filter that matches a message's topic.
///
/// The most exact come first: filters without a wildcard, then those with `+`, then those with `#`,
/// and among equals the one that was added first. A fallback takes what nothing matches. Looking up
/// costs a walk through the [`Trie`], however many handlers there are.
///
/// ```
/// use fleet_shared::topic::Router;
///
/// let mut router = Router::<Vec<&str>>::new();
/// router.on("sensors/#", |seen| seen.push("all"))?;
/// router.on("sensors/hall/door", |seen| seen.push("door"))?;
/// router.otherwise(|seen| seen.push("none"));
///
/// let mut seen = Vec::new();
/// assert_eq!(router.dispatch("sensors/hall/door", &mut seen), 2);
/// assert_eq!(router.dispatch("devices/d-1/status", &mut seen), 0);
/// assert_eq!(seen, ["door", "all", "none"]);
/// # Ok::<(), fleet_shared::topic::TopicError>(())
/// ```
pub struct Router<M> {
    index: Trie<usize>,
    /// In the order of adding.
    handlers: Vec<(Rank, Handler<M>)>,
    fallback: Option<Handler<M>>,
    /// Kept from one message to the next.
    matching: Vec<(Rank, usize)>,
}

type Handler<M> = Box<dyn FnMut(&mut M)>;

/// How exact a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Exact,
    OneLevel,
    ManyLevels,
}

impl Rank {
    fn of(filter: &TopicFilter) -> Self {
        let levels = || filter.filter().split('/');
        if levels().any(|level| level == "#") {
            Self::ManyLevels
        } else if levels().any(|level| level == "+") {
            Self::OneLevel
        } else {
            Self::Exact
        }
    }
}

impl<M> Router<M> {
    /// A router without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: Trie::new(),
            handlers: Vec::new(),
            fallback: None,
            matching: Vec::new(),
        }
    }

    /// Adds a handler for a filter, beside those that it has.
    ///
    /// # Errors
    /// The rule of MQTT 5, section 4.7, that the filter breaks, or [`TopicError::TooManyLevels`].
    pub fn on(
        &mut self,
        filter: &str,
        handler: impl FnMut(&mut M) + 'static,
    ) -> Result<(), TopicError> {
        let filter = TopicFilter::parse(filter)?;
        self.index.insert(&filter, self.handlers.len())?;
        self.handlers.push((Rank::of(&filter), Box::new(handler)));
        Ok(())
    }

    /// Sets the handler of what nothing matches.
    pub fn otherwise(&mut self, handler: impl FnMut(&mut M) + 'static) {
        self.fallback = Some(Box::new(handler));
    }

    /// Hands `message` to every handler whose filter matches `topic`, or to the fallback; gives how
    /// many matched.
    pub fn dispatch(&mut self, topic: &str, message: &mut M) -> usize {
        let (handlers, matching) = (&mut self.handlers, &mut self.matching);
        matching.clear();
        self.index
            .for_each_match(topic, |&at| matching.push((handlers[at].0, at)));
        matching.sort_unstable();
        for (_, at) in &*matching {
            handlers[*at].1(message);
        }
        if matching.is_empty()
            && let Some(fallback) = &mut self.fallback
        {
            fallback(message);
        }
        matching.len()
    }
}

impl<M> Default for Router<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> std::fmt::Debug for Router<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("handlers", &self.handlers.len())
            .field("fallback", &self.fallback.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::matches;

    const FILTERS: [&str; 9] = [
        "#",
        "a/#",
        "+/b",
        "a/b",
        "a/+",
        "a/b/#",
        "$share/g/a/b",
        "a/+/c",
        "$SYS/#",
    ];

    fn called(filters: &[&'static str], topic: &str) -> Vec<&'static str> {
        let mut router = Router::<Vec<&'static str>>::new();
        for &filter in filters {
            router.on(filter, move |seen| seen.push(filter)).unwrap();
        }
        router.otherwise(|seen| seen.push("nothing"));
        let mut seen = Vec::new();
        let count = router.dispatch(topic, &mut seen);
        assert_eq!(count, seen.iter().filter(|f| **f != "nothing").count());
        seen
    }

    #[test]
    fn exact_comes_before_one_level_before_many_and_equals_in_their_order() {
        assert_eq!(
            called(&FILTERS, "a/b"),
            ["a/b", "$share/g/a/b", "+/b", "a/+", "#", "a/#", "a/b/#"]
        );
        assert_eq!(called(&FILTERS, "$SYS/x"), ["$SYS/#"]);
        assert_eq!(called(&["a/b"], "a/c"), ["nothing"]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        assert!(Router::<()>::new().on("a/#/b", |()| {}).is_err());
    }

    proptest! {
        #[test]
        fn every_handler_that_matches_is_called_once(topic in "[ab$c]{1,2}(/[abc]{1,2}){0,3}") {
            let mut expected: Vec<_> = FILTERS
                .into_iter()
                .filter(|filter| {
                    let filter = TopicFilter::parse(*filter).unwrap();
                    matches(filter.filter(), &topic)
                })
                .collect();
            if expected.is_empty() {
                expected.push("nothing");
            }
            let mut seen = called(&FILTERS, &topic);
            seen.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
        }
    }
}
