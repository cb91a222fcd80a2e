//! A queue of keys that need a look.
//!
//! Owns when an object is looked at: a key that is queued already is not queued twice, no key is worked on twice at
//! once, what fails waits longer each time, and a change ends every wait. Knows nothing of what a look does. It holds
//! at most one entry for each key, so it is bounded by the number of objects.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Key;

/// First wait after a failure; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(250);
/// Longest wait after a failure.
const LONGEST: Duration = Duration::from_mins(5);
/// Keys for which an empty queue keeps room.
const ROOM: usize = 64;

/// What comes after a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// The next change, or the resync.
    Wait,
    /// Another look after this time, if nothing changes before.
    After(Duration),
    /// It failed: another look, later each time.
    Failed,
}

/// Keys, and when each is due.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// Due now, in order.
    ready: VecDeque<Key>,
    /// The keys of `ready`.
    queued: HashSet<Key>,
    /// Being worked on, and whether they changed meanwhile.
    running: HashMap<Key, bool>,
    /// Due later.
    later: BTreeSet<(Instant, Key)>,
    /// The keys of `later`.
    due: HashMap<Key, Instant>,
    /// Failures in a row.
    failures: HashMap<Key, u32>,
}

impl State {
    fn add(&mut self, key: Key) {
        if let Some(due) = self.due.remove(&key) {
            self.later.remove(&(due, key.clone()));
        }
        if let Some(has_changed) = self.running.get_mut(&key) {
            *has_changed = true;
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// The sooner of two times counts; a key that is due now, or will be looked at again, needs none.
    fn add_at(&mut self, key: Key, at: Instant) {
        if self.queued.contains(&key) || self.running.get(&key) == Some(&true) {
            return;
        }
        match self.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => {
                self.later.remove(&(*due, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    fn take(&mut self, now: Instant) -> Option<Key> {
        while let Some((at, key)) = self.later.first().cloned() {
            if at > now || self.running.contains_key(&key) {
                break;
            }
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        if self.ready.is_empty() {
            // Once in a while everything is queued at once; its room is not needed until then.
            self.ready.shrink_to(ROOM);
            self.queued.shrink_to(ROOM);
        }
        self.running.insert(key.clone(), false);
        Some(key)
    }

    fn done(&mut self, key: &Key, next: Next, now: Instant) {
        let has_changed = self.running.remove(key).unwrap_or(false);
        let wait = match next {
            Next::Failed => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                Some(jittered(backoff(*failures)))
            }
            Next::After(wait) => {
                self.failures.remove(key);
                Some(wait)
            }
            Next::Wait => {
                self.failures.remove(key);
                None
            }
        };
        if has_changed {
            self.add(key.clone());
        } else if let Some(wait) = wait {
            self.add_at(key.clone(), now + wait);
        }
    }
}

impl Queue {
    /// A key changed: it is due now.
    pub fn add(&self, key: Key) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// A key is due after this time at the latest.
    pub fn add_after(&self, key: Key, wait: Duration) {
        self.state.lock().add_at(key, Instant::now() + wait);
        self.wake.notify_one();
    }

    /// Keys that are due or will be.
    pub fn depth(&self) -> usize {
        let state = self.state.lock();
        state.ready.len() + state.later.len()
    }

    /// Looks at what is due, `concurrency` keys at once, until `stop`; then waits for the looks that have begun. A look
    /// that panics counts as failed: one broken object never stalls the others. Dropping the future drops the looks.
    pub async fn run<F, L>(&self, concurrency: usize, stop: &CancellationToken, look: F)
    where
        F: Fn(Key) -> L,
        L: Future<Output = Next> + Send + 'static,
    {
        let mut looks = JoinSet::new();
        let mut keys = HashMap::new();
        loop {
            while looks.len() < concurrency && !stop.is_cancelled() {
                let Some(key) = self.state.lock().take(Instant::now()) else { break };
                let id = looks.spawn(look(key.clone())).id();
                keys.insert(id, key);
            }
            if stop.is_cancelled() && looks.is_empty() {
                return;
            }
            let is_free = looks.len() < concurrency && !stop.is_cancelled();
            let due = self.state.lock().later.first().map(|(at, _)| *at).filter(|_| is_free);
            tokio::select! {
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                Some(ended) = looks.join_next_with_id(), if !looks.is_empty() => {
                    let (id, next) = match ended {
                        Ok((id, next)) => (id, next),
                        Err(error) => {
                            tracing::error!(%error, "a reconcile broke off");
                            (error.id(), Next::Failed)
                        }
                    };
                    if let Some(key) = keys.remove(&id) {
                        self.state.lock().done(&key, next, Instant::now());
                    }
                }
                () = self.wake.notified(), if is_free => {}
                () = until(due), if due.is_some() => {}
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        sleep_until(due).await;
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).and_then(|factor| FIRST.checked_mul(factor));
    doubled.unwrap_or(LONGEST).min(LONGEST)
}

/// Between half of a time and all of it, so that what failed together does not come back together.
pub fn jittered(wait: Duration) -> Duration {
    // The keys of each new RandomState differ, which is all the chance that is needed here.
    let chance = RandomState::new().hash_one(0_u8) % 1024;
    wait / 2 + wait.mul_f64(f64::from(u16::try_from(chance).unwrap_or(0)) / 2048.0)
}

#[cfg(test)]
mod tests;
