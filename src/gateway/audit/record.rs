//! What one audit line says.
//!
//! | Member | Meaning |
//! |---|---|
//! | `arguments_digest` | `hmac-sha256:` and the hex HMAC of the arguments' JSON text, under a key of this process |
//! | `decision`, `reason` | what policy said, and why |
//! | `duration_us` | microseconds from the first byte of the request to the last of the answer |
//! | `error_code` | JSON-RPC error code sent to the caller |
//! | `event` | [`Event`] |
//! | `gateway_version` | version of this build |
//! | `http_status` | HTTP status sent to the caller |
//! | `issuer`, `subject`, `roles` | who called |
//! | `left_out` | lines with the same `http_status` that a flood without tokens would have left before this one |
//! | `method`, `server_namespace`, `server`, `target` | what was called |
//! | `outcome` | [`Outcome`] |
//! | `request_id` | shared with the process log and the error's data |
//! | `result_bytes` | bytes of the answer that were sent |
//! | `rule` | `index` and `role` of the deciding rule |
//! | `sequence` | position in this process's log, from 1, without gaps |
//! | `snapshot` | hash of the policy that decided |
//! | `time` | RFC 3339, UTC, microseconds; when the record was made |
//!
//! Absent members are left out. Strings longer than [`TEXT_BYTES`] are cut and end in `…`.

/// Longest string in a line, in bytes: what a caller sends must not make a line large.
pub const TEXT_BYTES: usize = 2048;

/// One line. Borrowed from the call; written as JSON with sorted keys.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Kind of the record.
    pub event: Event,
    /// Id that the process log and the error's data carry too.
    pub request_id: &'a str,
    /// Issuer's name, absent without a token.
    pub issuer: Option<&'a str>,
    /// Subject, absent without a token.
    pub subject: Option<&'a str>,
    /// Roles of the subject.
    pub roles: &'a [std::sync::Arc<str>],
    /// Lines of the same HTTP status that were left out before this one, during a flood of requests without a token.
    pub left_out: Option<u64>,
    /// MCP method, or the HTTP verb where there is none; `unreadable` for bytes that are no HTTP request.
    pub method: &'a str,
    /// Namespace of the server.
    pub server_namespace: &'a str,
    /// Name of the server.
    pub server: &'a str,
    /// Server-side name of the tool or prompt, or URI of the resource; the path of a request that names no endpoint, and
    /// the key of an answer in `inputResponses`.
    pub target: Option<&'a str>,
    /// Hash of the snapshot that decided.
    pub snapshot: &'a str,
    /// Role of the deciding rule.
    pub rule_role: Option<&'a str>,
    /// Position of the deciding rule.
    pub rule_index: Option<u32>,
    /// `allow`, `deny`, `unknown`, or `none` for messages that need no rule.
    pub decision: &'static str,
    /// Reason of the decision, for example `Argument /path`.
    pub reason: Option<&'a str>,
    /// JSON text of the arguments: only their keyed digest is written.
    pub arguments: Option<&'a str>,
    /// How it ended; absent in an intent.
    pub outcome: Option<Outcome>,
    /// JSON-RPC error code sent to the caller.
    pub error_code: Option<i64>,
    /// HTTP status sent to the caller.
    pub http_status: Option<u16>,
    /// Bytes of the answer that were sent.
    pub result_bytes: u64,
    /// From the first byte of the request to the last of the answer.
    pub duration: std::time::Duration,
}

/// Kind of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Written before a call that may change something is forwarded.
    Intent,
    /// Written when a long-lived stream was opened: it holds no place in the ring until it ends.
    StreamOpened,
    /// Written when the request has ended.
    Request,
    /// A request from the server that reached its caller, or was refused. Since 2026-07-28 each entry of
    /// `inputRequests` in a result, and each of `inputResponses` in the request that answers.
    ServerRequest,
    /// A session whose server's side was gone was begun anew, or could not be.
    SessionReplayed,
}

/// How a request ended: also the `status` label of `mcp_tool_requests_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Answered with a result.
    Ok,
    /// Answered with a result whose `isError` is true.
    ToolError,
    /// Refused by policy, or unknown to this caller.
    Denied,
    /// Malformed, or not authenticated.
    Invalid,
    /// A bound was reached.
    Limited,
    /// The server could not be reached or its answer was not valid.
    Unavailable,
    /// The server did not answer in time.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// The server answered with an error.
    Error,
}

impl Event {
    /// Audit value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::StreamOpened => "stream_opened",
            Self::Request => "request",
            Self::ServerRequest => "server_request",
            Self::SessionReplayed => "session_replayed",
        }
    }
}

impl Outcome {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::ToolError,
        Self::Denied,
        Self::Invalid,
        Self::Limited,
        Self::Unavailable,
        Self::Timeout,
        Self::Cancelled,
        Self::Error,
    ];

    /// Label and audit value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }
}
