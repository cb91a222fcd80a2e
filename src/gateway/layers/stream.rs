//! An answer that is a stream: each complete message is judged by itself; comments and event ids pass as they are.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::deliver::{Delivery, Purpose, garbage, same_id};
use super::forward;
use super::from_server::{self, Fate};
use super::list_changes::ListChanges;
use crate::gateway::audit::Outcome;
use crate::gateway::limits;
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::error::{Reject, UNAUTHENTICATED, upstream_label};
use crate::gateway::protocol::meta;
use crate::gateway::protocol::sse;
use crate::gateway::upstream::{Event, EventStream, Reached};

/// The first message of a listen stream (2026-07-28).
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

struct State {
    delivery: Option<Delivery>,
    upstream: EventStream,
    /// When the caller's token expires.
    until: Option<Instant>,
    /// When it was opened, as drains count.
    round: u64,
    /// How the final answer came out, once it passed.
    outcome: Option<Outcome>,
    /// What is announced on a stream of its own.
    changes: Option<ListChanges>,
}

/// What the client gets of an event stream.
pub(super) fn events(delivery: Delivery, upstream: EventStream) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
    if let (Some(session), Some(id)) = (&delivery.session, &delivery.id) {
        // The stream may end before its answer comes; the client then asks for the rest on another one.
        session.await_answer(id, delivery.purpose.clone());
    }
    let until = delivery.caller.expires_in().map(|left| Instant::now() + left);
    let round = delivery.endpoint.drain.round();
    let changes = delivery.subscription.clone().map(|subscription| {
        ListChanges::new(subscription, &delivery.endpoint, delivery.force.clone(), &delivery.caller)
    });
    let state = State { delivery: Some(delivery), upstream, until, round, outcome: None, changes };
    Box::pin(stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        if let Some(delivery) = &mut state.delivery {
            delivery.record.sent(bytes.len());
        }
        Some((bytes, state))
    }))
}

/// A client that does not read is cut off, and its stream not polled again: see `lifetime`. The true reason is recorded.
impl Drop for State {
    fn drop(&mut self) {
        if self.has_expired() {
            self.end(Outcome::Invalid);
        }
    }
}

impl State {
    /// Whether the token has expired: a new stream needs a new one.
    fn has_expired(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let delivery = self.delivery.as_ref()?;
            let (closing, drain) = (delivery.endpoint.closing.clone(), delivery.endpoint.drain.clone());
            let is_open = delivery.open.is_some();
            // After the answer nothing more may come; the end is awaited so that the connection can be used again.
            let wait = if self.outcome.is_some() { limits::STREAM_END } else { limits::KEEP_ALIVE };
            // An expired token ends a quiet stream too, and at once.
            let wait = self.until.map_or(wait, |until| wait.min(until.duration_since(Instant::now())));
            let next = tokio::select! {
                biased;
                () = closing.cancelled() => return self.end(Outcome::Unavailable),
                () = drain.ends(self.round), if is_open => return self.end(Outcome::Ok), // The client comes back elsewhere.
                () = due(&mut self.changes), if is_open => {
                    match self.changed() {
                        Ok(None) => continue,
                        Ok(announced) => return announced,
                        Err(reject) => return self.fail(&reject),
                    }
                }
                next = timeout(wait, self.upstream.next()) => next,
            };
            if self.has_expired() {
                return self.end(Outcome::Invalid);
            }
            let enforced = delivery.endpoint.force.load_full();
            if let Err(reject) = delivery.endpoint.check_link(enforced.as_ref().unwrap_or(&delivery.force)) {
                return self.fail(&reject);
            }
            match next {
                Err(_) if self.outcome.is_some() => return self.end(Outcome::Ok),
                Err(_) => return Some(COMMENT),
                Ok(None) => return self.end(if delivery.id.is_some() { Outcome::Unavailable } else { Outcome::Ok }),
                Ok(Some(Err(error))) => {
                    delivery.force.metrics.upstream_error(upstream_label(&error));
                    return self.fail(&error.into());
                }
                Ok(Some(Ok(event))) => match self.pass(event).await {
                    Ok(Some(bytes)) => return Some(bytes),
                    Ok(None) => {}
                    Err(reject) => return self.fail(&reject),
                },
            }
        }
    }

    /// What the caller is told of changed lists, if anything. A caller whose token would no longer be accepted is told
    /// nothing more: the stream ends.
    fn changed(&mut self) -> Result<Option<Bytes>, Reject> {
        let (Some(delivery), Some(changes)) = (&self.delivery, &mut self.changes) else { return Ok(None) };
        let (force, caller) = delivery.current();
        if !force.admits(&caller, &delivery.force) {
            return Err(Reject::malformed(UNAUTHENTICATED, "the token is not accepted any more"));
        }
        Ok(changes.compare(&force, &caller))
    }

    /// Ends the stream. `otherwise` is how it counts if no answer passed.
    fn end(&mut self, otherwise: Outcome) -> Option<Bytes> {
        let outcome = self.outcome.unwrap_or(otherwise);
        if let Some(delivery) = self.delivery.take() {
            delivery.record.finish(outcome);
        }
        None
    }

    /// Ends the stream with an error for the request that it belongs to.
    fn fail(&mut self, reject: &Reject) -> Option<Bytes> {
        let mut delivery = self.delivery.take()?;
        let unanswered = self.outcome.is_none();
        tracing::warn!(
            request_id = delivery.record.request_id(),
            server = %delivery.endpoint.name,
            error = reject.message,
            "an answer broke off"
        );
        let bytes = delivery.id.as_ref().filter(|_| unanswered).map(|id| {
            if let Some(session) = &delivery.session {
                session.take_purpose(id);
            }
            let reject = reject.clone().reached(Reached::Yes); // The server had begun to answer.
            sse::encode(&reject.body(Some(id), delivery.record.request_id()))
        });
        delivery.record.refused(reject);
        delivery.record.finish(self.outcome.unwrap_or(reject.outcome));
        bytes
    }

    /// What the client gets of one event, if anything.
    async fn pass(&mut self, event: Event) -> Result<Option<Bytes>, Reject> {
        let Some(delivery) = self.delivery.as_ref() else { return Ok(None) };
        if let (Some(session), Some(id)) = (&delivery.session, sse::id_of(&event)) {
            session.saw(id);
        }
        let Some(data) = event.data.clone() else { return Ok(Some(event.raw)) };
        let message = Envelope::parse_trusting(data).map_err(|error| garbage(&error.to_string()))?;
        if message.kind == Kind::Response {
            let Some((purpose, own)) = waiting(delivery, &message) else {
                tracing::warn!(server = %delivery.endpoint.name, "an answer that nobody waits for was dropped");
                return Ok(None);
            };
            let (bytes, outcome) = delivery.answer(&purpose, &message)?;
            if own {
                self.outcome = Some(outcome);
            }
            return Ok(Some(reframe(event, &message, &bytes)));
        }
        if self.outcome.is_some() {
            return Ok(None); // Nothing follows an answer on its stream.
        }
        self.unprompted(event, &message).await
    }

    async fn unprompted(&mut self, event: Event, message: &Envelope) -> Result<Option<Bytes>, Reject> {
        let Some(delivery) = self.delivery.as_ref() else { return Ok(None) };
        if message.kind == Kind::Notification && message.method.ends_with("/list_changed") {
            delivery.endpoint.changed.notify_one(); // A server over HTTP says it only to its sessions.
        }
        let (force, caller) = delivery.current();
        let (session, tasks) = (delivery.session.as_deref(), &delivery.endpoint.tasks);
        let mut fate = from_server::judge(message, delivery.era, &force, &caller, session, tasks);
        if message.kind == Kind::Request {
            let refused = match &fate {
                Fate::Pass => None,
                Fate::Drop(why) | Fate::Refuse(why) => Some(*why),
            };
            if delivery.record.server_request(&message.method, refused).await.is_err() {
                fate = Fate::Refuse("it cannot be recorded"); // What cannot be audited does not happen.
            }
        }
        match fate {
            Fate::Pass if message.method == ACKNOWLEDGED => {
                let acknowledged = self.changes.as_mut().and_then(|changes| changes.acknowledged(message.text()));
                let text = acknowledged.as_deref().unwrap_or(message.text());
                let clean = meta::strip_own(text);
                Ok(Some(match (clean, acknowledged) {
                    (Some(text), _) | (None, Some(text)) => sse::replace_data(&event, &text),
                    (None, None) => event.raw.clone(),
                }))
            }
            Fate::Pass => {
                let clean = meta::strip_own(message.text());
                Ok(Some(clean.map_or_else(|| event.raw.clone(), |text| sse::replace_data(&event, &text))))
            }
            Fate::Drop(why) => {
                tracing::warn!(server = %delivery.endpoint.name, method = message.method, why, "a message from the server was dropped");
                Ok(None)
            }
            Fate::Refuse(why) => {
                tracing::warn!(server = %delivery.endpoint.name, method = message.method, why, "a request from the server was refused");
                if let Some(id) = message.id() {
                    let refusal = from_server::refusal(id, why);
                    let sent = forward::refuse(&delivery.endpoint, &caller, delivery.session.as_deref(), refusal);
                    let _ = timeout(limits::STREAM_END, sent).await; // A server that does not listen is not waited for.
                }
                Ok(None)
            }
        }
    }
}

/// Waits until a comparison is due; for ever without one.
async fn due(changes: &mut Option<ListChanges>) {
    match changes {
        Some(changes) => changes.due().await,
        None => std::future::pending().await,
    }
}

/// What an answer on this stream is for, and whether it answers the stream's own request.
fn waiting(delivery: &Delivery, message: &Envelope) -> Option<(Purpose, bool)> {
    let id = message.id()?;
    match &delivery.id {
        Some(asked) if same_id(Some(id), asked) => {
            if let Some(session) = &delivery.session {
                session.take_purpose(asked);
            }
            Some((delivery.purpose.clone(), true))
        }
        _ => Some((delivery.session.as_ref()?.take_purpose(id)?, false)),
    }
}

fn reframe(event: Event, message: &Envelope, bytes: &Bytes) -> Bytes {
    if bytes == message.bytes() { event.raw } else { sse::replace_data(&event, &String::from_utf8_lossy(bytes)) }
}
