//! What is answered before anybody asked who calls: refusals of the HTTP request itself, and the metadata page.
//!
//! Each leaves one audit line, within the share of those without a name.

use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use tokio::time::Instant;

use super::deliver::own_response;
use crate::gateway::audit::{Event, Outcome, Record};
use crate::gateway::body::Body;
use crate::gateway::endpoint::{Endpoint, Force};
use crate::gateway::protocol::error::Reject;
use crate::gateway::server::Shared;

/// Longest part of a header that is recorded, in bytes.
const HEADER_BYTES: usize = 256;

/// A request of which no more than its head was looked at.
pub(in crate::gateway) struct Early<'a> {
    pub(in crate::gateway) shared: &'a Shared,
    pub(in crate::gateway) head: &'a Parts,
    pub(in crate::gateway) request_id: &'a str,
    pub(in crate::gateway) started: Instant,
}

impl Early<'_> {
    /// Refuses. `server` is the one that the path names, as far as there is one.
    pub(in crate::gateway) fn refuse(
        &self,
        reject: &Reject,
        server: Option<&Endpoint>,
        force: Option<&Force>,
    ) -> Response<Body> {
        let (request_id, status) = (self.request_id, reject.status.as_u16());
        tracing::debug!(request_id, status, reason = reject.message, "request refused");
        let body = reject.body(None, request_id);
        let reason = reason(reject, &self.head.headers);
        let record = self.record(server, force);
        self.shared.audit.note(&Record {
            outcome: Some(reject.outcome),
            error_code: Some(reject.code),
            http_status: Some(status),
            reason: Some(&reason),
            result_bytes: body.len() as u64,
            ..record
        });
        own_response(reject.status, reject.header.clone(), body)
    }

    /// Answers with the metadata of a server.
    pub(in crate::gateway) fn serve(&self, server: &Endpoint, force: &Force, json: String) -> Response<Body> {
        let record = self.record(Some(server), Some(force));
        self.shared.audit.note(&Record {
            outcome: Some(Outcome::Ok),
            http_status: Some(StatusCode::OK.as_u16()),
            result_bytes: json.len() as u64,
            ..record
        });
        own_response(StatusCode::OK, None, json)
    }

    fn record<'a>(&'a self, server: Option<&'a Endpoint>, force: Option<&'a Force>) -> Record<'a> {
        let snapshot = force.map(|force| force.policy.snapshot());
        Record {
            method: self.head.method.as_str(),
            // Never the query: people put secrets into it.
            target: Some(self.head.uri.path()),
            server_namespace: snapshot.map_or("", |snapshot| &snapshot.target.namespace),
            server: server.map_or("", |server| &server.name),
            snapshot: force.map_or("", |force| force.policy.hash()),
            duration: self.started.elapsed(),
            ..blank(self.request_id)
        }
    }
}

/// Records a connection whose bytes are no HTTP request: hyper answers with a bare status and closes it.
pub(in crate::gateway) fn unreadable(shared: &Shared, error: &hyper::Error) {
    let Some(status) = status_of(error) else { return };
    let (request_id, reason) = (shared.request_ids.next(), error.to_string());
    shared.audit.note(&Record {
        method: "unreadable",
        outcome: Some(Outcome::Invalid),
        http_status: Some(status.as_u16()),
        reason: Some(&reason),
        ..blank(&request_id)
    });
}

/// The status with which hyper answers what it cannot parse; `None` where it says nothing.
fn status_of(error: &hyper::Error) -> Option<StatusCode> {
    let text = error.to_string();
    match () {
        () if !error.is_parse() || error.is_parse_status() || text.contains("HTTP2") => None,
        () if !error.is_parse_too_large() => Some(StatusCode::BAD_REQUEST),
        () if text.contains("URI") => Some(StatusCode::URI_TOO_LONG),
        () => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    }
}

fn blank(request_id: &str) -> Record<'_> {
    Record {
        event: Event::Request,
        request_id,
        issuer: None,
        subject: None,
        roles: &[],
        left_out: None,
        method: "",
        server_namespace: "",
        server: "",
        target: None,
        snapshot: "",
        rule_role: None,
        rule_index: None,
        decision: "none",
        reason: None,
        arguments: None,
        outcome: None,
        error_code: None,
        http_status: None,
        result_bytes: 0,
        duration: std::time::Duration::ZERO,
    }
}

/// Why, with what was sent where that is what a reader wants to know.
fn reason(reject: &Reject, headers: &HeaderMap) -> String {
    if reject.status != StatusCode::FORBIDDEN {
        return reject.message.clone();
    }
    let sent: Vec<String> = [header::HOST, header::ORIGIN]
        .iter()
        .flat_map(|name| headers.get_all(name).iter().map(move |value| (name, value)))
        .map(|(name, value)| {
            let value = value.as_bytes();
            let shown = String::from_utf8_lossy(value.get(..HEADER_BYTES).unwrap_or(value));
            format!("{name}: {shown}")
        })
        .collect();
    format!("{} ({})", reject.message, sent.join(", "))
}
