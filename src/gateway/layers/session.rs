//! Sessions of the legacy era: our own ids, bound to the caller who opened them.
//!
//! The upstream's id stays here. A session of another caller looks like one that does not exist.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::replay::Life;
use crate::gateway::endpoint::Caller;
use crate::gateway::layers::deliver::Purpose;
use crate::gateway::layers::in_flight::InFlight;
use crate::gateway::layers::pending::Pending;
use crate::gateway::limits;
use crate::gateway::protocol::envelope::Envelope;
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
    pub(in crate::gateway) life: Life,
    caller: Option<Arc<str>>,
    /// Its requests that a server over HTTP has not answered.
    pub(in crate::gateway) in_flight: InFlight,
    used: Mutex<Instant>,
    /// Ids (JSON text) of requests from the server that its client has not answered.
    asked: Mutex<VecDeque<String>>,
    /// Ids of the latest events: a stream is resumed only after one that this session saw.
    events: Mutex<VecDeque<Box<[u8]>>>,
    /// Those of the time before the session was begun anew: its server does not know them.
    past_events: Mutex<VecDeque<Box<[u8]>>>,
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

    /// Whether this event is one of the time before the session was begun anew.
    pub(in crate::gateway) fn had_seen(&self, event: &[u8]) -> bool {
        self.past_events.lock().iter().any(|seen| **seen == *event)
    }

    /// The server's side was begun anew: it waits for no answer to what it asked before, and answers nothing of that.
    pub(in crate::gateway) fn begin_anew(&self) {
        self.asked.lock().clear();
        self.pending.lock().close_cut();
        let events = std::mem::take(&mut *self.events.lock());
        let mut past = self.past_events.lock();
        for event in events {
            remember(&mut past, EVENTS, event);
        }
    }
}

impl Session {
    /// Time until it has been idle too long.
    fn left(&self, now: Instant) -> Duration {
        limits::SESSION_IDLE.saturating_sub(now.saturating_duration_since(*self.used.lock()))
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
    /// Whether the caller may open one more.
    pub(in crate::gateway) fn check_room(&self, caller: &Caller) -> Result<(), Reject> {
        let (table, now) = (self.table.lock(), Instant::now());
        let open = || table.values().filter(|session| session.caller.as_ref() == caller.key());
        if open().count() >= limits::SESSIONS_PER_CALLER {
            let message = format!("at most {} sessions for one caller: end one", limits::SESSIONS_PER_CALLER);
            let left = open().filter(|it| !is_in_use(it)).map(|it| it.left(now)).min();
            return Err(Reject::limited_for(message, left.map(|left| left + super::expiry::PERIOD)));
        }
        Ok(())
    }

    /// Forgets the sessions that were idle too long and returns them. One that a request or a stream holds is in use.
    pub(in crate::gateway) fn expire(&self, now: Instant) -> Vec<Arc<Session>> {
        let mut expired = Vec::new();
        self.table.lock().retain(|_, session| {
            if is_in_use(session) {
                *session.used.lock() = now;
                return true;
            }
            let stays = !session.left(now).is_zero();
            if !stays {
                expired.push(session.clone());
            }
            stays
        });
        expired
    }

    /// Opens a session for an upstream session.
    pub(in crate::gateway) fn open(
        &self,
        caller: &Caller,
        upstream: Arc<str>,
        initialize: Option<&Envelope>,
    ) -> Arc<Session> {
        let session = Arc::new(Session {
            id: random_id(),
            life: Life::new(upstream, initialize),
            caller: caller.key().cloned(),
            in_flight: InFlight::default(),
            used: Mutex::new(Instant::now()),
            asked: Mutex::default(),
            events: Mutex::default(),
            past_events: Mutex::default(),
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

    /// Forgets a session: its streams end.
    pub(in crate::gateway) fn remove(&self, id: &str) {
        if let Some(session) = self.table.lock().remove(id) {
            session.life.end();
        }
    }

    /// How many there are.
    pub(in crate::gateway) fn count(&self) -> usize {
        self.table.lock().len()
    }
}

/// Whether a request or a stream holds it: besides the table, nobody else does.
fn is_in_use(session: &Arc<Session>) -> bool {
    Arc::strong_count(session) > 1
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::layers::pending::Awaited;
    use crate::gateway::protocol::id::Id;
    use crate::policy::Policy;

    fn anonymous() -> Caller {
        let snapshot = serde_json::json!({
            "format": 1, "target": {"namespace": "a", "server": "s"}, "urls": [], "registration": "Declared",
            "serverRequests": {"elicitation": "Form", "sampling": "Deny", "roots": "Deny"},
            "tools": [], "roles": [], "issuers": [], "inputs": [],
        });
        let policy = Policy::load(serde_json::from_value(snapshot).unwrap()).unwrap();
        Caller { verified: None, view: Arc::new(policy.subject(None)) }
    }

    fn open(sessions: &Sessions) -> Arc<Session> {
        sessions.open(&anonymous(), "upstream".into(), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_nobody_uses_ends_by_itself_and_one_in_use_does_not() {
        let sessions = Sessions::default();
        let idle = open(&sessions).id.clone();
        let listening = open(&sessions); // As an open stream holds it.
        tokio::time::advance(limits::SESSION_IDLE * 2).await;

        let expired = sessions.expire(Instant::now());

        assert_eq!(expired.iter().map(|session| &session.id).collect::<Vec<_>>(), [&idle]);
        assert_eq!(sessions.count(), 1);

        // Its time begins when its stream ends, not when that was opened.
        let id = listening.id.clone();
        drop(listening);
        tokio::time::advance(limits::SESSION_IDLE / 2).await;
        assert!(sessions.expire(Instant::now()).is_empty());
        assert!(sessions.find(&id, &anonymous()).is_ok());
        tokio::time::advance(limits::SESSION_IDLE).await;
        assert_eq!(sessions.expire(Instant::now()).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_full_says_when_one_ends() {
        let sessions = Sessions::default();
        let retry = || {
            let reject = sessions.check_room(&anonymous()).unwrap_err();
            reject.header.map(|header| header.1.to_str().unwrap().parse::<u64>().unwrap())
        };
        let mut held: Vec<_> = (0..limits::SESSIONS_PER_CALLER).map(|_| open(&sessions)).collect();
        assert_eq!(retry(), None, "all are in use: no time is known");

        held.pop();
        tokio::time::advance(Duration::from_secs(100)).await;

        assert_eq!(retry(), Some(limits::SESSION_IDLE.as_secs() - 100 + 30));
    }

    #[test]
    fn callers_without_a_token_have_a_key_of_their_own() {
        assert_eq!(anonymous().key().map(|key| &**key), Some(crate::gateway::upstream::ANONYMOUS));
    }

    #[test]
    fn a_session_that_is_begun_anew_forgets_what_its_server_forgot() {
        let sessions = Sessions::default();
        let session = open(&sessions);
        session.ask("1");
        session.saw(b"e1");
        drop(Awaited::begin(&session, "7", Purpose::Plain).unwrap()); // Its stream breaks off.

        session.begin_anew();

        assert!(!session.answered("1") && session.pending.lock().take(&Id::of("7")).is_none());
        assert!(!session.has_seen(b"e1") && session.had_seen(b"e1"));
    }
}
