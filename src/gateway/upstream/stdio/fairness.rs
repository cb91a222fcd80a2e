//! PURE. Which child gives way when one more is wanted, fairly among callers.
//!
//! A caller has at most so many children, a server has at most so many. When all are taken, one that its caller has
//! not used for a while ends: the longest idle of the caller who holds most. So whoever holds much gives way first, and
//! nobody keeps another out for longer than that while.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// A child that is there, or is being started.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Whose it is; `None`: the gateway's.
    pub(super) caller: Option<Arc<str>>,
    /// Since when its caller has not used it; `None` while a call runs, and until it has started.
    pub(super) idle_since: Option<Instant>,
    /// How long it must have been idle to give way.
    pub(super) spare: Duration,
}

/// How many children there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub(super) in_all: usize,
    pub(super) per_caller: usize,
}

/// Where one more child finds its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// There is room.
    Room,
    /// In the place of the one at this position.
    Instead(usize),
    /// Nowhere. One of them gives way after this time at the earliest.
    Full {
        free_in: Duration,
        /// It is the caller's own bound.
        is_own: bool,
    },
}

/// Finds a place for one more child of `caller`.
pub(super) fn choose(caller: Option<&Arc<str>>, held: &[Held], most: Most, now: Instant) -> Choice {
    let holds = |caller: Option<&Arc<str>>| held.iter().filter(|one| one.caller.as_ref() == caller).count();
    let is_own = holds(caller) >= most.per_caller;
    if !is_own && held.len() < most.in_all {
        return Choice::Room;
    }
    // Who is at the bound of one caller makes room among its own.
    let asked = || held.iter().enumerate().filter(|(_, one)| !is_own || one.caller.as_ref() == caller);
    let gives_way = |one: &Held| one.idle_since.filter(|since| now.saturating_duration_since(*since) >= one.spare);
    let idle = asked().filter_map(|(at, one)| Some((at, holds(one.caller.as_ref()), gives_way(one)?)));
    if let Some((at, ..)) = idle.min_by_key(|(_, holds, since)| (std::cmp::Reverse(*holds), *since)) {
        return Choice::Instead(at);
    }
    let left = |one: &Held| match one.idle_since {
        Some(since) => one.spare.saturating_sub(now.saturating_duration_since(since)),
        None => one.spare, // Its call must end first, and that is known to nobody.
    };
    Choice::Full { free_in: asked().map(|(_, one)| left(one)).min().unwrap_or_default(), is_own }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPARE: Duration = Duration::from_secs(10);
    const MOST: Most = Most { in_all: 16, per_caller: 4 };

    /// Children of these callers, idle for so many seconds, or busy.
    fn held(now: Instant, children: &[(&str, Option<u64>)]) -> Vec<Held> {
        let one = |(caller, idle): &(&str, Option<u64>)| Held {
            caller: Some((*caller).into()),
            idle_since: idle.map(|idle| now.checked_sub(Duration::from_secs(idle)).unwrap()),
            spare: SPARE,
        };
        children.iter().map(one).collect()
    }

    fn chosen(caller: &str, children: &[(&str, Option<u64>)], most: Most) -> Choice {
        let now = Instant::now() + Duration::from_secs(1000);
        choose(Some(&caller.into()), &held(now, children), most, now)
    }

    #[test]
    fn the_longest_idle_of_the_caller_who_holds_most_gives_way() {
        let most = Most { in_all: 5, per_caller: 4 };
        let children = [("a", Some(900)), ("b", Some(20)), ("b", Some(40)), ("b", Some(5)), ("c", None)];

        assert_eq!(chosen("d", &children, most), Choice::Instead(2));
    }

    #[test]
    fn what_is_idle_for_less_than_its_time_stays() {
        let most = Most { in_all: 2, per_caller: 2 };
        let free_in = Duration::from_secs(3);

        let choice = chosen("d", &[("a", Some(7)), ("b", None)], most);

        assert_eq!(choice, Choice::Full { free_in, is_own: false });
    }

    #[test]
    fn who_is_at_the_bound_of_one_caller_makes_room_among_its_own() {
        let mine = [("a", Some(11)), ("a", Some(12)), ("a", None), ("a", None), ("b", Some(500))];
        assert_eq!(chosen("a", &mine, MOST), Choice::Instead(1));

        let busy = [("a", None), ("a", Some(4)), ("a", None), ("a", None), ("b", Some(500))];
        assert_eq!(chosen("a", &busy, MOST), Choice::Full { free_in: Duration::from_secs(6), is_own: true });
        assert_eq!(chosen("c", &busy, MOST), Choice::Room);
    }

    fn child() -> impl Strategy<Value = (&'static str, Option<u64>)> {
        (prop::sample::select(vec!["a", "b", "c", "d", "e"]), prop::option::weighted(0.7, 0_u64..30))
    }

    proptest! {
        #[test]
        fn a_place_is_found_or_the_wait_for_one_is_true(
            children in prop::collection::vec(child(), 0..12), in_all in 1_usize..12, per_caller in 1_usize..5,
        ) {
            let most = Most { in_all, per_caller };
            let now = Instant::now() + Duration::from_secs(1000);
            let all = held(now, &children);
            let count = |caller: &str| children.iter().filter(|(whose, _)| *whose == caller).count();
            match choose(Some(&"a".into()), &all, most, now) {
                Choice::Room => prop_assert!(children.len() < in_all && count("a") < per_caller),
                Choice::Instead(at) => {
                    let (whose, idle) = children[at];
                    prop_assert!(idle.is_some_and(|idle| idle >= 10), "only what was idle for long enough");
                    if count("a") >= per_caller {
                        prop_assert_eq!(whose, "a");
                    } else {
                        let others = children.iter().filter(|(_, idle)| idle.is_some_and(|idle| idle >= 10));
                        prop_assert!(others.clone().all(|(other, _)| count(other) <= count(whose)));
                        prop_assert!(others.filter(|(other, _)| *other == whose).all(|(_, other)| *other <= idle));
                    }
                }
                Choice::Full { free_in, is_own } => {
                    prop_assert!(free_in <= SPARE);
                    prop_assert_eq!(is_own, count("a") >= per_caller);
                    // Unless somebody uses it meanwhile, a place is there after that time.
                    let later = choose(Some(&"a".into()), &all, most, now + free_in);
                    let idle = children.iter().any(|(whose, idle)| idle.is_some() && (!is_own || *whose == "a"));
                    prop_assert!(!idle || matches!(later, Choice::Instead(_)), "{later:?}");
                }
            }
        }
    }
}
