//! Errors as callers see them: HTTP status, JSON-RPC code, message, data. `docs/errors.md` lists them all.
//!
//! Codes of our own lie outside the range that JSON-RPC and MCP reserve (-32768 to -32000).

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::envelope::Kind;
use super::era::{self, Era};
use super::headers::Mismatch;
use crate::gateway::audit::Outcome;
use crate::gateway::upstream::{Reached, UpstreamError};

/// JSON-RPC: not JSON, too deep, or with duplicate keys.
pub const PARSE: i64 = -32700;
/// JSON-RPC: no request, notification or response.
pub const REQUEST: i64 = -32600;
/// JSON-RPC: the method does not exist, or not in this revision.
pub const METHOD: i64 = -32601;
/// JSON-RPC: parameters of another shape, and MCP: unknown tool, prompt, cursor or task.
pub const PARAMS: i64 = -32602;
/// MCP until 2025-11-25: unknown resource.
pub const RESOURCE: i64 = -32002;
/// MCP 2026-07-28: a header differs from the body.
pub const HEADER: i64 = -32020;
/// MCP 2026-07-28: the client lacks a capability that the request needs.
pub const CAPABILITY: i64 = -32021;
/// MCP 2026-07-28: the revision is not supported.
pub const VERSION: i64 = -32022;
/// Refused by policy; the caller may know that the thing exists.
pub const DENIED: i64 = -31001;
/// A limit was reached.
pub const LIMITED: i64 = -31002;
/// The server cannot be reached, or its answer was not valid.
pub const UNAVAILABLE: i64 = -31003;
/// The server did not answer in time.
pub const TIMEOUT: i64 = -31004;
/// The gateway cannot decide or record yet: no policy, or no room in the audit log.
pub const NOT_READY: i64 = -31005;
/// The session does not exist, or is another caller's.
pub const SESSION: i64 = -31006;
/// The token is missing or not accepted.
pub const UNAUTHENTICATED: i64 = -31007;
/// The HTTP request itself is not acceptable: host, origin, path, verb, type, size.
pub const HTTP: i64 = -31008;

/// The policy in force may be out of date, and says that it then must not be used.
pub const STALE: i64 = -31009;
/// The server refuses the gateway: its answer was HTTP 401 or 403.
pub const REFUSED: i64 = -31010;

/// Member of `error.data`: whether the server saw the request, as [`Reached::as_str`] says it.
const REACHED: &str = "reachedServer";

/// A refusal, ready to be sent.
#[derive(Clone, Debug)]
pub struct Reject {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON-RPC code.
    pub code: i64,
    /// What is wrong and, where it helps, what to do.
    pub message: String,
    /// Members of `error.data` besides `requestId`.
    pub data: Vec<(&'static str, Value)>,
    /// The id of the message as JSON text, where it is known although the message is malformed.
    pub id: Option<Box<str>>,
    /// One header of the response.
    pub header: Option<Box<(HeaderName, HeaderValue)>>,
    /// How audit and metrics count it.
    pub outcome: Outcome,
}

impl Reject {
    /// A refusal without data or header.
    pub fn new(status: StatusCode, code: i64, outcome: Outcome, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: Vec::new(), id: None, header: None, outcome }
    }

    /// With a member in `error.data`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.data.push((key, value.into()));
        self
    }

    /// With what is known of whether the server saw the request, instead of what was said before.
    #[must_use]
    pub fn reached(mut self, reached: Reached) -> Self {
        self.data.retain(|(key, _)| *key != REACHED);
        self.with(REACHED, reached.as_str())
    }

    /// With a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// Something is wrong with the HTTP request, before any message was read.
    pub fn http(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, HTTP, Outcome::Invalid, message)
    }

    /// The message is malformed.
    pub fn malformed(code: i64, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, Outcome::Invalid, message)
    }

    /// The method is not in the table, or not in this era.
    pub fn unknown_method(method: &str, kind: Kind, era: Era) -> Self {
        let status = match (era, kind) {
            (Era::Modern, _) => StatusCode::NOT_FOUND,      // As the revision says.
            (Era::Legacy, Kind::Request) => StatusCode::OK, // Earlier clients expect the error in band.
            (Era::Legacy, _) => StatusCode::BAD_REQUEST,    // A notification has no answer.
        };
        Self::new(status, METHOD, Outcome::Invalid, format!("method not found: {method}"))
    }

    /// The thing does not exist, as far as this caller may know.
    pub fn unknown(what: &str, name: &str, era: Era) -> Self {
        let code = if what == "resource" && era == Era::Legacy { RESOURCE } else { PARAMS };
        Self::new(StatusCode::OK, code, Outcome::Denied, format!("unknown {what}: {name}"))
    }

    /// The caller may see it, but not use it like this.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, DENIED, Outcome::Denied, message)
    }

    /// A bound was reached; waiting, or closing something, helps.
    pub fn limited(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, LIMITED, Outcome::Limited, message)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// A bound was reached, and when there is room at the earliest is known; `None`: only closing something helps.
    pub fn limited_for(message: impl Into<String>, free_in: Option<Duration>) -> Self {
        let reject = Self::new(StatusCode::TOO_MANY_REQUESTS, LIMITED, Outcome::Limited, message);
        match free_in {
            None => reject,
            // Whole seconds, and never so few that whoever waits them comes too early.
            Some(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                reject.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
            }
        }
    }

    /// No rule of the policy could ever allow this caller anything here, so nothing is begun for it.
    pub fn nothing_allowed() -> Self {
        Self::new(StatusCode::FORBIDDEN, DENIED, Outcome::Denied, "policy allows this caller nothing at this server")
    }

    /// What the gateway holds for others leaves no memory for this now: waiting helps.
    pub fn no_room(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, LIMITED, Outcome::Limited, message)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("2"))
    }

    /// No policy, or no room in the audit log: fails closed.
    pub fn not_ready(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, NOT_READY, Outcome::Unavailable, message)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Nothing was heard of the policy server for longer than the policy permits: fails closed.
    pub fn stale(silence: Duration, limit: Duration) -> Self {
        let message = format!(
            "the policy may be out of date: its policy server was not heard for {} s, and this server is denied after {} s",
            silence.as_secs(),
            limit.as_secs()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, STALE, Outcome::Unavailable, message)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// The session is unknown to this caller: the client starts again.
    pub fn no_session() -> Self {
        Self::new(StatusCode::NOT_FOUND, SESSION, Outcome::Invalid, "session not found: send initialize again")
    }

    /// The server answered 401 or 403. Its own words and its challenge stay here: they would send the client to a
    /// foreign login, with a token that is not for it.
    fn upstream_refused(message: String) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, REFUSED, Outcome::Unavailable, message)
    }

    /// The body: a JSON-RPC error. `id` is JSON text, `null` where it is unknown.
    pub fn body(&self, id: Option<&str>, request_id: &str) -> String {
        let mut data = serde_json::Map::new();
        for (key, value) in &self.data {
            data.insert((*key).to_owned(), value.clone());
        }
        data.insert("requestId".to_owned(), Value::from(request_id));
        let error = json!({"code": self.code, "message": self.message, "data": data});
        let mut body = String::with_capacity(160);
        let _ = write!(body, r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id.unwrap_or("null"));
        body
    }
}

impl From<super::envelope::Invalid> for Reject {
    fn from(error: super::envelope::Invalid) -> Self {
        use super::envelope::Invalid;
        let code = match &error {
            Invalid::Parse(_) => PARSE,
            Invalid::Foreign(_) | Invalid::Request(_) | Invalid::Unclear(..) => REQUEST,
            Invalid::Params(..) => PARAMS,
        };
        let mut reject = Self::malformed(code, error.to_string());
        if let Invalid::Params(Some(id), _) | Invalid::Unclear(Some(id), _) = error {
            reject.id = Some(id.get().into());
        }
        reject
    }
}

impl From<Mismatch> for Reject {
    fn from(error: Mismatch) -> Self {
        match error {
            Mismatch::Header(message) => Self::malformed(HEADER, message),
            Mismatch::Version(asked) => {
                let supported: Vec<&str> = std::iter::once(era::MODERN).chain(era::LEGACY).collect();
                Self::malformed(VERSION, format!("unsupported protocol version: {asked}"))
                    .with("supported", supported)
                    .with("requested", asked)
            }
        }
    }
}

/// Label of an upstream's error in metrics.
pub const fn upstream_label(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Unreachable(_) => "unreachable",
        UpstreamError::Unsent => "unsent",
        UpstreamError::Gone | UpstreamError::Exited(_) => "gone",
        UpstreamError::Refused(_) => "refused",
        UpstreamError::Garbage(_) => "garbage",
        UpstreamError::Timeout | UpstreamError::StartTimeout => "timeout",
        UpstreamError::TooLarge(_) => "too_large",
        UpstreamError::Exhausted(_) | UpstreamError::Full { .. } => "exhausted",
        UpstreamError::NoRoom(_) => "no_room",
        UpstreamError::NoSession | UpstreamError::Lost(_) => "no_session",
        UpstreamError::LegacyOnly => "legacy_only",
    }
}

impl From<UpstreamError> for Reject {
    fn from(error: UpstreamError) -> Self {
        let message = error.to_string();
        let reached = error.reached_server();
        let reject = match error {
            UpstreamError::Timeout | UpstreamError::StartTimeout => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, TIMEOUT, Outcome::Timeout, message)
            }
            UpstreamError::Exhausted(_) => Self::limited(message),
            UpstreamError::Full { free_in, .. } => Self::limited_for(message, Some(free_in)),
            UpstreamError::NoRoom(_) => Self::no_room(message),
            UpstreamError::NoSession | UpstreamError::Lost(_) => Self::no_session(),
            UpstreamError::LegacyOnly => {
                Self::malformed(VERSION, message).with("supported", era::LEGACY.to_vec()).with("requested", era::MODERN)
            }
            UpstreamError::Refused(_) => Self::upstream_refused(message),
            UpstreamError::Unreachable(_)
            | UpstreamError::Unsent
            | UpstreamError::Gone
            | UpstreamError::Exited(_)
            | UpstreamError::Garbage(_)
            | UpstreamError::TooLarge(_) => {
                Self::new(StatusCode::BAD_GATEWAY, UNAVAILABLE, Outcome::Unavailable, message)
            }
        };
        reject.reached(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_the_callers_id_and_the_request_id() {
        let body = Reject::denied("no").with("path", "/a").body(Some("\"x\""), "r1");

        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            value,
            json!({"jsonrpc": "2.0", "id": "x", "error": {"code": DENIED, "message": "no", "data": {"path": "/a", "requestId": "r1"}}})
        );
    }

    #[test]
    fn own_codes_lie_outside_the_reserved_range() {
        for code in [DENIED, LIMITED, UNAVAILABLE, TIMEOUT, NOT_READY, SESSION, UNAUTHENTICATED, HTTP, STALE, REFUSED] {
            assert!(!(-32768..=-32000).contains(&code));
        }
    }

    #[test]
    fn every_upstream_error_says_whether_the_server_may_have_seen_the_request() {
        let cases = [
            (UpstreamError::Unreachable("refused".to_owned()), 502, UNAVAILABLE, "unreachable", "no"),
            (UpstreamError::Unsent, 502, UNAVAILABLE, "unsent", "no"),
            (UpstreamError::StartTimeout, 504, TIMEOUT, "timeout", "no"),
            (UpstreamError::Exhausted("full"), 429, LIMITED, "exhausted", "no"),
            (UpstreamError::NoSession, 404, SESSION, "no_session", "no"),
            (UpstreamError::LegacyOnly, 400, VERSION, "legacy_only", "no"),
            (UpstreamError::Gone, 502, UNAVAILABLE, "gone", "maybe"),
            (UpstreamError::Exited("status 1".to_owned()), 502, UNAVAILABLE, "gone", "maybe"),
            (UpstreamError::Garbage("html".to_owned()), 502, UNAVAILABLE, "garbage", "maybe"),
            (UpstreamError::TooLarge(1), 502, UNAVAILABLE, "too_large", "maybe"),
            (UpstreamError::Timeout, 504, TIMEOUT, "timeout", "maybe"),
            (UpstreamError::Refused(401), 502, REFUSED, "refused", "yes"),
        ];
        for (error, status, code, label, reached) in cases {
            assert_eq!(upstream_label(&error), label);
            let reject = Reject::from(error);
            let body: Value = serde_json::from_str(&reject.body(None, "r")).unwrap();
            assert_eq!((reject.status.as_u16(), reject.code), (status, code), "{label}");
            assert_eq!(body["error"]["data"]["reachedServer"], reached, "{label}");
        }
    }

    #[test]
    fn what_is_known_later_replaces_what_was_unsure() {
        let body = Reject::from(UpstreamError::Gone).reached(Reached::Yes).body(None, "r");

        assert!(body.contains(r#""reachedServer":"yes""#) && !body.contains("maybe"), "{body}");
    }
}
