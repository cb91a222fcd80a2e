//! Sends what was permitted. Nothing else in the gateway calls an upstream for a client.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::authorize::Permit;
use super::in_flight;
use super::session::Session;
use crate::gateway::endpoint::{Caller, Endpoint};
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::headers::{self, LAST_EVENT, METHOD, NAME, VERSION};
use crate::gateway::protocol::trace::{self, TRACE_PARENT, TRACE_STATE};
use crate::gateway::upstream::{Content, Outbound, Reply, Upstream, UpstreamError, Verb};
use crate::telemetry::traces::Outgoing;

const PARAMETER: &str = "mcp-param-";

/// Sends a permitted message.
pub(in crate::gateway) async fn send(
    endpoint: &Endpoint,
    caller: &Caller,
    session: Option<&Session>,
    era: Era,
    head: &Parts,
    permit: Permit,
    trace: Option<Outgoing>,
) -> Result<Reply, UpstreamError> {
    let message = permit.into_message();
    let mut travelling = travelling(&head.headers, era);
    if let Some(name) = travelling.get_mut(NAME)
        && let Some(body) = headers::named(&message)
        && let Some(encoded) = headers::encode(body)
    {
        *name = encoded; // The body's name may have been rewritten since the two were compared.
    }
    let message = match trace {
        None => message,
        Some(trace) => {
            set_header(&mut travelling, TRACE_PARENT, Some(&trace.traceparent));
            set_header(&mut travelling, TRACE_STATE, trace.tracestate.as_deref());
            trace::put(message, &trace.traceparent, trace.tracestate.as_deref())
        }
    };
    exchange(endpoint, caller, session, era, travelling, Verb::Post(message)).await
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

/// Sends what concerns a session as a whole: the client's answer to a request of the server (the session has seen that
/// it was asked), the opening of the session's stream, its end.
pub(in crate::gateway) async fn in_session(
    endpoint: &Endpoint,
    caller: &Caller,
    session: &Session,
    head: &Parts,
    verb: Verb,
) -> Result<Reply, UpstreamError> {
    exchange(endpoint, caller, Some(session), Era::Legacy, travelling(&head.headers, Era::Legacy), verb).await
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
    let session = session.map(|session| session.upstream.clone());
    let running = match (&verb, &endpoint.upstream) {
        (Verb::Post(message), Upstream::Http(_)) => {
            // Only within a session of its own, or with a name of its own, can a sender be told from others.
            let sender = session.as_ref().or(caller.as_ref()).filter(|sender| !sender.is_empty());
            if message.method == "notifications/cancelled"
                && !sender.is_some_and(|sender| in_flight.may_cancel(sender, message))
            {
                tracing::debug!(server = %endpoint.name, "a cancellation of no running request of its caller was dropped");
                return Ok(accepted());
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

/// What a server answers to a notification.
fn accepted() -> Reply {
    Reply { status: StatusCode::ACCEPTED, session: None, headers: HeaderMap::new(), content: Content::Empty }
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
