//! What the sessions of a shared child want of the whole server: subscriptions and a log level.
//!
//! The child knows one client, the gateway. A request that would change something for all is answered here unless the
//! server needs to be told; what a session leaves behind is told by the gateway itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::calls::Owner;
use super::child::{Child, Queued};
use super::greeting::is_result;
use super::log_level::{Level, LogLevels};
use super::watchers::{Next, Watchers};
use super::wire::frame;
use super::{Content, UpstreamError};
use crate::gateway::limits;
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::error::{LIMITED, PARAMS, REQUEST};
use crate::gateway::protocol::json::{members, quote, range_in, splice};

/// What the sessions of one child want.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) watchers: Watchers,
    pub(super) levels: LogLevels,
    /// A task tells the server what it has to be told.
    is_settling: bool,
}

/// A request that would change something for every session.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Subscribe(String),
    Unsubscribe(String),
    /// What the session asked for, and then what the server is told.
    Level(Level),
}

impl Change {
    /// Whether a message is one. `Err` is what the client is told instead.
    pub(super) fn of(message: &Envelope) -> Option<Result<Self, &'static str>> {
        let uri = || message.uri.clone().ok_or("params.uri is missing");
        match message.method.as_str() {
            "resources/subscribe" => Some(uri().map(Self::Subscribe)),
            "resources/unsubscribe" => Some(uri().map(Self::Unsubscribe)),
            "logging/setLevel" => {
                let level = message.params().and_then(level_in).and_then(Level::parse);
                Some(level.map(Self::Level).ok_or("params.level is no log level of MCP"))
            }
            _ => None,
        }
    }
}

/// What becomes of a change.
enum Fate {
    /// The server is told by this message.
    Send(Envelope),
    /// The client gets this answer.
    Answer(String),
}

impl Child {
    /// Makes a change for one session of a shared child. Waits at most `wait` for the server, if it has to be told.
    pub(super) async fn change(
        self: &Arc<Self>,
        owner: &Owner,
        message: &Envelope,
        change: Result<Change, &'static str>,
        wait: Duration,
    ) -> Result<Content, UpstreamError> {
        let mut change = match change {
            Ok(change) => change,
            Err(why) => return Ok(Content::Json(error(message, PARAMS, &format!("invalid params: {why}")))),
        };
        let Owner::Session(session) = owner else {
            // It would last for ever: nothing tells when such a caller is gone.
            let why = format!("{} needs a session: send initialize first", message.method);
            return Ok(Content::Json(error(message, REQUEST, &why)));
        };
        // With its place in the queue in hand, what is decided and what is sent have one order for all sessions.
        let room = self.room().await?;
        let (before, (own, source)) = {
            let mut state = self.state.lock();
            state.check()?;
            let before = state.wishes.levels.of(session);
            let message = match state.wishes.begin(session, &mut change, message) {
                Fate::Answer(text) => {
                    drop(state);
                    self.settle(); // Others may want less now.
                    return Ok(Content::Json(text.into()));
                }
                Fate::Send(message) => message,
            };
            match self.open(&mut state, owner.clone(), &message, room) {
                Ok(opened) => (before, opened),
                Err(error) => {
                    state.wishes.refused(session, &change, before);
                    return Err(error);
                }
            }
        };
        let answer = self.first(own, source, false, wait).await;
        let mut state = self.state.lock();
        match &answer {
            Ok(Content::Json(text)) if is_result(text) => state.wishes.accepted(&change),
            // It is on its way behind other messages: until somebody asks again, the session counts.
            Ok(Content::Events(_)) => {}
            _ => state.wishes.refused(session, &change, before),
        }
        drop(state);
        self.settle();
        answer
    }

    /// Tells the server, in the background, what nobody asked for and it has to know. What cannot be sent now is told
    /// with the next change.
    pub(super) fn settle(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            if state.wishes.is_settling || !state.wishes.is_owing() {
                return;
            }
            state.wishes.is_settling = true;
        }
        let child = self.clone();
        tokio::spawn(async move {
            while let Ok(room) = child.room().await {
                let mut state = child.state.lock();
                let Some(text) = state.next_owed() else {
                    state.wishes.is_settling = false;
                    return;
                };
                room.send(Queued { line: frame(text), call: None });
            }
            child.state.lock().wishes.is_settling = false;
        });
    }
}

impl super::child::State {
    /// The next message of the gateway itself. Its answer is of no use, and dropped as one to an unknown id.
    fn next_owed(&mut self) -> Option<String> {
        let (method, params) = if let Some(uri) = self.wishes.watchers.take_owed() {
            ("resources/unsubscribe", format!(r#"{{"uri":{}}}"#, quote(&uri)))
        } else {
            let level = self.wishes.levels.take_owed()?;
            ("logging/setLevel", format!(r#"{{"level":"{}"}}"#, level.as_str()))
        };
        let id = self.calls.fresh_id();
        Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#))
    }
}

impl Wishes {
    /// A session begins.
    pub(super) fn join(&mut self, session: &Arc<str>) {
        self.levels.join(session);
    }

    /// A session is over.
    pub(super) fn leave(&mut self, session: &Arc<str>) {
        self.watchers.leave(session);
        self.levels.leave(session);
    }

    fn is_owing(&self) -> bool {
        self.watchers.is_owing() || self.levels.is_owing()
    }

    fn begin(&mut self, session: &Arc<str>, change: &mut Change, message: &Envelope) -> Fate {
        let done = || Fate::Answer(result(message));
        match change {
            Change::Subscribe(uri) => match self.watchers.subscribe(session, uri) {
                Next::Send => Fate::Send(message.clone()),
                Next::Answer => done(),
                Next::Full => {
                    let most = limits::SUBSCRIPTIONS_PER_SESSION;
                    let why = format!("at most {most} subscriptions for one session: unsubscribe from one");
                    Fate::Answer(String::from_utf8_lossy(&error(message, LIMITED, &why)).into_owned())
                }
            },
            Change::Unsubscribe(uri) => match self.watchers.unsubscribe(session, uri) {
                Next::Send => Fate::Send(message.clone()),
                Next::Answer | Next::Full => done(),
            },
            Change::Level(level) => match self.levels.ask(session, *level) {
                None => done(),
                Some(told) if told == *level => Fate::Send(message.clone()),
                // The server is told the level that all want together, in this session's message.
                Some(told) => {
                    *level = told;
                    with_level(message, told).map_or_else(done, Fate::Send)
                }
            },
        }
    }

    fn accepted(&mut self, change: &Change) {
        match change {
            Change::Subscribe(uri) => self.watchers.accepted(uri),
            Change::Unsubscribe(_) => {}
            Change::Level(told) => self.levels.accepted(*told),
        }
    }

    fn refused(&mut self, session: &Arc<str>, change: &Change, before: Option<Level>) {
        match change {
            Change::Subscribe(uri) => self.watchers.refused(session, uri),
            Change::Unsubscribe(_) => {}
            Change::Level(_) => self.levels.refused(session, before),
        }
    }
}

/// The level in the parameters of `logging/setLevel`, as JSON text.
fn level_in(params: &str) -> Option<&str> {
    members(params)?.into_iter().find(|(key, _)| key == "level").map(|(_, raw)| raw.get())
}

fn with_level(message: &Envelope, level: Level) -> Option<Envelope> {
    let raw = message.params().and_then(level_in)?;
    let text = splice(message.text(), &[(range_in(message.text(), raw), format!("\"{}\"", level.as_str()))]);
    Envelope::parse_trusting(text.into()).ok()
}

fn result(message: &Envelope) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, message.id().unwrap_or("null"))
}

fn error(message: &Envelope, code: i64, why: &str) -> Bytes {
    let id = message.id().unwrap_or("null");
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{}}}}}"#, quote(why)).into()
}
