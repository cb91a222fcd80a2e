//! Sends what was permitted. Nothing else in the gateway calls an upstream for a client.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::authorize::Permit;
use super::in_flight;
use super::replay::{self, Anew};
use super::session::Session;
use crate::gateway::audit::Audit;
use crate::gateway::endpoint::{Caller, Endpoint, Force};
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::error::{Reject, upstream_label};
use crate::gateway::protocol::headers::{self, LAST_EVENT, METHOD, NAME, VERSION};
use crate::gateway::protocol::trace::{self, TRACE_PARENT, TRACE_STATE};
use crate::gateway::upstream::{Loss, Outbound, Reply, Upstream, UpstreamError, Verb};
use crate::telemetry::traces::Outgoing;

const PARAMETER: &str = "mcp-param-";

/// Who sends, and in which session.
pub(in crate::gateway) struct Sending<'a> {
    pub(in crate::gateway) endpoint: &'a Arc<Endpoint>,
    pub(in crate::gateway) force: &'a Arc<Force>,
    pub(in crate::gateway) caller: &'a Caller,
    pub(in crate::gateway) session: Option<&'a Arc<Session>>,
    pub(in crate::gateway) era: Era,
    pub(in crate::gateway) head: &'a Parts,
    pub(in crate::gateway) audit: &'a Audit,
    pub(in crate::gateway) request_id: &'a str,
}

impl Sending<'_> {
    /// Sends a permitted message.
    pub(in crate::gateway) async fn permitted(&self, permit: Permit, trace: Option<Outgoing>) -> Result<Reply, Reject> {
        let message = permit.into_message();
        if let Some(session) = self.session {
            session.life.note(&message);
        }
        let mut travelling = travelling(&self.head.headers, self.era);
        if let Some(name) = travelling.get_mut(NAME)
            && let Some(body) = headers::named(&message)
            && let Some(encoded) = headers::encode(body)
        {
            *name = encoded; // The body's name may have been rewritten since the two were compared.
        }
        let message = match &trace {
            None => message,
            Some(trace) => {
                set_trace(&mut travelling, trace);
                trace::put(message, &trace.traceparent, trace.tracestate.as_deref())
            }
        };
        self.exchange(Verb::Post(message), travelling, trace.as_ref()).await
    }

    /// Sends what concerns a session as a whole: the client's answer to a request of the server (the session has seen
    /// that it was asked), or the opening of the session's stream.
    pub(in crate::gateway) async fn in_session(&self, verb: Verb) -> Result<Reply, Reject> {
        self.exchange(verb, travelling(&self.head.headers, Era::Legacy), None).await
    }

    /// The headers for what is sent again: the stream of a new session is not resumed.
    pub(in crate::gateway) fn stream_headers(&self) -> HeaderMap {
        let mut headers = travelling(&self.head.headers, Era::Legacy);
        headers.remove(LAST_EVENT);
        headers
    }

    /// Ends the server's side of a session.
    pub(in crate::gateway) async fn end(&self, session: &Session) -> Result<Reply, UpstreamError> {
        let headers = travelling(&self.head.headers, Era::Legacy);
        exchange(self.endpoint, self.caller, Some(session), Era::Legacy, headers, Verb::Delete).await
    }

    /// What it takes to begin a session anew.
    pub(in crate::gateway) fn anew(&self, session: &Arc<Session>) -> Anew {
        Anew {
            endpoint: self.endpoint.clone(),
            force: self.force.clone(),
            caller: self.caller.clone(),
            session: session.clone(),
            audit: self.audit.clone(),
            request_id: self.request_id.to_owned(),
        }
    }

    /// One exchange. Where the server's side of its session is gone, nothing was done: the session is begun anew and the
    /// message sent again, once.
    async fn exchange(&self, verb: Verb, headers: HeaderMap, trace: Option<&Outgoing>) -> Result<Reply, Reject> {
        let Some(session) = self.session else {
            let sent = exchange(self.endpoint, self.caller, None, self.era, headers, verb).await;
            return sent.map_err(|error| self.failed(error));
        };
        let again = Again::of(&verb);
        let upstream = session.life.upstream();
        let sent = exchange(self.endpoint, self.caller, Some(session), self.era, headers, verb).await;
        let Some(loss) = lost(&sent) else { return sent.map_err(|error| self.failed(error)) };
        if !replay::is_on(self.endpoint) {
            self.endpoint.sessions.remove(&session.id);
            return Err(self.failed(UpstreamError::NoSession));
        }
        let verb = match again {
            // Who asked, and what was to be cancelled, is gone; and nobody waits for word of it.
            Again::Drop => return Ok(Reply::empty(StatusCode::ACCEPTED)),
            Again::Get => Verb::Get,
            Again::Post(bytes) => Verb::Post(Envelope::parse_trusting(bytes)?),
        };
        self.anew(session).begin(upstream, loss).await?;
        let mut headers = self.stream_headers(); // Its new session knows no event of the old one.
        if let Some(trace) = trace {
            set_trace(&mut headers, trace);
        }
        let sent = exchange(self.endpoint, self.caller, Some(session), self.era, headers, verb).await;
        match lost(&sent) {
            None => sent.map_err(|error| self.failed(error)),
            // It does not know what it has just begun: its client must begin again.
            Some(Loss::Forgotten) => {
                self.endpoint.sessions.remove(&session.id);
                Err(self.failed(UpstreamError::NoSession))
            }
            Some(Loss::Ended | Loss::Parked) => Err(self.failed(UpstreamError::Unsent)),
        }
    }

    fn failed(&self, error: UpstreamError) -> Reject {
        self.force.metrics.upstream_error(upstream_label(&error));
        error.into()
    }
}

/// What can be sent again. Bytes are shared, not copied.
enum Again {
    Post(Bytes),
    Get,
    /// A notification or an answer: it is about what is gone.
    Drop,
}

impl Again {
    fn of(verb: &Verb) -> Self {
        match verb {
            Verb::Post(message) if message.kind == Kind::Request => Self::Post(message.bytes().clone()),
            Verb::Get => Self::Get,
            Verb::Post(_) | Verb::Delete => Self::Drop,
        }
    }
}

/// Whether a message in a session was not taken because the server's side of it is gone.
fn lost(sent: &Result<Reply, UpstreamError>) -> Option<Loss> {
    match sent {
        Err(UpstreamError::Lost(loss)) => Some(*loss),
        Err(UpstreamError::NoSession) => Some(Loss::Forgotten),
        // So says the specification of a session that is over; the server has done nothing.
        Ok(reply) if reply.status == StatusCode::NOT_FOUND => Some(Loss::Forgotten),
        Ok(_) | Err(_) => None,
    }
}

fn set_trace(headers: &mut HeaderMap, trace: &Outgoing) {
    set_header(headers, TRACE_PARENT, Some(&trace.traceparent));
    set_header(headers, TRACE_STATE, trace.tracestate.as_deref());
}

fn set_header(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    match value.and_then(|value| HeaderValue::from_str(value).ok()) {
        Some(value) => {
            headers.insert(name, value);
        }
        None => {
            headers.remove(name);
        }
    }
}

/// Tells a server that its request is not permitted.
pub(in crate::gateway) async fn refuse(endpoint: &Endpoint, caller: &Caller, session: Option<&Session>, text: String) {
    let Ok(message) = Envelope::parse_trusting(text.into()) else { return };
    let sent = exchange(endpoint, caller, session, Era::Legacy, HeaderMap::new(), Verb::Post(message));
    if let Err(error) = sent.await {
        tracing::debug!(server = %endpoint.name, %error, "the server was not told that its request is refused");
    }
}

async fn exchange(
    endpoint: &Endpoint,
    caller: &Caller,
    session: Option<&Session>,
    era: Era,
    headers: HeaderMap,
    verb: Verb,
) -> Result<Reply, UpstreamError> {
    let caller = caller.key().cloned();
    let in_flight = session.map_or(&endpoint.in_flight, |session| &session.in_flight);
    let session = session.map(|session| session.life.upstream());
    let running = match (&verb, &endpoint.upstream) {
        (Verb::Post(message), Upstream::Http(_)) => {
            // Only within a session of its own, or with a name of its own, can a sender be told from others.
            let sender = session.as_ref().or(caller.as_ref()).filter(|sender| !sender.is_empty());
            if message.method == "notifications/cancelled"
                && !sender.is_some_and(|sender| in_flight.may_cancel(sender, message))
            {
                tracing::debug!(server = %endpoint.name, "a cancellation of no running request of its caller was dropped");
                return Ok(Reply::empty(StatusCode::ACCEPTED));
            }
            let id = in_flight::id_of(message);
            // A lost connection cancels a request since 2026-07-28, and where there is no session to go on in.
            let outlives = session.is_some() && era == Era::Legacy;
            sender.zip(id).map(|(sender, id)| in_flight.begin(sender.clone(), id, outlives))
        }
        // A child has ids of the gateway's own: a cancellation of somebody else's call finds nothing there.
        _ => None,
    };
    let reply = endpoint.upstream.send(Outbound { verb, era, caller, session, headers }).await?;
    Ok(in_flight::until_answered(reply, running))
}

/// The headers that may go to the server: those of the protocol and the trace, nothing of the caller's connection,
/// never its token.
fn travelling(from: &HeaderMap, era: Era) -> HeaderMap {
    let mut to = HeaderMap::new();
    for (name, value) in from {
        let travels = match era {
            Era::Legacy => *name == VERSION || *name == LAST_EVENT,
            Era::Modern => *name == VERSION || *name == METHOD || *name == NAME || name.as_str().starts_with(PARAMETER),
        };
        if travels || *name == TRACE_PARENT || *name == TRACE_STATE {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_token_and_connection_headers_stay_here() {
        let all = "authorization cookie host origin mcp-session-id connection x-forwarded-for mcp-protocol-version mcp-method mcp-param-a";
        let from: HeaderMap =
            all.split(' ').map(|name| (HeaderName::from_static(name), "x".parse().unwrap())).collect();

        let mut names: Vec<String> = travelling(&from, Era::Modern).keys().map(ToString::to_string).collect();
        names.sort();

        assert_eq!(names, ["mcp-method", "mcp-param-a", "mcp-protocol-version"]);
        assert_eq!(travelling(&from, Era::Legacy).keys().count(), 1);
    }
}
