//! One running child: messages go in, its lines are delivered to those they belong to, and its end fails what waits.
//!
//! Owns the pipes and the table of calls. Knows neither sessions' lifetimes nor when to start another child.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::{Mutex, MutexGuard};
use serde_json::value::RawValue;
use tokio::sync::mpsc::Permit;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::calls::{Calls, Delivery, Owner, Whose};
use super::life::{self, Exit, printable};
use super::log_level::Level;
use super::mailbox::Mailbox;
use super::process::{Pipes, Process};
use super::queue::{Measured, Sink, Source, bounded};
use super::shared::Wishes;
use super::ticket::{Ticket, answers};
use super::wire::frame;
use super::{Bounds, Content, Event, EventStream, Loss, UpstreamError};
use crate::gateway::memory;
use crate::gateway::protocol::envelope::{Envelope, Invalid, Kind};
use crate::gateway::protocol::era::Era;

/// Messages that wait for one child to read them.
const TO_CHILD: usize = 64;
/// Messages of one call that wait for its client to read them; together they are no larger than one may be.
const TO_CLIENT: usize = 256;
/// Lines that are no messages, reported as warnings; further ones only when debugging.
const WARNINGS: u32 = 10;

/// A running child process.
pub(super) struct Child {
    pub(super) name: Arc<str>,
    pub(super) era: Era,
    pub(super) bounds: Bounds,
    lines: mpsc::Sender<Queued>,
    pub(super) state: Mutex<State>,
    odd_lines: AtomicU32,
    changed: Arc<Notify>,
}

/// What a child is busy with, and for whom.
pub(super) struct State {
    pub(super) calls: Calls<Sink<Out>>,
    /// What the sessions of a shared child want of it.
    pub(super) wishes: Wishes,
    /// Streams of the sessions that use this child.
    mailboxes: HashMap<Arc<str>, Mailbox>,
    ended: Option<End>,
    used: Instant,
    /// When a client last had something to say, or got an answer.
    asked: Instant,
}

/// What a call receives.
pub(super) enum Out {
    /// A message before the last one.
    Note(Bytes),
    /// The last message.
    Last(Bytes),
    /// The client cancelled it: nothing follows.
    Cancelled,
    /// The child ended.
    Failed(Failure),
}

/// A line on its way to a child.
pub(super) struct Queued {
    pub(super) line: Bytes,
    /// The call that it begins.
    pub(super) call: Option<u64>,
}

/// How the child's end concerns one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    end: End,
    /// Nothing of the call was written to the child.
    is_unsent: bool,
}

impl Measured for Out {
    fn bytes(&self) -> usize {
        match self {
            Self::Note(message) | Self::Last(message) => message.len(),
            Self::Cancelled | Self::Failed(_) => 0,
        }
    }
}

/// Why a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// It closed its output, exited, or was asked to end.
    Gone,
    /// It wrote a line beyond the limit.
    TooLarge,
    /// It was idle, and gives its place to another one.
    Parked,
}

impl Child {
    /// Takes over a started process. The returned future is the child's life: it must be polled until it is done,
    /// which is when nothing of the process is left. `stop` ends it.
    pub(super) fn new(
        name: Arc<str>,
        (process, pipes): (Process, Pipes),
        (era, tenant): (Era, Option<Owner>),
        bounds: Bounds,
        changed: Arc<Notify>,
        stop: CancellationToken,
    ) -> (Arc<Self>, impl Future<Output = Exit> + Send + 'static) {
        let (lines, queue) = mpsc::channel(TO_CHILD);
        let state = State {
            calls: Calls::new(era, tenant, bounds.idle),
            wishes: Wishes::default(),
            mailboxes: HashMap::new(),
            ended: None,
            used: Instant::now(),
            asked: Instant::now(),
        };
        let (state, odd_lines) = (Mutex::new(state), AtomicU32::new(0));
        let child = Arc::new(Self { name, era, bounds, lines, state, odd_lines, changed });
        let life = life::live(child.clone(), process, pipes, queue, stop);
        (child, life)
    }

    /// Whether it can take no more calls.
    pub(super) fn has_ended(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// When it was last used, unless it is in use: a call is running or a session listens.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let idle = state.calls.is_idle(Instant::now()) && !state.mailboxes.values().any(Mailbox::is_open);
        idle.then_some(state.used)
    }

    /// Since when no client has used it; `None` while a call runs. Who merely listens does not use it, nor does what it
    /// says by itself: else it would be kept for whoever does nothing.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        (state.calls.is_idle(Instant::now()) && state.ended.is_none()).then_some(state.asked)
    }

    /// Takes no more calls, if no client has used it for `idle`: nothing that comes from now on reaches it.
    pub(super) fn park(&self, idle: Duration, now: Instant) -> bool {
        let mut state = self.state.lock();
        let parks =
            state.ended.is_none() && state.calls.is_idle(now) && now.saturating_duration_since(state.asked) >= idle;
        if parks {
            state.ended = Some(End::Parked);
        }
        parks
    }

    /// What its end was for a session that used it.
    pub(super) fn loss(&self) -> Loss {
        match self.state.lock().ended {
            Some(End::Parked) => Loss::Parked,
            Some(End::Gone | End::TooLarge) | None => Loss::Ended,
        }
    }

    /// Sends a request and waits at most `wait` for the first message that comes back.
    pub(super) async fn call(
        self: &Arc<Self>,
        owner: Owner,
        message: &Envelope,
        wait: Duration,
    ) -> Result<Content, UpstreamError> {
        // The place in the queue comes first: whoever waits for one has no call yet that could be taken for running.
        let room = self.room().await?;
        let (own, source) = {
            let mut state = self.state.lock();
            state.check()?;
            self.open(&mut state, owner, message, room)?
        };
        // A subscription is quiet until something happens; that its server lives is known from the process.
        let quiet = message.method == "subscriptions/listen";
        self.first(own, source, quiet, wait).await
    }

    /// Opens a call and queues its message, in one step: calls reach the child in the order of their ids.
    pub(super) fn open(
        &self,
        state: &mut State,
        owner: Owner,
        message: &Envelope,
        room: Permit<'_, Queued>,
    ) -> Result<(u64, Source<Out>), UpstreamError> {
        let (sink, source) = bounded(TO_CLIENT, self.bounds.message);
        let (own, text) = state.calls.open(owner, message, sink, Instant::now())?;
        room.send(Queued { line: frame(text), call: Some(own) });
        Ok((own, source))
    }

    /// Waits at most `wait` for the first message of a call.
    pub(super) async fn first(
        self: &Arc<Self>,
        own: u64,
        mut source: Source<Out>,
        quiet: bool,
        wait: Duration,
    ) -> Result<Content, UpstreamError> {
        let mut ticket = Ticket { child: self.clone(), own, over: false };
        let Ok(first) = timeout(wait, source.next()).await else {
            ticket.cancel();
            return Err(UpstreamError::Timeout);
        };
        match first {
            Some(Out::Last(message)) => {
                ticket.over = true;
                Ok(Content::Json(message))
            }
            Some(Out::Note(message)) => {
                let idle = (!quiet).then_some(self.bounds.idle);
                Ok(Content::Events(answers(message, source, ticket, idle)))
            }
            Some(Out::Cancelled) => Ok(Content::Events(Box::pin(futures::stream::empty()))),
            Some(Out::Failed(failure)) => Err(self.error(failure)),
            None => Err(UpstreamError::Gone),
        }
    }

    /// Asks for the gateway itself: the last message alone counts.
    pub(super) async fn ask(self: &Arc<Self>, message: &Envelope, wait: Duration) -> Result<Bytes, UpstreamError> {
        let answer = async {
            match self.call(Owner::Nobody, message, wait).await? {
                Content::Json(message) => Ok(message),
                Content::Events(mut events) => {
                    let mut last = None;
                    while let Some(event) = events.next().await {
                        last = event?.data;
                    }
                    last.ok_or(UpstreamError::Gone)
                }
                Content::Empty | Content::Opaque(_) => Err(UpstreamError::Gone),
            }
        };
        timeout(wait, answer).await.map_err(|_| UpstreamError::Timeout)?
    }

    /// Sends a message that has no answer.
    pub(super) async fn notify(&self, message: String) -> Result<(), UpstreamError> {
        self.state.lock().check()?;
        self.write(message).await
    }

    /// Passes a client's cancellation on, if it names a running call of this owner.
    pub(super) async fn cancel(&self, owner: &Owner, message: &Envelope) -> Result<(), UpstreamError> {
        let cancelled = self.state.lock().calls.cancel(owner, message, Instant::now());
        let Some((text, sink)) = cancelled else {
            return Ok(()); // The answer has crossed it, or it is not this caller's call.
        };
        if let Some(sink) = sink {
            let _ = sink.push(Out::Cancelled);
        }
        self.write(text).await
    }

    /// Passes a client's answer on, if the child waits for it from this owner.
    pub(super) async fn answer(&self, owner: &Owner, message: &Envelope) -> Result<(), UpstreamError> {
        let answer = self.state.lock().calls.answer(owner, message);
        if let Some(text) = answer {
            return self.write(text).await;
        }
        tracing::debug!(server = %self.name, "an answer that nobody asked for was dropped");
        Ok(())
    }

    /// Opens a session's own stream. It ends with [`UpstreamError::Lost`] if the child does.
    pub(super) fn listen(self: &Arc<Self>, session: &Arc<str>) -> Result<EventStream, UpstreamError> {
        let mut state = self.state.lock();
        state.check()?;
        let messages = state.mailbox(session).open();
        drop(state);
        let state = Some((messages, self.clone()));
        Ok(Box::pin(futures::stream::unfold(state, |state| async move {
            let (mut messages, child) = state?;
            match messages.next().await {
                Some(message) => Some((Ok(Event::message(message)), Some((messages, child)))),
                None if child.has_ended() => Some((Err(UpstreamError::Lost(child.loss())), None)),
                None => None, // Another stream took its place, or it was read too slowly.
            }
        })))
    }

    /// A session begins to use this child.
    pub(super) fn join(self: &Arc<Self>, session: &Arc<str>) {
        let mut state = self.state.lock();
        state.mailbox(session);
        state.wishes.join(session);
        drop(state);
        self.settle(); // It wants more of the log, perhaps, than those before it.
    }

    /// A session is over.
    pub(super) fn leave(self: &Arc<Self>, session: &Arc<str>) {
        let mut state = self.state.lock();
        state.mailboxes.remove(session);
        state.wishes.leave(session);
        drop(state);
        self.settle();
    }

    /// Whether a session's own stream is open.
    pub(super) fn is_heard_by(&self, session: &Arc<str>) -> bool {
        self.state.lock().mailboxes.get(session).is_some_and(Mailbox::is_open)
    }

    /// Queues a message that begins no call.
    async fn write(&self, message: String) -> Result<(), UpstreamError> {
        self.room().await?.send(Queued { line: frame(message), call: None });
        Ok(())
    }

    /// A place in the queue to the child. On an error nothing reaches it.
    pub(super) async fn room(&self) -> Result<Permit<'_, Queued>, UpstreamError> {
        match timeout(self.bounds.write, self.lines.reserve()).await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(UpstreamError::Unsent),
            Err(_) => Err(UpstreamError::Exhausted("the server does not read its input")),
        }
    }

    /// Delivers one line of the child.
    pub(super) fn receive(&self, line: &Bytes) {
        if line.is_empty() {
            return;
        }
        let message = match Envelope::parse_trusting(line.clone()) {
            Ok(message) => message,
            Err(error) => {
                self.report_odd(line, &error.to_string());
                if !error.is_foreign() {
                    self.hand_on(line, &error);
                }
                return;
            }
        };
        if message.kind == Kind::Notification && message.method.ends_with("/list_changed") {
            self.changed.notify_one(); // Whether or not a session listens.
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        state.used = now;
        // It matters only to a session's own child, which has one mailbox.
        let listening = state.mailboxes.len() == 1 && state.mailboxes.values().all(Mailbox::is_open);
        let delivery = state.calls.deliver(&message, listening, now);
        if matches!(delivery, Delivery::Note(own, ..) if !state.may_log(own, &message)) {
            return; // Its caller did not ask for such a log message.
        }
        self.route(state, delivery, now);
    }

    /// Hands on what readers could take for different messages, to whom it would belong: there it is refused, and its
    /// caller gets an error.
    fn hand_on(&self, line: &Bytes, error: &Invalid) {
        let id = if let Invalid::Unclear(id, _) = error { id.as_deref() } else { None };
        let mut state = self.state.lock();
        let now = Instant::now();
        let listening = state.mailboxes.len() == 1 && state.mailboxes.values().all(Mailbox::is_open);
        let text = String::from_utf8_lossy(line);
        let delivery = state.calls.unclear(id.map(RawValue::get), &text, listening);
        self.route(state, delivery, now);
    }

    fn route(&self, mut state: MutexGuard<'_, State>, delivery: Delivery<Sink<Out>>, now: Instant) {
        match delivery {
            Delivery::Last(sink, text) => {
                state.asked = now;
                // A full queue has lost messages already: the client sees a stream that ends too early.
                let _ = sink.push(Out::Last(self.held(text)));
            }
            Delivery::Note(own, sink, text) => {
                if sink.push(Out::Note(self.held(text))).is_err() {
                    // Its client reads too slowly. Nobody else may wait for it: the stream ends.
                    state.calls.abandon(own, now);
                    drop(state);
                    self.push(cancelled(own, "the client does not read"));
                }
            }
            Delivery::Sessions(whose, text) => {
                let message = self.held(text);
                let State { mailboxes, wishes, .. } = &mut *state;
                for (session, mailbox) in mailboxes {
                    if matches!(&whose, Whose::Watching(uri) if !wishes.watchers.watches(session, uri)) {
                        continue;
                    }
                    mailbox.post(message.clone());
                }
            }
            Delivery::Back(text) => {
                drop(state);
                self.push(text);
            }
            Delivery::Dropped(why) => {
                tracing::debug!(server = %self.name, why, "a message of the server was dropped");
            }
        }
    }

    /// A message on its way to a client, held until it is written there. Its line was held before it was read.
    fn held(&self, message: String) -> Bytes {
        let mut hold = memory::budget().hold(memory::Owner::Server(self.name.clone()));
        hold.take_over(message.len());
        hold.attach(message.into())
    }

    /// Sends without waiting: the reader of a child must never wait for its writer.
    pub(super) fn push(&self, message: String) {
        if self.lines.try_send(Queued { line: frame(message), call: None }).is_err() {
            tracing::debug!(server = %self.name, "a message for the server was dropped: it does not read");
        }
    }

    /// Servers that print to standard output are common: what is no message is logged and dropped.
    pub(super) fn report_odd(&self, line: &[u8], why: &str) {
        let line = printable(line.get(..200).unwrap_or(line));
        if self.odd_lines.fetch_add(1, Ordering::Relaxed) < WARNINGS {
            tracing::warn!(server = %self.name, why, line, "the server wrote a line that is no message");
        } else {
            tracing::debug!(server = %self.name, why, line, "the server wrote a line that is no message");
        }
    }

    /// Takes no more calls, and fails those that wait. `unsent` are calls whose line was never written.
    pub(super) fn end(&self, end: End, unsent: &HashSet<u64>) {
        let mut state = self.state.lock();
        let end = *state.ended.get_or_insert(end);
        for (own, sink) in state.calls.drain() {
            let _ = sink.push(Out::Failed(Failure { end, is_unsent: unsent.contains(&own) }));
        }
        state.mailboxes.clear();
    }

    pub(super) fn error(&self, failure: Failure) -> UpstreamError {
        match failure.end {
            _ if failure.is_unsent => UpstreamError::Unsent,
            End::Gone | End::Parked => UpstreamError::Gone,
            End::TooLarge => UpstreamError::TooLarge(self.bounds.message),
        }
    }
}

impl State {
    pub(super) fn check(&mut self) -> Result<(), UpstreamError> {
        self.used = Instant::now();
        self.asked = self.used;
        if self.ended.is_some() { Err(UpstreamError::Unsent) } else { Ok(()) }
    }

    /// Whether the caller of this call wants a log message of this level. Of a child of its own it said so itself.
    fn may_log(&self, own: u64, message: &Envelope) -> bool {
        if message.method != "notifications/message" || !self.calls.pooled() {
            return true;
        }
        let session = match self.calls.owner_of(own) {
            Some(Owner::Session(session)) => Some(&**session),
            Some(Owner::Caller(_) | Owner::Nobody) | None => None,
        };
        self.wishes.levels.admits(session, Level::of_message(message.params().unwrap_or("{}")))
    }

    fn mailbox(&mut self, session: &Arc<str>) -> &mut Mailbox {
        self.mailboxes.entry(session.clone()).or_default()
    }
}

/// What tells a child that nobody waits for a call any more.
pub(super) fn cancelled(own: u64, reason: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{own},"reason":"{reason}"}}}}"#
    )
}
