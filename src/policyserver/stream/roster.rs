//! Which stream speaks for a Pod: the newest. A gateway that comes again before its old stream has ended must not be
//! taken off the list by that end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::policy::snapshot::Target;
use crate::policyserver::fleet::{Fleet, Report};
use crate::policyserver::identity::Caller;

/// The streams of this replica, one a Pod.
pub(in crate::policyserver) struct Roster {
    fleet: Arc<Fleet>,
    /// By uid of the Pod.
    seats: Mutex<HashMap<String, Seat>>,
    /// Numbers are never used again.
    streams: AtomicU64,
}

struct Seat {
    number: u64,
    ended: CancellationToken,
}

/// The right to speak for a Pod; gone when dropped.
pub(in crate::policyserver) struct Place {
    roster: Arc<Roster>,
    target: Target,
    uid: String,
    number: u64,
    /// Cancelled when a newer stream takes the place, or this one ends.
    pub(in crate::policyserver) ended: CancellationToken,
}

impl Roster {
    pub(in crate::policyserver) fn new(fleet: Arc<Fleet>) -> Arc<Self> {
        Arc::new(Self { fleet, seats: Mutex::default(), streams: AtomicU64::new(0) })
    }

    /// Takes the place of a Pod; whoever had it is ended.
    pub(in crate::policyserver) fn take(self: &Arc<Self>, caller: &Caller) -> Place {
        let ended = CancellationToken::new();
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut seats = self.seats.lock();
        if let Some(before) = seats.insert(caller.uid.clone(), Seat { number, ended: ended.clone() }) {
            before.ended.cancel();
        }
        Place { roster: Arc::clone(self), target: caller.target.clone(), uid: caller.uid.clone(), number, ended }
    }
}

impl Place {
    /// Says what the gateway says, unless a newer stream speaks for it.
    pub(in crate::policyserver) fn report(&self, report: &Arc<Report>) {
        let seats = self.roster.seats.lock();
        if seats.get(&self.uid).is_some_and(|seat| seat.number == self.number) {
            self.roster.fleet.put(&self.target, Arc::clone(report));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ended.cancel();
        let mut seats = self.roster.seats.lock();
        if seats.get(&self.uid).is_some_and(|seat| seat.number == self.number) {
            seats.remove(&self.uid);
            self.roster.fleet.remove(&self.target, &self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        let target = Target { namespace: "agents".to_owned(), server: "github".to_owned() };
        Caller { target, name: "pod".to_owned(), uid: "uid".to_owned() }
    }

    fn report(program: &str) -> Arc<Report> {
        Arc::new(Report { pod: "uid".to_owned(), program: program.to_owned(), ..Report::default() })
    }

    #[test]
    fn the_end_of_an_old_stream_takes_nothing_from_the_new_one() {
        let fleet = Arc::new(Fleet::default());
        let roster = Roster::new(Arc::clone(&fleet));
        let old = roster.take(&caller());
        old.report(&report("old"));

        let new = roster.take(&caller());
        assert!(old.ended.is_cancelled());
        new.report(&report("new"));
        old.report(&report("old"));
        drop(old);

        assert_eq!(fleet.of(&caller().target)[0].program, "new");
        drop(new);
        assert!(fleet.of(&caller().target).is_empty());
    }

    #[test]
    fn a_place_can_be_taken_again_after_it_was_left() {
        let fleet = Arc::new(Fleet::default());
        let roster = Roster::new(Arc::clone(&fleet));
        drop(roster.take(&caller()));

        let place = roster.take(&caller());
        place.report(&report("again"));

        assert_eq!(fleet.of(&caller().target).len(), 1);
    }
}
