//! Children and sessions of one server: starts them, finds the right one, ends what is idle.
//!
//! Owns every child's lifetime. No lock is held while something is awaited.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::calls::Owner;
use super::child::Child;
use super::greeting::{self, Greeting};
use super::places::Places;
use super::process::Process;
use super::{ANONYMOUS, Bounds, Config, Content, Loss, Reached, Sessions, UpstreamError};
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::era::Era;

/// All children of one server.
pub(super) struct Pool {
    config: Config,
    name: Arc<str>,
    pub(super) bounds: Bounds,
    places: Arc<Places>,
    table: Mutex<Table>,
    failures: Arc<Mutex<Backoff<Key>>>,
    /// Children that ended by themselves and were not reported yet.
    exits: Arc<AtomicU64>,
    /// A child said that one of its lists changed.
    pub(super) changed: Arc<Notify>,
    /// What the server speaks, once a modern client has asked.
    era: Mutex<Option<Era>>,
    tracker: TaskTracker,
    stop: CancellationToken,
    is_swept: AtomicBool,
    this: Weak<Self>,
    _end: DropGuard,
}

#[derive(Default)]
struct Table {
    sessions: HashMap<Arc<str>, Session>,
    /// Pooled children: of stateless callers, or the shared ones.
    pooled: HashMap<Key, Arc<Slot>>,
}

struct Session {
    caller: Option<Arc<str>>,
    at: At,
    used: Instant,
}

/// Which child a session uses.
enum At {
    /// Its own.
    Own(Arc<Running>),
    /// The shared one, as long as it is this one.
    Shared(Weak<Child>),
    /// None any more: what the server knew of it is lost.
    Lost(Loss),
}

/// Place of a pooled child. Whoever comes while it starts waits for the same start.
type Slot = OnceCell<Arc<Running>>;

/// Whom a pooled child serves.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    caller: Option<Arc<str>>,
    is_modern: bool,
}

/// A child that is ready. Dropping the last reference ends it.
pub(super) struct Running {
    child: Arc<Child>,
    greeting: Option<Greeting>,
    key: Key,
    /// It is being probed: an exit says nothing about the next start.
    is_probe: Arc<AtomicBool>,
    /// Nothing of it is left, and its end was counted.
    gone: CancellationToken,
    stop: CancellationToken,
    _end: DropGuard,
}

/// A child, and who speaks to it.
pub(super) struct Seat {
    running: Arc<Running>,
    owner: Owner,
    is_pooled: bool,
}

impl Seat {
    pub(super) fn child(&self) -> &Arc<Child> {
        &self.running.child
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn is_pooled(&self) -> bool {
        self.is_pooled
    }
}

impl Pool {
    pub(super) fn new(config: Config, bounds: Bounds) -> Arc<Self> {
        let stop = CancellationToken::new();
        Arc::new_cyclic(|this| Self {
            name: config.name.as_str().into(),
            bounds,
            places: Places::new(bounds, config.sessions == Sessions::Shared),
            config,
            table: Mutex::default(),
            failures: Arc::new(Mutex::new(Backoff::new())),
            exits: Arc::default(),
            changed: Arc::default(),
            era: Mutex::new(None),
            tracker: TaskTracker::new(),
            _end: stop.clone().drop_guard(),
            stop,
            is_swept: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    pub(super) fn sharing(&self) -> Sessions {
        self.config.sessions
    }

    pub(super) fn children(&self) -> usize {
        self.places.count()
    }

    pub(super) fn take_exits(&self) -> u64 {
        self.exits.swap(0, Ordering::Relaxed)
    }

    pub(super) fn sessions(&self) -> usize {
        self.table.lock().sessions.len()
    }

    /// Ends all children at once and waits until nothing of them is left.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        *self.table.lock() = Table::default();
    }

    /// Starts a child for a new session and passes the client's `initialize` to it.
    pub(super) async fn open(
        &self,
        session: &Arc<str>,
        caller: Option<Arc<str>>,
        message: &Envelope,
    ) -> Result<(Running, Content), UpstreamError> {
        let owner = Owner::Session(session.clone());
        let running = self.start(Key { caller, is_modern: false }, Some(owner.clone())).await?;
        running.child.join(session);
        match running.child.call(owner, message, self.bounds.start).await {
            Ok(content) => Ok((running, content)),
            // The message went to a process: that it cannot be started again yet does not undo that.
            Err(error) => Err(match (error.reached_server(), self.explain(&running, error).await) {
                (Reached::Maybe, UpstreamError::Unreachable(why)) => UpstreamError::Exited(why),
                (_, error) => error,
            }),
        }
    }

    /// A session's child has answered `initialize`: messages of the session may come.
    pub(super) fn admit(&self, session: Arc<str>, caller: Option<Arc<str>>, running: Running) {
        let entry = Session { caller, at: At::Own(Arc::new(running)), used: Instant::now() };
        self.table.lock().sessions.insert(session, entry); // The gateway bounds them, and ends each.
    }

    /// Opens a session of the shared child and answers its `initialize` as the server once did.
    pub(super) async fn share(
        &self,
        session: Arc<str>,
        caller: Option<Arc<str>>,
        message: &Envelope,
    ) -> Result<Bytes, UpstreamError> {
        let seat = self.stateless(caller.clone(), Era::Legacy).await?;
        let Some(greeting) = &seat.running.greeting else { return Err(UpstreamError::Gone) };
        let answer = greeting.repeat_for(message)?;
        let mut table = self.table.lock();
        if table.sessions.len() >= self.bounds.sessions {
            let longest = table.sessions.values().map(|session| session.used.elapsed()).max().unwrap_or_default();
            let free_in = self.bounds.session_idle.saturating_sub(longest);
            return Err(UpstreamError::Full { what: "too many sessions are open at this server", free_in });
        }
        seat.running.child.join(&session);
        let at = At::Shared(Arc::downgrade(&seat.running.child));
        table.sessions.insert(session, Session { caller, at, used: Instant::now() });
        Ok(answer)
    }

    /// The child of a session. Another caller's session does not exist. One whose child is gone is lost, and is
    /// forgotten with this answer: no other child knows what that one knew.
    pub(super) fn session(&self, id: &Arc<str>, caller: Option<&Arc<str>>) -> Result<Seat, UpstreamError> {
        let mut table = self.table.lock();
        let Table { sessions, pooled } = &mut *table;
        let session = sessions.get_mut(id).filter(|session| session.caller.as_ref() == caller);
        let session = session.ok_or(UpstreamError::NoSession)?;
        session.used = Instant::now();
        let found = match &session.at {
            At::Own(running) if running.child.has_ended() => Err(running.child.loss()),
            At::Own(running) => Ok((running.clone(), false)),
            At::Shared(joined) => {
                let shared = pooled.get(&self.key(None, Era::Legacy)).and_then(|slot| slot.get());
                let is_same = |running: &&Arc<Running>| {
                    std::ptr::eq(Arc::as_ptr(&running.child), joined.as_ptr()) && !running.child.has_ended()
                };
                shared.filter(is_same).map(|running| (running.clone(), true)).ok_or(Loss::Ended)
            }
            At::Lost(loss) => Err(*loss),
        };
        match found {
            Ok((running, is_pooled)) => Ok(Seat { running, owner: Owner::Session(id.clone()), is_pooled }),
            Err(loss) => {
                sessions.remove(id);
                Err(UpstreamError::Lost(loss))
            }
        }
    }

    /// Ends a session; the gateway itself, `None`, may end anybody's.
    pub(super) fn leave(&self, id: &Arc<str>, caller: Option<&Arc<str>>) -> Result<(), UpstreamError> {
        let mut table = self.table.lock();
        if !table.sessions.get(id).is_some_and(|it| caller.is_none() || it.caller.as_ref() == caller) {
            return Err(UpstreamError::NoSession);
        }
        let Some(session) = table.sessions.remove(id) else { return Err(UpstreamError::NoSession) };
        let shared = table.pooled.get(&self.key(None, Era::Legacy)).and_then(|slot| slot.get().cloned());
        drop(table);
        match (session.at, shared) {
            (At::Own(running), _) => running.stop.cancel(),
            (At::Shared(_), Some(running)) => running.child.leave(id),
            (At::Shared(_), None) | (At::Lost(_), _) => {}
        }
        Ok(())
    }

    /// The pooled child of a caller without a session, started if need be.
    pub(super) async fn stateless(&self, caller: Option<Arc<str>>, era: Era) -> Result<Seat, UpstreamError> {
        if era == Era::Modern && *self.era.lock() == Some(Era::Legacy) {
            return Err(UpstreamError::LegacyOnly);
        }
        let key = self.key(caller.clone(), era);
        let slot = {
            let mut table = self.table.lock();
            let slot = table.pooled.entry(key.clone()).or_default();
            if slot.get().is_some_and(|running| running.child.has_ended()) {
                *slot = Arc::default();
            }
            slot.clone()
        };
        match slot.get_or_try_init(|| self.start_pooled(key.clone())).await {
            Ok(running) => Ok(Seat { running: running.clone(), owner: owner(caller), is_pooled: true }),
            Err(error) => {
                let mut table = self.table.lock();
                // The table and we alone hold it: nobody else waits for this start.
                if table.pooled.get(&key).is_some_and(|it| Arc::ptr_eq(it, &slot)) && Arc::strong_count(&slot) == 2 {
                    table.pooled.remove(&key);
                }
                Err(error)
            }
        }
    }

    /// The pooled child of a caller, if it runs.
    pub(super) fn running(&self, caller: Option<Arc<str>>, era: Era) -> Option<Seat> {
        let running = self.table.lock().pooled.get(&self.key(caller.clone(), era))?.get()?.clone();
        (!running.child.has_ended()).then(|| Seat { running, owner: owner(caller), is_pooled: true })
    }

    fn key(&self, caller: Option<Arc<str>>, era: Era) -> Key {
        let caller = match self.config.sessions {
            Sessions::Shared => None,
            Sessions::PerClient => caller,
        };
        Key { caller, is_modern: era == Era::Modern }
    }

    async fn start_pooled(&self, key: Key) -> Result<Arc<Running>, UpstreamError> {
        let mut running = self.start(key, None).await?;
        let prepared = if running.key.is_modern {
            self.learn_era(&running).await
        } else {
            greeting::initialize(&running.child, &self.bounds).await.map(|greeting| running.greeting = Some(greeting))
        };
        match prepared {
            Ok(()) => Ok(Arc::new(running)),
            // Whatever the process did, the caller's own message was not sent to it.
            Err(error) => Err(match self.explain(&running, error).await {
                error if error.reached_server() == Reached::No => error,
                UpstreamError::Timeout => UpstreamError::StartTimeout,
                error @ UpstreamError::Garbage(_) => error, // Its answer is what discovery looks at.
                error => UpstreamError::Unreachable(error.to_string()),
            }),
        }
    }

    /// Makes sure that the server is modern. What it is stays known until its configuration changes.
    async fn learn_era(&self, running: &Running) -> Result<(), UpstreamError> {
        if *self.era.lock() == Some(Era::Modern) {
            return Ok(());
        }
        running.is_probe.store(true, Ordering::Relaxed);
        let answer = greeting::is_modern(&running.child, &self.bounds).await;
        let era = match answer {
            Ok(true) => Era::Modern,
            Ok(false) => Era::Legacy,
            // Some old servers end at a message before initialize. So may a modern one that is ill: not remembered.
            Err(UpstreamError::Gone | UpstreamError::Unsent) => return Err(UpstreamError::LegacyOnly),
            Err(error) => return Err(error),
        };
        running.is_probe.store(false, Ordering::Relaxed);
        tracing::debug!(server = %self.name, ?era, "the server's era is known");
        *self.era.lock() = Some(era);
        if era == Era::Modern { Ok(()) } else { Err(UpstreamError::LegacyOnly) }
    }

    /// Starts a process, within the bounds and not before its time.
    async fn start(&self, key: Key, tenant: Option<Owner>) -> Result<Running, UpstreamError> {
        if self.stop.is_cancelled() {
            return Err(UpstreamError::Unreachable("the gateway is stopping".to_owned()));
        }
        self.failures.lock().check(&key, Instant::now())?;
        let place = self.places.take(key.caller.clone(), tenant.is_none()).await?;
        let process = Process::start(&self.config).await.map_err(|error| {
            let why = self.config.run.explain(&error);
            tracing::warn!(server = %self.name, why, "the server cannot be started");
            self.failures.lock().failed(key.clone(), Duration::ZERO, Instant::now(), why.clone());
            UpstreamError::Unreachable(why)
        })?;
        let stop = self.stop.child_token();
        let era = if key.is_modern { Era::Modern } else { Era::Legacy };
        let (bounds, changed) = (self.bounds, self.changed.clone());
        let (child, life) = Child::new(self.name.clone(), process, (era, tenant), bounds, changed, stop.clone());
        place.is_for(&child, &stop);
        let (is_probe, gone) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (name, failures, of) = (self.name.clone(), self.failures.clone(), key.clone());
        let (probe, done, exits) = (is_probe.clone(), gone.clone().drop_guard(), self.exits.clone());
        self.tracker.spawn(async move {
            let exit = life.await;
            if exit.asked {
                tracing::debug!(server = %name, why = exit.why, "the server has ended");
            } else {
                tracing::warn!(server = %name, why = exit.why, up = ?exit.up, "the server ended by itself");
                for line in exit.last_lines {
                    tracing::warn!(target: "upstream::stderr", server = %name, line, "before it ended, the server wrote");
                }
                if !probe.load(Ordering::Relaxed) {
                    exits.fetch_add(1, Ordering::Relaxed);
                    failures.lock().failed(of, exit.up, Instant::now(), exit.why);
                }
            }
            drop((place, done)); // Last: whoever waits for a place or for the reason finds it.
        });
        self.begin_to_sweep();
        tracing::debug!(server = %self.name, "a child of the server has started");
        Ok(Running { child, greeting: None, key, is_probe, gone, _end: stop.clone().drop_guard(), stop })
    }

    /// Why a start led to nothing; it delays the next one.
    async fn explain(&self, running: &Running, error: UpstreamError) -> UpstreamError {
        let why = match &error {
            UpstreamError::LegacyOnly => return error,
            // It ended by itself, which is counted where its exit is known, and tells more.
            UpstreamError::Gone | UpstreamError::Unsent | UpstreamError::TooLarge(_) => {
                let _ = timeout(self.bounds.grace * 4, running.gone.cancelled()).await;
                return self.failures.lock().check(&running.key, Instant::now()).err().unwrap_or(error);
            }
            UpstreamError::Timeout => "the server did not answer initialize in time".to_owned(),
            error => error.to_string(),
        };
        self.failures.lock().failed(running.key.clone(), Duration::ZERO, Instant::now(), why);
        error
    }

    /// Sweeping begins with the first child, so that an upstream can be made outside a runtime.
    fn begin_to_sweep(&self) {
        if self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let period = self.bounds.child_idle.min(self.bounds.session_idle) / 4;
        let period = period.clamp(Duration::from_millis(10), Duration::from_secs(30));
        let (this, stop) = (self.this.clone(), self.stop.clone());
        tokio::spawn(async move {
            while stop.run_until_cancelled(sleep(period)).await.is_some() {
                let Some(pool) = this.upgrade() else { return };
                pool.sweep();
            }
        });
    }

    /// Ends what was idle too long, and forgets what has ended.
    fn sweep(&self) {
        let now = Instant::now();
        let is_old = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| now - since >= limit);
        let mut table = self.table.lock();
        table.pooled.retain(|_, slot| match slot.get() {
            None => Arc::strong_count(slot) > 1, // Somebody waits for its start.
            Some(running) => {
                let is_idle = self.config.sessions == Sessions::PerClient
                    && is_old(running.child.idle_since(), self.bounds.child_idle);
                if is_idle {
                    running.stop.cancel();
                }
                !is_idle && !running.child.has_ended()
            }
        });
        let shared = table.pooled.get(&self.key(None, Era::Legacy)).and_then(|slot| slot.get().cloned());
        table.sessions.retain(|id, session| match &session.at {
            At::Own(running) if running.child.has_ended() => {
                session.at = At::Lost(running.child.loss()); // Why is all that is left to know.
                true
            }
            At::Own(running) => {
                let is_idle = is_old(running.child.idle_since(), self.bounds.session_idle);
                if is_idle {
                    running.stop.cancel();
                }
                !is_idle
            }
            At::Shared(_) => {
                let is_heard = shared.as_ref().is_some_and(|running| running.child.is_heard_by(id));
                let stays = is_heard || !is_old(Some(session.used), self.bounds.session_idle);
                if let (false, Some(running)) = (stays, &shared) {
                    running.child.leave(id);
                }
                stays
            }
            At::Lost(_) => !is_old(Some(session.used), self.bounds.session_idle),
        });
    }
}

/// Callers without a token cannot be told from each other.
fn owner(caller: Option<Arc<str>>) -> Owner {
    caller.filter(|caller| **caller != *ANONYMOUS).map_or(Owner::Nobody, Owner::Caller)
}

/// A session id that cannot be guessed: 128 random bits in hex.
pub(super) fn mint() -> Result<Arc<str>, UpstreamError> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| UpstreamError::Unreachable("the system gives no random numbers".to_owned()))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)).into())
}
