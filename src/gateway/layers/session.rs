//! Sessions of the legacy era: our own ids, bound to the caller who opened them.
//!
//! The upstream's id stays here. A session of another caller looks like one that does not exist.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::gateway::endpoint::Caller;
use crate::gateway::layers::deliver::Purpose;
use crate::gateway::layers::in_flight::InFlight;
use crate::gateway::layers::pending::Pending;
use crate::gateway::limits;
use crate::gateway::protocol::error::Reject;

/// Requests from the server that one session remembers: the latest.
const PENDING: usize = 64;

/// Events that one session remembers, and the longest id of one.
const EVENTS: usize = 256;
const EVENT_ID_BYTES: usize = 256;

/// One session.
pub(in crate::gateway) struct Session {
    /// What the client knows.
    pub(in crate::gateway) id: String,
    /// What the server knows.
    pub(in crate::gateway) upstream: Arc<str>,
    caller: Option<Arc<str>>,
    /// Its requests that a server over HTTP has not answered.
    pub(in crate::gateway) in_flight: InFlight,
    used: Mutex<Instant>,
    /// Ids (JSON text) of requests from the server that its client has not answered.
    asked: Mutex<VecDeque<String>>,
    /// Ids of the latest events: a stream is resumed only after one that this session saw.
    events: Mutex<VecDeque<Box<[u8]>>>,
    /// Requests from the client.
    pub(super) pending: Mutex<Pending<Purpose>>,
}

impl Session {
    /// Remembers a request from the server.
    pub(in crate::gateway) fn ask(&self, id: &str) {
        remember(&mut self.asked.lock(), PENDING, id.to_owned());
    }

    /// Whether the server asked this; it is answered once.
    pub(in crate::gateway) fn answered(&self, id: &str) -> bool {
        let mut asked = self.asked.lock();
        let found = asked.iter().position(|known| known == id);
        found.and_then(|at| asked.remove(at)).is_some()
    }

    /// Remembers an event that its client got.
    pub(in crate::gateway) fn saw(&self, event: &[u8]) {
        if event.len() <= EVENT_ID_BYTES {
            remember(&mut self.events.lock(), EVENTS, event.into());
        }
    }

    /// Whether a stream may be resumed after this event. Servers often look events up without asking whose they are.
    pub(in crate::gateway) fn has_seen(&self, event: &[u8]) -> bool {
        self.events.lock().iter().any(|seen| **seen == *event)
    }
}

fn remember<T>(latest: &mut VecDeque<T>, most: usize, item: T) {
    if latest.len() >= most {
        latest.pop_front();
    }
    latest.push_back(item);
}

/// The sessions of one server.
#[derive(Default)]
pub(in crate::gateway) struct Sessions {
    table: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Whether the caller may open one more; idle sessions make room.
    pub(in crate::gateway) fn check_room(&self, caller: &Caller) -> Result<(), Reject> {
        let mut table = self.table.lock();
        table.retain(|_, session| session.used.lock().elapsed() < limits::SESSION_IDLE);
        let open = table.values().filter(|session| session.caller.as_ref() == caller.key()).count();
        if open >= limits::SESSIONS_PER_CALLER {
            let message = format!("at most {} sessions for one caller: end one", limits::SESSIONS_PER_CALLER);
            return Err(Reject::limited(message));
        }
        Ok(())
    }

    /// Opens a session for an upstream session.
    pub(in crate::gateway) fn open(&self, caller: &Caller, upstream: Arc<str>) -> Arc<Session> {
        let session = Arc::new(Session {
            id: random_id(),
            upstream,
            caller: caller.key().cloned(),
            in_flight: InFlight::default(),
            used: Mutex::new(Instant::now()),
            asked: Mutex::default(),
            events: Mutex::default(),
            pending: Mutex::default(),
        });
        self.table.lock().insert(session.id.clone(), session.clone());
        session
    }

    /// The caller's session with this id.
    pub(in crate::gateway) fn find(&self, id: &str, caller: &Caller) -> Result<Arc<Session>, Reject> {
        let found = self.table.lock().get(id).cloned();
        let session = found.filter(|session| session.caller.as_ref() == caller.key()).ok_or_else(Reject::no_session)?;
        *session.used.lock() = Instant::now();
        Ok(session)
    }

    /// Forgets a session.
    pub(in crate::gateway) fn remove(&self, id: &str) {
        self.table.lock().remove(id);
    }

    /// How many there are.
    pub(in crate::gateway) fn count(&self) -> usize {
        self.table.lock().len()
    }
}

/// 128 random bits in hex: unguessable, visible ASCII.
#[allow(clippy::expect_used)]
fn random_id() -> String {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
