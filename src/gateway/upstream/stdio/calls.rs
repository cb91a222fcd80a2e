//! Who waits for what at one child: the ids, tokens and outstanding questions of both sides.
//!
//! Pure: it says where a message goes and how it reads there; sending is the caller's. Nothing of a message changes
//! but the id or token that is exchanged.
//!
//! A child is *pooled* if several parties use it. Then a message goes to a party only if it can belong to no other:
//! an abandoned call counts until its late answer arrives, because the child is still busy with it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::UpstreamError;
use super::log_level::Level;
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::fields;
use crate::gateway::protocol::json::{range_in, splice};
use crate::gateway::protocol::methods::{Asked as Question, from_server};

/// Calls in flight at one child.
const CALLS: usize = 1024;
/// Requests of one child that wait for an answer.
const ASKED: usize = 256;
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// Who sent a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Owner {
    /// A client session.
    Session(Arc<str>),
    /// A caller without a session.
    Caller(Arc<str>),
    /// Somebody who cannot be told from others: may call, but neither cancel nor be asked anything.
    Nobody,
}

impl Owner {
    fn is(&self, other: &Self) -> bool {
        self == other && *self != Self::Nobody
    }
}

/// Open calls and questions of one child. `S` is where the messages of a call go.
#[derive(Debug)]
pub(super) struct Calls<S> {
    era: Era,
    /// The one party that has the child for itself; `None`: it is pooled.
    tenant: Option<Owner>,
    /// How long an abandoned call is taken for running.
    patience: Duration,
    next: u64,
    open: BTreeMap<u64, Call<S>>,
    /// No call was abandoned before this; `None`: none is.
    abandoned: Option<Instant>,
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Call<S> {
    owner: Owner,
    /// The client's id, as JSON text.
    id: String,
    /// The client's progress token, as JSON text.
    token: Option<String>,
    /// The log messages that this one request wants (2026-07-28).
    level: Option<Level>,
    to: Waiting<S>,
}

#[derive(Debug)]
enum Waiting<S> {
    For(S),
    /// Nobody waits any more.
    Abandoned(Instant),
}

impl<S> Call<S> {
    fn sink(&self) -> Option<&S> {
        match &self.to {
            Waiting::For(sink) => Some(sink),
            Waiting::Abandoned(_) => None,
        }
    }
}

/// A request of the child that a client has to answer.
#[derive(Debug)]
struct Asked {
    /// Id as the client sees it, as JSON text.
    id: String,
    /// Id as the child gave it, as JSON text.
    original: String,
    owner: Owner,
    /// The call on whose stream it went.
    call: Option<u64>,
}

/// Where a message of the child goes.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Delivery<S> {
    /// The last message of a call, which is closed now.
    Last(S, String),
    /// A message on the stream of this call.
    Note(u64, S, String),
    /// On the streams of sessions.
    Sessions(Whose, String),
    /// An answer to the child itself.
    Back(String),
    /// Nowhere, and why.
    Dropped(&'static str),
}

/// Whose streams.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Whose {
    /// Every session of the child.
    All,
    /// Those that watch this resource.
    Watching(String),
}

impl<S: Clone> Calls<S> {
    pub(super) fn new(era: Era, tenant: Option<Owner>, patience: Duration) -> Self {
        Self { era, tenant, patience, next: 1, open: BTreeMap::new(), abandoned: None, asked: Vec::new() }
    }

    /// Whether several parties use the child.
    pub(super) fn pooled(&self) -> bool {
        self.tenant.is_none()
    }

    /// Opens a call. Returns its id at the child and the message with that id (and, pooled, as its progress token).
    pub(super) fn open(
        &mut self,
        owner: Owner,
        message: &Envelope,
        sink: S,
        now: Instant,
    ) -> Result<(u64, String), UpstreamError> {
        self.forget_old(now);
        if self.open.len() >= CALLS {
            return Err(UpstreamError::Exhausted("too many calls are in flight at this server"));
        }
        let (Some(id), Some(range)) = (message.id(), message.id_range()) else {
            return Err(UpstreamError::Garbage("a call without an id".to_owned())); // The caller sends requests only.
        };
        let own = self.next;
        self.next += 1;
        let mut edits = vec![(range, own.to_string())];
        let token = message.meta().and_then(|meta| member(message.text(), meta, "progressToken"));
        if let (true, Some((_, range))) = (self.pooled(), &token) {
            edits.push((range.clone(), own.to_string()));
        }
        let text = edited(message.text(), edits);
        let token = token.map(|(token, _)| token.to_owned());
        let level = match self.era {
            Era::Modern => message.meta().and_then(|meta| member(message.text(), meta, LEVEL)),
            Era::Legacy => None, // It is the session's.
        };
        let level = level.and_then(|(raw, _)| Level::parse(raw));
        self.open.insert(own, Call { owner, id: id.to_owned(), token, level, to: Waiting::For(sink) });
        Ok((own, text))
    }

    /// An id that no message had yet, for one of the gateway itself whose answer is of no use.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Whose call it is.
    pub(super) fn owner_of(&self, own: u64) -> Option<&Owner> {
        self.open.get(&own).map(|call| &call.owner)
    }

    /// Nobody waits for this call any more; its late answer will be dropped. What the child asked meanwhile may still
    /// be answered: a lost connection is no cancellation in the legacy era.
    pub(super) fn abandon(&mut self, own: u64, now: Instant) {
        if let Some(call) = self.open.get_mut(&own) {
            call.to = Waiting::Abandoned(now);
            self.abandoned.get_or_insert(now);
        }
    }

    /// A client's `notifications/cancelled`: the message for the child and where the call's messages went. `None` if
    /// no open call of this owner has the id.
    pub(super) fn cancel(&mut self, owner: &Owner, message: &Envelope, now: Instant) -> Option<(String, Option<S>)> {
        let (id, range) = member(message.text(), message.params()?, "requestId")?;
        let (own, call) = self.open.iter_mut().find(|(_, call)| call.owner.is(owner) && same(&call.id, id))?;
        let own = *own;
        let sink = call.sink().cloned();
        let text = edited(message.text(), vec![(range, own.to_string())]);
        self.abandon(own, now);
        self.asked.retain(|asked| asked.call != Some(own));
        Some((text, sink))
    }

    /// A client's answer to a request of the child, if that waits for one from this client.
    pub(super) fn answer(&mut self, owner: &Owner, message: &Envelope) -> Option<String> {
        let (id, range) = (message.id()?, message.id_range()?);
        let at = self.asked.iter().position(|asked| asked.owner.is(owner) && same(&asked.id, id))?;
        let asked = self.asked.swap_remove(at);
        Some(edited(message.text(), vec![(range, asked.original)]))
    }

    /// Closes everything, returning the calls that somebody waits for, and where their messages went.
    pub(super) fn drain(&mut self) -> Vec<(u64, S)> {
        self.asked.clear();
        let open = std::mem::take(&mut self.open);
        open.into_iter().filter_map(|(own, call)| Some((own, call.sink()?.clone()))).collect()
    }

    /// Whether no call is running as far as anybody knows.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.forget_old(now);
        self.open.is_empty()
    }

    /// Where a message of the child goes. `listening`: a session's own stream is open.
    pub(super) fn deliver(&mut self, message: &Envelope, listening: bool, now: Instant) -> Delivery<S> {
        self.forget_old(now);
        match message.kind {
            Kind::Response => self.response(message),
            Kind::Request => self.request(message, listening),
            Kind::Notification => self.notification(message, listening),
        }
    }

    /// Where a line goes that readers could take for different messages, so that its caller hears of it: as the answer
    /// to the call with this id, if that is clear and there is one, else as a notification. Nothing of it is read.
    pub(super) fn unclear(&mut self, id: Option<&str>, line: &str, listening: bool) -> Delivery<S> {
        match own_id(id).and_then(|own| self.open.remove(&own)) {
            Some(Call { to: Waiting::For(sink), .. }) => Delivery::Last(sink, line.to_owned()),
            Some(_) => Delivery::Dropped("a response that nobody waits for any more"),
            None => self.other(line, listening),
        }
    }

    fn response(&mut self, message: &Envelope) -> Delivery<S> {
        let (Some(own), Some(range)) = (own_id(message.id()), message.id_range()) else {
            return Delivery::Dropped("a response without an id of ours");
        };
        let Some(call) = self.open.remove(&own) else {
            return Delivery::Dropped("a response to an unknown id");
        };
        self.asked.retain(|asked| asked.call != Some(own));
        let Waiting::For(sink) = call.to else {
            return Delivery::Dropped("a response that nobody waits for any more");
        };
        let text = message.text();
        let mut edits = vec![(range, call.id.clone())];
        if self.era == Era::Modern
            && let Some((result, _)) = member(text, text, "result")
            && let Some(range) = subscription(text, result, own)
        {
            edits.push((range, call.id));
        }
        Delivery::Last(sink, edited(text, edits))
    }

    fn request(&mut self, message: &Envelope, listening: bool) -> Delivery<S> {
        let (Some(id), Some(range)) = (message.id(), message.id_range()) else {
            return Delivery::Dropped("a request without an id");
        };
        let question = from_server(&message.method);
        if question == Some(Question::Ping) {
            // It asks whether its client lives; on this pipe that is the gateway.
            return Delivery::Back(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        }
        let refuse = |code: i32, why: &str| {
            Delivery::Back(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{why}"}}}}"#))
        };
        if self.era == Era::Modern {
            return refuse(-32601, "servers send no requests since 2026-07-28");
        }
        if question.is_none() {
            return refuse(-32601, "this method is unknown to the gateway");
        }
        if self.asked.len() >= ASKED {
            return refuse(-32603, "too many requests wait for an answer");
        }
        let running = self.running().filter(|(_, call)| call.owner != Owner::Nobody);
        let (call, owner, sink) = match running {
            Some((own, call)) => (Some(own), call.owner.clone(), call.sink().cloned()),
            None => match &self.tenant {
                Some(tenant) if listening => (None, tenant.clone(), None),
                // Fail closed: a guess could show one caller's question to another.
                _ => return refuse(-32603, "no running call can be told to have caused this request"),
            },
        };
        let seen = if self.pooled() {
            self.next += 1;
            (self.next - 1).to_string()
        } else {
            id.to_owned()
        };
        let text =
            if self.pooled() { edited(message.text(), vec![(range, seen.clone())]) } else { message.text().to_owned() };
        self.asked.push(Asked { id: seen, original: id.to_owned(), owner, call });
        match (call, sink) {
            (Some(own), Some(sink)) => Delivery::Note(own, sink, text),
            _ => Delivery::Sessions(Whose::All, text),
        }
    }

    fn notification(&mut self, message: &Envelope, listening: bool) -> Delivery<S> {
        let text = message.text();
        if let Some(meta) = message.meta()
            && let Some((raw, range)) = member(text, meta, SUBSCRIPTION)
        {
            return match own_id(Some(raw)).and_then(|own| self.sink_of(own)) {
                Some((own, id, sink)) => Delivery::Note(own, sink, edited(text, vec![(range, id)])),
                None => Delivery::Dropped("a notification for an unknown subscription"),
            };
        }
        let params = message.params().unwrap_or("{}");
        match message.method.as_str() {
            "notifications/progress" => self.progress(text, params),
            "notifications/cancelled" => self.cancelled(text, params),
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => match self.era {
                Era::Legacy => Delivery::Sessions(Whose::All, text.to_owned()),
                Era::Modern => Delivery::Dropped("a notification without a subscription"),
            },
            "notifications/resources/updated" if self.pooled() => match (&message.uri, self.era) {
                (Some(uri), Era::Legacy) => Delivery::Sessions(Whose::Watching(uri.clone()), text.to_owned()),
                _ => Delivery::Dropped("an update without a subscription"),
            },
            "notifications/resources/updated" => Delivery::Sessions(Whose::All, text.to_owned()),
            "notifications/message" if self.era == Era::Modern => self.log(text, Level::of_message(params)),
            _ => self.other(text, listening),
        }
    }

    /// A log message since 2026-07-28: on the stream of a request that asked for one of its level, and no other.
    fn log(&self, text: &str, level: Level) -> Delivery<S> {
        if self.running().is_none() {
            return Delivery::Dropped("a log message that may belong to several callers");
        }
        let mut open = self.open.iter().filter(|(_, call)| call.level.is_some_and(|asked| level >= asked));
        match open.find_map(|(own, call)| Some((*own, call.sink()?))) {
            Some((own, sink)) => Delivery::Note(own, sink.clone(), text.to_owned()),
            None => Delivery::Dropped("a log message that no request asked for"),
        }
    }

    fn progress(&self, text: &str, params: &str) -> Delivery<S> {
        let Some((token, range)) = member(text, params, "progressToken") else {
            return Delivery::Dropped("progress without a token");
        };
        if self.pooled() {
            let found = own_id(Some(token)).and_then(|own| Some((own, self.open.get(&own)?)));
            return match found.and_then(|(own, call)| Some((own, call.sink()?, call.token.as_ref()?))) {
                Some((own, sink, token)) => {
                    Delivery::Note(own, sink.clone(), edited(text, vec![(range, token.clone())]))
                }
                None => Delivery::Dropped("progress of no running call"),
            };
        }
        let mut open = self.open.iter().filter_map(|(own, call)| Some((own, call.sink()?, call.token.as_ref()?)));
        match open.find(|(_, _, theirs)| same(theirs, token)) {
            Some((own, sink, _)) => Delivery::Note(*own, sink.clone(), text.to_owned()),
            None => Delivery::Sessions(Whose::All, text.to_owned()), // A task reports beyond its call.
        }
    }

    /// The child withdraws a question, or (modern) ends a subscription.
    fn cancelled(&mut self, text: &str, params: &str) -> Delivery<S> {
        let Some((id, range)) = member(text, params, "requestId") else {
            return Delivery::Dropped("a cancellation without an id");
        };
        if let Some(at) = self.asked.iter().position(|asked| same(&asked.original, id)) {
            let asked = self.asked.swap_remove(at);
            let text = edited(text, vec![(range, asked.id)]);
            return match asked.call.map(|own| self.sink_of(own)) {
                Some(Some((own, _, sink))) => Delivery::Note(own, sink, text),
                Some(None) => Delivery::Dropped("a cancellation for a call that is over"),
                None => Delivery::Sessions(Whose::All, text),
            };
        }
        match own_id(Some(id)).and_then(|own| self.open.remove(&own)) {
            Some(Call { id, to: Waiting::For(sink), .. }) => Delivery::Last(sink, edited(text, vec![(range, id)])),
            _ => Delivery::Dropped("a cancellation of an unknown id"),
        }
    }

    /// A notification that names no call: log messages and the like.
    fn other(&self, text: &str, listening: bool) -> Delivery<S> {
        if !self.pooled() && listening && self.open.len() != 1 {
            return Delivery::Sessions(Whose::All, text.to_owned());
        }
        match self.running().map(|(own, call)| (own, call.sink())) {
            Some((own, Some(sink))) => Delivery::Note(own, sink.clone(), text.to_owned()),
            _ if self.pooled() => Delivery::Dropped("a notification that may belong to several callers"),
            _ => Delivery::Sessions(Whose::All, text.to_owned()),
        }
    }

    /// The oldest call that somebody waits for. In a pool only if every call is of the same party.
    fn running(&self) -> Option<(u64, &Call<S>)> {
        let mut calls = self.open.values();
        let first = calls.next()?;
        if self.pooled() && !calls.all(|call| call.owner.is(&first.owner)) {
            return None;
        }
        self.open.iter().find(|(_, call)| call.sink().is_some()).map(|(own, call)| (*own, call))
    }

    fn sink_of(&self, own: u64) -> Option<(u64, String, S)> {
        let call = self.open.get(&own)?;
        Some((own, call.id.clone(), call.sink()?.clone()))
    }

    fn forget_old(&mut self, now: Instant) {
        let patience = self.patience;
        let is_old = |since: Instant| now.saturating_duration_since(since) >= patience;
        if !self.abandoned.is_some_and(is_old) {
            return; // So the usual message costs no walk over all calls.
        }
        let mut oldest: Option<Instant> = None;
        self.open.retain(|_, call| match call.to {
            Waiting::For(_) => true,
            Waiting::Abandoned(since) => {
                let stays = !is_old(since);
                if stays {
                    oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
                }
                stays
            }
        });
        self.abandoned = oldest;
        let open = &self.open;
        self.asked.retain(|asked| asked.call.is_none_or(|own| open.contains_key(&own)));
    }
}

/// An id that we gave: our ids are plain positive integers.
fn own_id(raw: Option<&str>) -> Option<u64> {
    raw?.parse().ok()
}

/// Whether two ids or tokens are equal, however their strings are escaped.
fn same(one: &str, other: &str) -> bool {
    let decoded = |raw: &str| serde_json::from_str::<String>(raw).ok();
    one == other || (one.starts_with('"') && decoded(one).is_some_and(|one| Some(one) == decoded(other)))
}

/// A member of `object`, which is part of `text`, and where its value lies in `text`.
fn member<'a>(text: &str, object: &'a str, key: &'static str) -> Option<(&'a str, Range<usize>)> {
    let [found] = fields::read(object, &[key]).ok()?;
    let raw = found?.get();
    Some((raw, range_in(text, raw)))
}

/// Where the subscription id of a result lies, if it is ours.
fn subscription(text: &str, result: &str, own: u64) -> Option<Range<usize>> {
    let (meta, _) = member(text, result, "_meta")?;
    let (raw, range) = member(text, meta, SUBSCRIPTION)?;
    (own_id(Some(raw)) == Some(own)).then_some(range)
}

fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    splice(text, &edits)
}

#[cfg(test)]
mod tests;
