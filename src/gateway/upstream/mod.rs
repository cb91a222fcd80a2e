//! The servers behind the gateway. Every upstream, HTTP or stdio, has the shape of Streamable HTTP: a message goes
//! in, and either nothing, one JSON message, or a stream of messages comes back.
//!
//! Owns transports, connections, child processes and upstream sessions. Decides nothing: a call comes with a
//! `Permit`.

pub mod http;
pub mod stdio;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures::Stream;

use super::memory::NoRoom;
use super::protocol::envelope::Envelope;
use super::protocol::era::Era;
pub use super::protocol::sse::Event;

/// One HTTP exchange towards a server.
#[derive(Debug)]
pub struct Outbound {
    /// What is asked.
    pub verb: Verb,
    /// Era that the caller speaks.
    pub era: Era,
    /// Key of the caller: issuer and subject in one string, or [`ANONYMOUS`]; `None` for the gateway.
    pub caller: Option<Arc<str>>,
    /// The upstream's own session id.
    pub session: Option<Arc<str>>,
    /// Headers that may travel on; never `Authorization`, `Host`, `Origin` or hop-by-hop ones.
    pub headers: HeaderMap,
}

/// The HTTP verbs of Streamable HTTP.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // It lives for one call, on the stack; a box would cost every call.
pub enum Verb {
    /// One message.
    Post(Envelope),
    /// The stream of a session.
    Get,
    /// The end of a session.
    Delete,
}

/// What a server answered.
pub struct Reply {
    /// HTTP status; 200 or 202 for stdio servers that answered.
    pub status: StatusCode,
    /// Session that the server opened with this answer.
    pub session: Option<Arc<str>>,
    /// Headers that may travel on.
    pub headers: HeaderMap,
    /// The body.
    pub content: Content,
}

impl Reply {
    /// A status and nothing else.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, session: None, headers: HeaderMap::new(), content: Content::Empty }
    }
}

/// Body of a [`Reply`].
pub enum Content {
    /// None (202 and the like).
    Empty,
    /// One JSON-RPC message.
    Json(Bytes),
    /// Server-sent events. Dropping it cancels what the server is doing, where the era says so.
    Events(EventStream),
    /// Anything else; passed only with an error status.
    Opaque(Bytes),
}

/// Events in order. An item that is an error ends the stream.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, UpstreamError>> + Send>>;

/// Why a server gave no answer that could be passed on.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or no child process: nothing reached the server.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The connection or the process ended before anything of the message was written to it.
    #[error("the server went away before the request was sent to it")]
    Unsent,
    /// The connection or the process ended before the answer was complete.
    #[error("the server went away before it answered")]
    Gone,
    /// The process ended before it answered, and why is known.
    #[error("the server ended before it answered: {0}")]
    Exited(String),
    /// The server answered 401 or 403: what it refused is the gateway, since a caller's token is never passed on.
    #[error("the server refused the gateway with HTTP {0}: its administrator must let the gateway in")]
    Refused(u16),
    /// The answer is not valid MCP.
    #[error("the server's answer is not valid: {0}")]
    Garbage(String),
    /// No answer within the limit.
    #[error("the server did not answer in time")]
    Timeout,
    /// The process that the message was for did not get ready within the limit.
    #[error("the server did not answer initialize in time")]
    StartTimeout,
    /// A message was larger than the limit.
    #[error("the server's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// A bound on sessions, children or queued messages was reached.
    #[error("{0}")]
    Exhausted(&'static str),
    /// A bound was reached, and when a place is free at the earliest is known.
    #[error("{what}")]
    Full {
        /// Which bound.
        what: &'static str,
        /// Time until then.
        free_in: Duration,
    },
    /// The server answered, but what the gateway holds for others leaves no memory for the answer now.
    #[error("{0}: the server has answered, and its answer is lost")]
    NoRoom(#[from] NoRoom),
    /// The session is unknown to the server: HTTP 404, the client starts again.
    #[error("the session does not exist")]
    NoSession,
    /// The server's side of the session is gone, and the message was not taken: the session can be begun anew.
    #[error("the session does not exist any more")]
    Lost(Loss),
    /// A modern request for a server that speaks only legacy revisions.
    #[error("this server speaks MCP 2025-11-25 or earlier: send initialize")]
    LegacyOnly,
}

/// Why the server's side of a session is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Its process ended.
    Ended,
    /// Its process was idle and gave way to that of another session.
    Parked,
    /// The server does not know the session any more.
    Forgotten,
}

/// Key of all callers without a token: of nobody's identity, and not the gateway's, which has none.
pub const ANONYMOUS: &str = "";

/// Whether a server saw the message that it gave no answer to, and so may have acted on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reached {
    /// Certainly not: sending it again does nothing twice.
    No,
    /// It was written, in part at least, and what became of it is not known.
    Maybe,
    /// Certainly: an answer had begun.
    Yes,
}

impl Reached {
    /// As `error.data.reachedServer` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }
}

impl UpstreamError {
    /// Whether the server may have seen the message. What is not certain is [`Reached::Maybe`].
    ///
    /// This is about an exchange that brought no [`Reply`]. Once there is one, the server was reached, whatever comes
    /// afterwards.
    pub const fn reached_server(&self) -> Reached {
        match self {
            Self::Unreachable(_)
            | Self::Unsent
            | Self::StartTimeout
            | Self::Exhausted(_)
            | Self::Full { .. }
            | Self::NoSession
            | Self::Lost(_)
            | Self::LegacyOnly => Reached::No,
            Self::Gone | Self::Exited(_) | Self::Garbage(_) | Self::Timeout | Self::TooLarge(_) => Reached::Maybe,
            Self::Refused(_) | Self::NoRoom(_) => Reached::Yes,
        }
    }
}

/// How to reach a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// A Streamable HTTP endpoint.
    Http(http::Config),
    /// A child process.
    Stdio(stdio::Config),
}

impl Config {
    /// Whether a server that is started together with the gateway, in its pod, takes connections by now. Always true of
    /// one that runs elsewhere: whether that is there is not the gateway's start.
    pub async fn is_up(&self) -> bool {
        match self {
            Self::Http(config) => !http::is_loopback(&config.url) || config.listens().await,
            // A connection would start a process. The helper makes its socket when it is there.
            Self::Stdio(stdio::Config { run: stdio::Run::Socket(socket), .. }) => socket.exists(),
            Self::Stdio(_) => true,
        }
    }
}

/// One server behind the gateway.
#[allow(clippy::large_enum_variant)] // One for each server, behind an `Arc`.
pub enum Upstream {
    /// Reached over the network.
    Http(http::HttpUpstream),
    /// A child process.
    Stdio(stdio::StdioUpstream),
}

impl Upstream {
    /// Prepares the upstream: nothing is connected or started before it is needed.
    ///
    /// Fails with [`UpstreamError::Unreachable`] if it never could be: a malformed URL, an empty command.
    pub fn new(config: Config) -> Result<Self, UpstreamError> {
        match config {
            Config::Http(config) => http::HttpUpstream::new(&config).map(Self::Http),
            Config::Stdio(config) => stdio::StdioUpstream::new(config).map(Self::Stdio),
        }
    }

    /// Sends one exchange. The caller holds a permit, or the message needs none.
    pub async fn send(&self, outbound: Outbound) -> Result<Reply, UpstreamError> {
        match self {
            Self::Http(upstream) => upstream.send(outbound).await,
            Self::Stdio(upstream) => upstream.send(outbound).await,
        }
    }

    /// Trusts these certificate authorities (PEM) and no others, for a server that is reached over TLS.
    pub(super) fn trust(&self, ca: &str) -> Result<(), UpstreamError> {
        match self {
            Self::Http(upstream) => upstream.trust(ca),
            Self::Stdio(_) => Ok(()),
        }
    }

    /// Ends every connection and child, waiting for children to be gone.
    pub async fn stop(&self) {
        match self {
            Self::Http(_) => {}
            Self::Stdio(upstream) => upstream.stop().await,
        }
    }
}
