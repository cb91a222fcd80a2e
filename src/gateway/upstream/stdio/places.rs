//! The places for the children of one server: who holds them, and how one more is found.
//!
//! Owns the count of children, those that are ending included: there are never more processes than places.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::child::Child;
use super::fairness::{Choice, Held, Most, choose};
use super::{Bounds, UpstreamError};

/// All places of one server.
pub(super) struct Places {
    room: Arc<Semaphore>,
    bounds: Bounds,
    most: Most,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    caller: Option<Arc<str>>,
    is_pooled: bool,
    /// `None` until it has started.
    child: Option<(Arc<Child>, CancellationToken)>,
}

impl Taken {
    /// Nothing new comes to it: it gives its place back soon.
    fn is_ending(&self) -> bool {
        self.child.as_ref().is_some_and(|(child, stop)| stop.is_cancelled() || child.has_ended())
    }
}

/// One place. Dropping it makes room.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Absent while the child in whose place it comes still ends.
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// `per_caller` does not count where one child serves all.
    pub(super) fn new(bounds: Bounds, is_shared: bool) -> Arc<Self> {
        let per_caller = if is_shared { bounds.children } else { bounds.children_per_caller };
        let most = Most { in_all: bounds.children, per_caller };
        Arc::new(Self { room: Arc::new(Semaphore::new(bounds.children)), bounds, most, ledger: Mutex::default() })
    }

    /// Children that run, those that are ending included.
    pub(super) fn count(&self) -> usize {
        self.bounds.children - self.room.available_permits()
    }

    /// A place for one more child of a caller, if need be that of one which is idle. `is_pooled`: it serves requests
    /// without a session.
    pub(super) async fn take(
        self: &Arc<Self>,
        caller: Option<Arc<str>>,
        is_pooled: bool,
    ) -> Result<Place, UpstreamError> {
        let mut place = self.enter(caller, is_pooled)?;
        let room = self.room.clone().acquire_owned();
        // No more are entered than there are places, so one that is ending is all that can be in the way.
        match timeout(self.bounds.grace * 4, room).await {
            Ok(Ok(permit)) => place.permit = Some(permit),
            Ok(Err(_)) | Err(_) => return Err(full(self.bounds.grace, false)),
        }
        Ok(place)
    }

    /// Enters one more into the ledger; whoever must give way for it is told to end.
    fn enter(self: &Arc<Self>, caller: Option<Arc<str>>, is_pooled: bool) -> Result<Place, UpstreamError> {
        let mut ledger = self.ledger.lock();
        let now = Instant::now();
        loop {
            let (numbers, held): (Vec<u64>, Vec<Held>) =
                ledger.taken.iter().filter(|(_, one)| !one.is_ending()).map(|(at, one)| (*at, self.held(one))).unzip();
            match choose(caller.as_ref(), &held, self.most, now) {
                Choice::Room => break,
                Choice::Full { free_in, is_own } => return Err(full(free_in, is_own)),
                Choice::Instead(at) => {
                    let found = numbers.get(at).and_then(|number| ledger.taken.get(number));
                    let Some((child, stop)) = found.and_then(|one| one.child.as_ref()) else { break };
                    let spare = held.get(at).map_or(self.bounds.spare, |one| one.spare);
                    // A call may have come between: then it is busy now, and another one is looked for.
                    if child.park(spare, now) {
                        stop.cancel();
                        break;
                    }
                }
            }
        }
        ledger.next += 1;
        let number = ledger.next;
        ledger.taken.insert(number, Taken { caller, is_pooled, child: None });
        Ok(Place { places: self.clone(), number, permit: None })
    }

    fn held(&self, one: &Taken) -> Held {
        // Requests without a session stand alone: a child that serves only such has nobody who would miss it.
        let spare = if one.is_pooled { std::time::Duration::ZERO } else { self.bounds.spare };
        let idle_since = one.child.as_ref().and_then(|(child, _)| child.unused_since());
        Held { caller: one.caller.clone(), idle_since, spare }
    }
}

impl Place {
    /// The child that has it has started.
    pub(super) fn is_for(&self, child: &Arc<Child>, stop: &CancellationToken) {
        if let Some(taken) = self.places.ledger.lock().taken.get_mut(&self.number) {
            taken.child = Some((child.clone(), stop.clone()));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.ledger.lock().taken.remove(&self.number);
    }
}

fn full(free_in: std::time::Duration, is_own: bool) -> UpstreamError {
    let what = if is_own {
        "all children that one caller may have at this server are in use: end a session, or try again later"
    } else {
        "all children that this server may have are in use: try again later"
    };
    UpstreamError::Full { what, free_in }
}
