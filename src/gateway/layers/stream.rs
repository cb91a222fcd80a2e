//! An answer that is a stream: each complete message is judged by itself, and framed anew with its event id.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, timeout};

use super::deliver::{Delivery, Purpose, error_code, garbage, same_id};
use super::forward;
use super::from_server::{self, Fate};
use super::list_changes::ListChanges;
use crate::gateway::audit::Outcome;
use crate::gateway::limits;
use crate::gateway::memory::Hold;
use crate::gateway::protocol::envelope::{Envelope, Invalid, Kind};
use crate::gateway::protocol::error::{Reject, UNAUTHENTICATED, upstream_label};
use crate::gateway::protocol::id::Id;
use crate::gateway::protocol::meta;
use crate::gateway::protocol::methods::List;
use crate::gateway::protocol::sse;
use crate::gateway::upstream::{Event, EventStream, Reached, UpstreamError};

/// The first message of a listen stream (2026-07-28).
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// What the audit log calls a message that has no method, or none that is clear.
const ANSWER: &str = "answer";

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
    /// Why something was skipped, first.
    skipped: Option<String>,
    /// The client knows an event from which it can go on.
    resumable: bool,
    /// Memory for the event that the client gets, until it asks for the next one.
    room: Option<Hold>,
}

/// What the client gets of an event stream.
pub(super) fn events(delivery: Delivery, upstream: EventStream) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
    let until = delivery.caller.expires_in().map(|left| Instant::now() + left);
    let round = delivery.endpoint.drain.round();
    let changes = delivery.subscription.clone().map(|subscription| {
        ListChanges::new(subscription, &delivery.endpoint, delivery.force.clone(), &delivery.caller)
    });
    let state = State {
        delivery: Some(delivery),
        upstream,
        until,
        round,
        outcome: None,
        changes,
        skipped: None,
        resumable: false,
        room: None,
    };
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
        self.room = None;
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
            if let Err(reject) = delivery.endpoint.check_link(&delivery.endpoint.enforced(&delivery.force)) {
                return self.fail(&reject);
            }
            match next {
                Err(_) if self.outcome.is_some() => return self.end(Outcome::Ok),
                Err(_) => return Some(COMMENT),
                Ok(None) if self.is_lost() => {
                    let skipped = self.skipped.take().unwrap_or_default();
                    return self
                        .fail(&garbage(&format!("no answer in its stream, where something was skipped: {skipped}")));
                }
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
        Ok(changes.compare(&delivery.endpoint.listings, &force, &caller))
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
            delivery.answered();
            let reject = reject.clone().reached(Reached::Yes); // The server had begun to answer.
            sse::encode(&reject.body(Some(id), delivery.record.request_id()))
        });
        delivery.record.because(reject);
        if bytes.is_some() {
            delivery.record.answered(Some(reject.code)); // Its status went out with the head.
        }
        delivery.record.finish(self.outcome.unwrap_or(reject.outcome));
        bytes
    }

    /// What the client gets of one event, if anything.
    async fn pass(&mut self, event: Event) -> Result<Option<Bytes>, Reject> {
        let Some(delivery) = self.delivery.as_ref() else { return Ok(None) };
        if let (Some(session), Some(id)) = (&delivery.session, event.id.as_ref().filter(|id| !id.is_empty())) {
            session.saw(id);
            self.resumable = true;
        }
        if event.is_empty() {
            let plain = event.id.is_none() && event.retry.is_none() && event.data.is_none();
            return Ok(Some(if plain { COMMENT } else { sse::frame(&event, "") }));
        }
        if !event.is_message() {
            self.skip("an event of another name than message");
            return Ok(None); // To its client it is no message, and to a lenient one it must not become one.
        }
        let message = match parse(&event) {
            Ok(message) => message,
            Err(error) if error.is_foreign() => {
                self.skip(&error.to_string());
                return Ok(None);
            }
            Err(error) => return self.unclear(&error).await,
        };
        if message.kind == Kind::Response {
            return self.response(&event, &message).await;
        }
        if self.outcome.is_some() {
            return Ok(None); // Nothing follows an answer on its stream.
        }
        self.unprompted(event, &message).await
    }

    /// What the client gets of an answer.
    async fn response(&mut self, event: &Event, message: &Envelope) -> Result<Option<Bytes>, Reject> {
        let Some(delivery) = self.delivery.as_ref() else { return Ok(None) };
        let Some((purpose, own)) = waiting(delivery, message) else {
            tracing::warn!(server = %delivery.endpoint.name, "an answer that nobody waits for was dropped");
            return Ok(None);
        };
        // Twice: the message, and the event that it is put in.
        let mut room = delivery.room(message.bytes().len().saturating_mul(2)).await.map_err(UpstreamError::from)?;
        let text = match delivery.answer(&purpose, message) {
            Ok((bytes, outcome)) => {
                if own && let Some(delivery) = &mut self.delivery {
                    delivery.answered();
                    delivery.record.answered(error_code(message));
                    self.outcome = Some(outcome);
                }
                bytes
            }
            Err(reject) if own => return Err(reject),
            // The request that it answers has an error; this stream is another's.
            Err(reject) => {
                let _ = delivery.record.server_request(ANSWER, Some(&reject.message)).await; // It is refused either way.
                reject.body(message.id(), delivery.record.request_id()).into()
            }
        };
        room.shrink(text.len());
        self.room = Some(room);
        let text = std::str::from_utf8(&text).unwrap_or_default(); // It was parsed: it is UTF-8.
        Ok(Some(sse::frame(event, text)))
    }

    /// Refuses what readers could take for different messages. It may be the answer that is waited for.
    async fn unclear(&mut self, error: &Invalid) -> Result<Option<Bytes>, Reject> {
        let Some(delivery) = self.delivery.as_ref() else { return Ok(None) };
        if delivery.id.is_some() && self.outcome.is_none() {
            return Err(garbage(&error.to_string()));
        }
        tracing::warn!(server = %delivery.endpoint.name, %error, "a message from the server was dropped");
        let _ = delivery.record.server_request(ANSWER, Some(&error.to_string())).await; // It is dropped either way.
        Ok(None)
    }

    /// Passes over what is no message, and says so once.
    fn skip(&mut self, why: &str) {
        let (None, Some(delivery)) = (&self.skipped, &self.delivery) else { return };
        tracing::warn!(server = %delivery.endpoint.name, why, "the server's stream holds what is no message; further ones are not reported");
        self.skipped = Some(why.to_owned());
    }

    /// Whether the answer can come no more, and may have been among what was skipped.
    fn is_lost(&self) -> bool {
        let waits = self.delivery.as_ref().is_some_and(|delivery| delivery.id.is_some()) && self.outcome.is_none();
        waits && self.skipped.is_some() && !self.resumable
    }

    async fn unprompted(&mut self, event: Event, message: &Envelope) -> Result<Option<Bytes>, Reject> {
        let Some(delivery) = self.delivery.as_ref() else { return Ok(None) };
        if message.kind == Kind::Notification && message.method.ends_with("/list_changed") {
            delivery.endpoint.changed.notify_one(); // A server over HTTP says it only to its sessions.
        }
        let (force, caller) = delivery.current();
        let (session, tasks) = (delivery.session.as_deref(), &delivery.endpoint.tasks);
        let mut fate = from_server::judge(message, delivery.era, &force, &caller, session, tasks);
        if message.kind == Kind::Request || from_server::is_unclear(message) {
            let refused = match &fate {
                Fate::Pass => None,
                Fate::Drop(why) | Fate::Refuse(why) => Some(*why),
            };
            if delivery.record.server_request(&message.method, refused).await.is_err() {
                fate = Fate::Refuse("it cannot be recorded"); // What cannot be audited does not happen.
            }
        }
        if matches!(fate, Fate::Pass | Fate::Drop(from_server::ASKS))
            && let Some(requests) = from_server::asked_of(message)
            && delivery.record_input_requests(requests).is_err()
        {
            fate = Fate::Drop("what it asks is not allowed, or cannot be recorded");
        }
        match fate {
            Fate::Pass if message.method == ACKNOWLEDGED => {
                let acknowledged = self.changes.as_mut().and_then(|changes| changes.acknowledged(message.text()));
                let text = acknowledged.as_deref().unwrap_or_else(|| message.text());
                let clean = meta::strip_own(text);
                Ok(Some(sse::frame(&event, clean.as_deref().unwrap_or(text))))
            }
            Fate::Pass => {
                let clean = meta::strip_own(message.text());
                Ok(Some(sse::frame(&event, clean.as_deref().unwrap_or_else(|| message.text()))))
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

/// The message in an event. The standard decodes UTF-8 with replacement characters.
fn parse(event: &Event) -> Result<Envelope, Invalid> {
    let data = event.data.clone().unwrap_or_default();
    match Envelope::parse_trusting(data.clone()) {
        Err(Invalid::Parse(_)) if std::str::from_utf8(&data).is_err() => {
            Envelope::parse_trusting(String::from_utf8_lossy(&data).into_owned().into())
        }
        parsed => parsed,
    }
}

/// What an answer on this stream is for, and whether it answers the stream's own request.
fn waiting(delivery: &Delivery, message: &Envelope) -> Option<(Purpose, bool)> {
    let id = message.id()?;
    if delivery.id.as_ref().is_some_and(|asked| same_id(Some(id), asked)) {
        return Some((delivery.purpose.clone(), true));
    }
    let purpose = delivery.session.as_ref()?.pending.lock().take(&Id::of(id))?;
    // An id says little: it may have been used before, and forgotten. A list goes only to whom it is filtered for.
    let holds = |list: List| message.result().is_some_and(|result| list.is_in(result));
    let is_of = |wanted: List| matches!(purpose, Purpose::List { list, .. } if list == wanted);
    let is_other = List::ALL.into_iter().any(|list| holds(list) && !is_of(list));
    (!is_other).then_some((purpose, false))
}
