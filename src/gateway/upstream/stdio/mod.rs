//! Stdio upstreams: supervised child processes that speak newline-delimited JSON-RPC, presented with the shape of
//! Streamable HTTP.
//!
//! ```text
//! mod       which child a message is for; answers in the shape of HTTP
//! pool      children and sessions: start, find, end
//! places    who holds how many children, and which gives way
//! fairness  PURE  which gives way
//! greeting  what the gateway itself says to a child: initialize, server/discover
//! child     one child: what is said to it, and whom its lines are for
//! ticket    the messages of one call to it
//! life      its pipes, from its start to its end
//! calls     PURE  ids, tokens, and whom a message belongs to
//! mailbox   a session's own stream
//! shared    what sessions want of a child that serves them all
//! watchers  PURE  who watches which resource
//! log_level PURE  how verbose the child is, and for whom
//! backoff   when a server that exits may start again
//! queue     bounded in messages and bytes
//! process   what a child is: spawned, an operating system process and its group, or connected, one behind a socket
//! wire      lines
//! ```
//! Decides nothing about access. A message of a child reaches only the caller that it certainly belongs to.

mod backoff;
mod calls;
mod child;
mod connected;
mod fairness;
mod greeting;
mod life;
mod log_level;
mod mailbox;
mod places;
mod pool;
mod process;
mod queue;
mod shared;
mod spawned;
mod ticket;
mod watchers;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use tokio::sync::Notify;

use super::{ANONYMOUS, Content, Event, EventStream, Loss, Outbound, Reached, Reply, UpstreamError, Verb};
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::era::Era;
use crate::gateway::{limits, memory};
use pool::{Pool, Seat};
use shared::Change;

/// How to run a child.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the server, for logs.
    pub name: String,
    /// Where children come from.
    pub run: Run,
    /// How children are shared.
    pub sessions: Sessions,
    /// How many children there may be.
    pub children: Children,
}

/// How many children there may be; at least one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Children {
    /// Of the server.
    pub most: usize,
    /// Of one caller. It does not count where one child serves all.
    pub per_caller: usize,
}

impl Default for Children {
    fn default() -> Self {
        Self { most: limits::CHILDREN, per_caller: limits::CHILDREN_PER_CALLER }
    }
}

/// Where children come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Run {
    /// They are processes of ours.
    Command(Command),
    /// A helper in the server's container starts one for each connection to this unix socket.
    Socket(PathBuf),
}

/// A program, and what it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Program and arguments. No shell is involved.
    pub command: Vec<String>,
    /// The child's environment. Of ours it inherits `PATH`, `HOME`, `USER`, `LANG`, `TERM` and `TMPDIR` alone.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub directory: PathBuf,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command(program) => f.write_str(&program.command.join(" ")),
            Self::Socket(socket) => write!(f, "{}", socket.display()),
        }
    }
}

impl Run {
    /// Why no child could be started.
    fn explain(&self, error: &std::io::Error) -> String {
        match self {
            Self::Command(Command { command, directory, .. }) => {
                let program = command.first().map_or("", String::as_str);
                format!("{program} cannot be started in {}: {error}", directory.display())
            }
            Self::Socket(_) => format!("the server's container does not answer: {error}"),
        }
    }
}

/// How children are shared among callers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sessions {
    /// One child for every client session; a stateless client gets one per subject.
    #[default]
    PerClient,
    /// One child for all (and a second one for modern clients, if the server speaks both eras). Its clients declare
    /// no capabilities to it, and it can ask one of them something only while no other has a call running.
    Shared,
}

/// Bounds of one server; tests inject small ones.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Children.
    children: usize,
    /// Children of one caller.
    children_per_caller: usize,
    /// Idle time after which a session's child gives way to another one.
    spare: Duration,
    /// Sessions of a shared child.
    sessions: usize,
    /// Idle time of a stateless caller's child.
    child_idle: Duration,
    /// Idle time of a session.
    session_idle: Duration,
    /// Time for an answer to `initialize`.
    start: Duration,
    /// Time after which a server that has not answered `server/discover` is asked to `initialize` as well.
    probe: Duration,
    /// Time for an answer, and for each next message of one.
    idle: Duration,
    /// Time for a child to read one message.
    write: Duration,
    /// Time for each step of ending a child.
    grace: Duration,
    /// One message, in bytes.
    message: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            children: limits::CHILDREN,
            children_per_caller: limits::CHILDREN_PER_CALLER,
            spare: limits::CHILD_SPARE,
            sessions: 4096,
            child_idle: limits::CHILD_IDLE,
            session_idle: limits::SESSION_IDLE,
            start: limits::UPSTREAM_START,
            probe: Duration::from_secs(5),
            idle: limits::UPSTREAM_IDLE,
            write: Duration::from_secs(10),
            grace: Duration::from_secs(2),
            message: memory::budget().largest_message(),
        }
    }
}

/// A server that is a child process.
pub struct StdioUpstream {
    pool: Arc<Pool>,
}

impl StdioUpstream {
    /// Prepares the upstream; children start when they are needed.
    ///
    /// Fails with [`UpstreamError::Unreachable`] if there is no command.
    pub fn new(config: Config) -> Result<Self, UpstreamError> {
        let Children { most, per_caller } = config.children;
        Self::bounded(config, Bounds { children: most, children_per_caller: per_caller, ..Bounds::default() })
    }

    fn bounded(config: Config, bounds: Bounds) -> Result<Self, UpstreamError> {
        if matches!(&config.run, Run::Command(program) if program.command.is_empty()) {
            return Err(UpstreamError::Unreachable("there is no command to run".to_owned()));
        }
        Ok(Self { pool: Pool::new(config, bounds) })
    }

    /// Children that run, those that are ending included.
    pub fn children(&self) -> usize {
        self.pool.children()
    }

    /// Children that ended without being told to since this was last asked.
    pub fn take_exits(&self) -> u64 {
        self.pool.take_exits()
    }

    /// Notified when a child says that one of its lists changed.
    pub(in crate::gateway) fn changed(&self) -> &Arc<Notify> {
        &self.pool.changed
    }

    /// Sessions that are open.
    pub fn sessions(&self) -> usize {
        self.pool.sessions()
    }

    pub(super) async fn stop(&self) {
        self.pool.stop().await;
    }

    pub(super) async fn send(&self, outbound: Outbound) -> Result<Reply, UpstreamError> {
        let Outbound { verb, era, caller, session, .. } = outbound;
        match (verb, era) {
            (Verb::Post(message), Era::Legacy) => match message.kind {
                Kind::Request if message.method == "initialize" => self.initialize(caller, &message).await,
                Kind::Request => self.request(caller, session, &message).await,
                Kind::Notification | Kind::Response => self.notice(caller, session, &message).await,
            },
            (Verb::Post(message), Era::Modern) => match message.kind {
                Kind::Request => self.stateless(caller, Era::Modern, &message).await,
                // 2026-07-28 knows one notification of clients, and no response.
                Kind::Notification | Kind::Response => {
                    if let Some(seat) = self.pool.running(caller, Era::Modern)
                        && message.method == "notifications/cancelled"
                    {
                        seat.child().cancel(seat.owner(), &message).await?;
                    }
                    Ok(empty(StatusCode::ACCEPTED))
                }
            },
            (Verb::Get, Era::Legacy) => match session {
                Some(session) => {
                    let seat = self.pool.session(&session, caller.as_ref())?;
                    let events = seat.child().listen(&session).map_err(|error| lost(error, &seat))?;
                    Ok(answered(Content::Events(events)))
                }
                None => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
            },
            (Verb::Delete, Era::Legacy) => match session {
                Some(session) => {
                    self.pool.leave(&session, caller.as_ref())?;
                    Ok(empty(StatusCode::OK))
                }
                None => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
            },
            (Verb::Get | Verb::Delete, Era::Modern) => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    /// Opens a session.
    async fn initialize(&self, caller: Option<Arc<str>>, message: &Envelope) -> Result<Reply, UpstreamError> {
        let session = pool::mint()?;
        let content = match self.pool.sharing() {
            Sessions::Shared => Content::Json(self.pool.share(session.clone(), caller, message).await?),
            Sessions::PerClient => {
                let (running, content) = self.pool.open(&session, caller.clone(), message).await?;
                if matches!(&content, Content::Json(answer) if !greeting::is_result(answer)) {
                    return Ok(answered(content)); // The server refused: there is no session, and its child ends here.
                }
                self.pool.admit(session.clone(), caller, running);
                content
            }
        };
        Ok(Reply { session: Some(session), ..answered(content) })
    }

    async fn request(
        &self,
        caller: Option<Arc<str>>,
        session: Option<Arc<str>>,
        message: &Envelope,
    ) -> Result<Reply, UpstreamError> {
        let change = Change::of(message).filter(|_| self.pool.sharing() == Sessions::Shared);
        let Some(session) = &session else {
            let Some(change) = change else { return self.stateless(caller, Era::Legacy, message).await };
            let seat = self.pool.stateless(caller, Era::Legacy).await?;
            return self.change(&seat, message, change).await;
        };
        let seat = self.pool.session(session, caller.as_ref())?;
        let reply = match change {
            Some(change) => self.change(&seat, message, change).await,
            None => self.call(&seat, message).await,
        };
        reply.map_err(|error| lost(error, &seat))
    }

    /// What one caller wants changed at a server that several share.
    async fn change(
        &self,
        seat: &Seat,
        message: &Envelope,
        change: Result<Change, &'static str>,
    ) -> Result<Reply, UpstreamError> {
        let content = seat.child().change(seat.owner(), message, change, self.pool.bounds.idle).await?;
        Ok(answered(content))
    }

    /// A request without a session. Its child may end, or give way to another one, between being found and being
    /// used: nothing was sent then, and another one is begun.
    async fn stateless(&self, caller: Option<Arc<str>>, era: Era, message: &Envelope) -> Result<Reply, UpstreamError> {
        let seat = self.pool.stateless(caller.clone(), era).await?;
        match self.call(&seat, message).await {
            Err(UpstreamError::Unsent) => {
                let seat = self.pool.stateless(caller, era).await?;
                self.call(&seat, message).await
            }
            other => other,
        }
    }

    async fn call(&self, seat: &Seat, message: &Envelope) -> Result<Reply, UpstreamError> {
        let content = seat.child().call(seat.owner().clone(), message, self.pool.bounds.idle).await?;
        Ok(answered(content))
    }

    /// Passes on what has no answer: a notification or a response. Never starts a child for it.
    async fn notice(
        &self,
        caller: Option<Arc<str>>,
        session: Option<Arc<str>>,
        message: &Envelope,
    ) -> Result<Reply, UpstreamError> {
        let seat: Option<Seat> = match &session {
            Some(session) => Some(self.pool.session(session, caller.as_ref())?),
            None => self.pool.running(caller, Era::Legacy),
        };
        if let Some(seat) = seat {
            match (message.kind, message.method.as_str()) {
                (Kind::Response, _) => seat.child().answer(seat.owner(), message).await?,
                (_, "notifications/cancelled") => seat.child().cancel(seat.owner(), message).await?,
                // The gateway is the client of a pooled child: what one of its users has to say is not its word.
                _ if seat.is_pooled() => {}
                _ => seat.child().notify(message.text().to_owned()).await?,
            }
        }
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// What was not sent because the child of a session had ended can be sent again once the session is begun anew.
fn lost(error: UpstreamError, seat: &Seat) -> UpstreamError {
    match error {
        UpstreamError::Unsent => UpstreamError::Lost(seat.child().loss()),
        other => other,
    }
}

fn answered(content: Content) -> Reply {
    Reply { status: StatusCode::OK, session: None, headers: HeaderMap::new(), content }
}

fn empty(status: StatusCode) -> Reply {
    Reply { status, session: None, headers: HeaderMap::new(), content: Content::Empty }
}

#[cfg(test)]
mod tests;
