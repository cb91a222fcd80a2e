//! A session whose server's side is gone is begun anew: `initialize` as its client sent it, the log level and the
//! subscriptions go to the server again, and the server's new session takes the place of the old one.
//!
//! Today's clients do not initialize again after 404, so a session must outlive its server's process. Owns the
//! server's side of a session and its replacement; nothing of a call is sent from here. What is replayed is audited
//! first, and is bounded in time, in bytes and in how often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::remembered::{self, Remembered};
use super::session::Session;
use crate::gateway::audit::{Audit, Event, Outcome, Record};
use crate::gateway::endpoint::{Caller, Endpoint, Force};
use crate::gateway::limits;
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::error::Reject;
use crate::gateway::protocol::headers::VERSION;
use crate::gateway::upstream::{Content, Loss, Outbound, Reached, Reply, Upstream, UpstreamError, Verb};
use crate::policy::snapshot::OnLoss;
use crate::policy::{Item, SubjectView};

/// Time between two attempts to reach a server that is just starting.
const STEP: Duration = Duration::from_millis(100);
/// First time between two times that a server's forgetting is followed; it doubles.
const FIRST: Duration = Duration::from_millis(250);
/// A session that was not begun anew for so long is one that its server keeps.
const KEPT: Duration = Duration::from_mins(1);
/// Subscriptions that are asked for at once.
const AT_ONCE: usize = 4;

/// The server's side of one session.
pub(in crate::gateway) struct Life {
    /// The server's own id.
    upstream: Mutex<Arc<str>>,
    remembered: Mutex<Remembered>,
    /// How often it was begun anew.
    renewed: watch::Sender<u64>,
    why: Mutex<&'static str>,
    /// Of how many of these the client knows.
    told: AtomicU64,
    /// The session has ended.
    over: CancellationToken,
    attempt: tokio::sync::Mutex<Attempt>,
}

#[derive(Default)]
struct Attempt {
    /// When the last one failed, and how: for those who waited for it.
    failed: Option<(Instant, Reject)>,
    pace: Pace,
}

impl Life {
    pub(in crate::gateway) fn new(upstream: Arc<str>, initialize: Option<&Envelope>) -> Self {
        Self {
            upstream: Mutex::new(upstream),
            remembered: Mutex::new(Remembered::new(initialize)),
            renewed: watch::Sender::new(0),
            why: Mutex::new(""),
            told: AtomicU64::new(0),
            over: CancellationToken::new(),
            attempt: tokio::sync::Mutex::default(),
        }
    }

    /// The server's own session id, as of now.
    pub(in crate::gateway) fn upstream(&self) -> Arc<str> {
        self.upstream.lock().clone()
    }

    /// Remembers what the server agreed to (JSON text of the result of `initialize`).
    pub(in crate::gateway) fn agreed(&self, result: &str) {
        self.remembered.lock().agreed(result);
    }

    /// Remembers a message that is about to be sent, if it outlives the server's process.
    pub(in crate::gateway) fn note(&self, message: &Envelope) {
        // Calls of tools, which come by the thousand, are nothing to remember.
        if message.method.starts_with("notifications/")
            || message.method.starts_with("logging/")
            || message.method.starts_with("resources/")
        {
            self.remembered.lock().note(message);
        }
    }

    /// The session has ended: its streams end, and nobody begins it anew.
    pub(in crate::gateway) fn end(&self) {
        self.over.cancel();
    }

    /// Completes when the session has ended.
    pub(in crate::gateway) async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Whether the session has ended.
    pub(in crate::gateway) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Counts how often it was begun anew.
    pub(in crate::gateway) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// What its client must hear now, once.
    pub(in crate::gateway) fn notices(&self) -> Vec<String> {
        let renewed = *self.renewed.borrow();
        if self.told.swap(renewed, Ordering::Relaxed) == renewed {
            return Vec::new();
        }
        self.remembered.lock().notices(*self.why.lock())
    }

    /// The headers of a message of the gateway's own in this session.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let version = self.remembered.lock().version().and_then(|version| HeaderValue::from_str(version).ok());
        if let Some(version) = version {
            headers.insert(VERSION, version);
        }
        headers
    }
}

/// Whether the sessions of this server are begun anew.
pub(in crate::gateway) fn is_on(endpoint: &Endpoint) -> bool {
    endpoint.force.load().as_ref().is_some_and(|force| force.policy.snapshot().on_loss == OnLoss::Replay)
}

/// Ends the server's side of a session that is over. Whether the server agrees changes nothing.
pub(in crate::gateway) async fn end_upstream(endpoint: &Endpoint, session: &Session) {
    session.life.end();
    let outbound = Outbound {
        verb: Verb::Delete,
        era: Era::Legacy,
        caller: None,
        session: Some(session.life.upstream()),
        headers: session.life.headers(),
    };
    if !matches!(timeout(limits::STREAM_END, endpoint.upstream.send(outbound)).await, Ok(Ok(_))) {
        tracing::debug!(server = %endpoint.name, "a session that is over was not ended at its server");
    }
}

/// What it takes to begin a session anew.
#[derive(Clone)]
pub(in crate::gateway) struct Anew {
    pub(in crate::gateway) endpoint: Arc<Endpoint>,
    /// The policy under which the caller was let in.
    pub(in crate::gateway) force: Arc<Force>,
    pub(in crate::gateway) caller: Caller,
    pub(in crate::gateway) session: Arc<Session>,
    pub(in crate::gateway) audit: Audit,
    /// The request that found the session lost.
    pub(in crate::gateway) request_id: String,
}

/// Why a session was not begun anew.
enum Failed {
    /// It may be later.
    Now(Reject),
    /// It never can be, and is forgotten: its client must begin again.
    Ever(&'static str),
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Self {
        // Whatever became of the replay, the client's own message was not sent.
        Self::Now(Reject::from(error).reached(Reached::No))
    }
}

impl Anew {
    /// Begins the session anew, once for all who found that `former`, the server's id of it, is gone. Goes on to its end
    /// though its caller may not wait for it: what is half begun would be nobody's.
    pub(in crate::gateway) async fn begin(self, former: Arc<str>, loss: Loss) -> Result<(), Reject> {
        let ended = || Reject::not_ready("the gateway is stopping");
        let closing = self.endpoint.closing.clone();
        let task = tokio::spawn(async move { closing.run_until_cancelled(self.run(&former, loss)).await });
        task.await.ok().flatten().unwrap_or_else(|| Err(ended()))
    }

    async fn run(&self, former: &Arc<str>, loss: Loss) -> Result<(), Reject> {
        let came = Instant::now();
        let life = &self.session.life;
        let mut attempt = life.attempt.lock().await;
        if life.is_over() {
            return Err(Reject::no_session());
        }
        if *life.upstream() != **former {
            return Ok(()); // Somebody else was quicker.
        }
        if let Some((_, reject)) = attempt.failed.as_ref().filter(|(at, _)| *at >= came) {
            return Err(reject.clone());
        }
        let Some(force) = self.endpoint.force.load_full() else {
            return Err(Reject::not_ready("no policy is in force yet")); // No policy is not "allow".
        };
        let view = self.view(&force);
        if !force.policy.could_allow_anything(&view) {
            return Err(Reject::nothing_allowed()); // Whoever lost every right starts no process.
        }
        // A process that ends again and again has a pace of its own.
        if matches!(self.endpoint.upstream, Upstream::Http(_)) {
            attempt.pace.take(came).map_err(|wait| {
                let message = "the server forgets this session again and again: try again later";
                Reject::limited_for(message, Some(wait)).reached(Reached::No)
            })?;
        }
        let unrecorded = |_| Reject::not_ready("the audit log cannot take another record");
        let slot = self.audit.reserve().await.map_err(unrecorded)?; // What cannot be audited does not happen.
        let outcome = self.replay(&force, &view).await;
        slot.finish(&self.record(&force, &view, loss, &outcome, came.elapsed()));
        match outcome {
            Ok(upstream) => {
                tracing::info!(server = %self.endpoint.name, request_id = self.request_id, ?loss, "a session was begun anew");
                force.metrics.session_replayed();
                *life.why.lock() = why(loss);
                self.session.begin_anew();
                *life.upstream.lock() = upstream;
                life.renewed.send_modify(|count| *count += 1);
                Ok(())
            }
            Err(Failed::Ever(why)) => {
                tracing::warn!(server = %self.endpoint.name, why, "a session cannot be begun anew and is forgotten");
                self.endpoint.sessions.remove(&self.session.id);
                Err(Reject::no_session())
            }
            Err(Failed::Now(reject)) => {
                tracing::warn!(server = %self.endpoint.name, error = reject.message, "a session was not begun anew");
                attempt.failed = Some((Instant::now(), reject.clone()));
                Err(reject)
            }
        }
    }

    /// The caller's rights now: the session may be older than they are.
    fn view(&self, force: &Force) -> Arc<SubjectView> {
        force.view_of(&self.caller, &self.force)
    }

    /// The server's id of the new session.
    async fn replay(&self, force: &Force, view: &SubjectView) -> Result<Arc<str>, Failed> {
        let life = &self.session.life;
        let (initialize, is_initialized) = {
            let remembered = life.remembered.lock();
            (remembered.initialize().cloned(), remembered.is_initialized())
        };
        let initialize = initialize.ok_or(Failed::Ever("its initialize is too large to be kept"))?;
        let until = Instant::now() + limits::REPLAY_WAIT;
        let reply = loop {
            let message = Envelope::parse_trusting(initialize.clone());
            let message = message.map_err(|_| Failed::Ever("its initialize cannot be read"))?;
            let sent = self.send(None, HeaderMap::new(), Verb::Post(message));
            match timeout(limits::REPLAY, sent).await.unwrap_or(Err(UpstreamError::Timeout)) {
                // Nothing reached it, and a process that ended is started again in a moment.
                Err(UpstreamError::Unreachable(_) | UpstreamError::Unsent) if Instant::now() + STEP < until => {
                    sleep(STEP).await;
                }
                other => break other?,
            }
        };
        let upstream = reply.session.clone();
        let accepted = self.accept(reply).await;
        let (Ok(()), Some(upstream)) = (&accepted, &upstream) else {
            if let Some(upstream) = upstream {
                let _ = timeout(limits::STREAM_END, self.send(Some(upstream), life.headers(), Verb::Delete)).await;
            }
            return Err(accepted.err().unwrap_or(Failed::Ever("the server gives no session any more")));
        };
        if is_initialized {
            let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
            self.ask(upstream, ready.to_owned()).await;
        }
        // What the caller may not see any more is not watched for it.
        let may_see = |uri: &str| force.policy.visible(view, Item::Resource(uri), Timestamp::now());
        let calls = life.remembered.lock().follow_up(may_see);
        let asked = futures::stream::iter(calls).for_each_concurrent(AT_ONCE, |call| self.ask(upstream, call));
        if timeout(limits::REPLAY, asked).await.is_err() {
            tracing::warn!(server = %self.endpoint.name, "not every subscription of a session was begun anew in time");
        }
        Ok(upstream.clone())
    }

    /// Whether the answer to `initialize` is one that the client can go on with.
    async fn accept(&self, reply: Reply) -> Result<(), Failed> {
        match reply.status {
            status if status.is_success() => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(UpstreamError::Refused(status.as_u16()).into());
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(UpstreamError::Garbage(format!("it failed with HTTP {}", status.as_u16())).into());
            }
            _ => return Err(Failed::Ever("the server refuses its initialize")),
        }
        let result = timeout(limits::REPLAY, result(reply.content)).await.map_err(|_| UpstreamError::Timeout)??;
        let result = result.ok_or(Failed::Ever("the server refuses its initialize"))?;
        let mut remembered = self.session.life.remembered.lock();
        if !remembered.agrees_with(&result) {
            return Err(Failed::Ever("the server speaks another revision than was agreed"));
        }
        remembered.agreed(&result); // It may have other lists than before.
        Ok(())
    }

    /// Sends a message of the gateway's own and reads its answer, which concerns nobody.
    async fn ask(&self, upstream: &Arc<str>, text: String) {
        let Ok(message) = Envelope::parse_trusting(text.into()) else { return };
        let sent = self.send(Some(upstream.clone()), self.session.life.headers(), Verb::Post(message)).await;
        let answered = match sent {
            Ok(reply) if reply.status.is_success() => result(reply.content).await.map(|_| ()),
            Ok(reply) => Err(UpstreamError::Garbage(format!("it failed with HTTP {}", reply.status.as_u16()))),
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            tracing::debug!(server = %self.endpoint.name, %error, "a part of a session was not begun anew");
        }
    }

    async fn send(&self, session: Option<Arc<str>>, headers: HeaderMap, verb: Verb) -> Result<Reply, UpstreamError> {
        let caller = self.caller.key().cloned();
        self.endpoint.upstream.send(Outbound { verb, era: Era::Legacy, caller, session, headers }).await
    }

    fn record<'a>(
        &'a self,
        force: &'a Force,
        view: &'a SubjectView,
        loss: Loss,
        outcome: &Result<Arc<str>, Failed>,
        duration: Duration,
    ) -> Record<'a> {
        let target = &force.policy.snapshot().target;
        let identity = self.caller.verified.as_ref().map(|verified| &verified.identity);
        Record {
            event: Event::SessionReplayed,
            request_id: &self.request_id,
            issuer: identity.map(|identity| identity.issuer.as_str()),
            subject: identity.map(|identity| identity.subject.as_str()),
            roles: &view.roles,
            left_out: None,
            method: "initialize",
            server_namespace: &target.namespace,
            server: &target.server,
            target: None,
            snapshot: force.policy.hash(),
            rule_role: None,
            rule_index: None,
            decision: "none",
            reason: Some(match loss {
                Loss::Ended => "ProcessEnded",
                Loss::Parked => "ProcessParked",
                Loss::Forgotten => "SessionForgotten",
            }),
            arguments: None,
            outcome: Some(match outcome {
                Ok(_) => Outcome::Ok,
                Err(Failed::Now(reject)) => reject.outcome,
                Err(Failed::Ever(_)) => Outcome::Unavailable,
            }),
            error_code: None,
            http_status: None,
            result_bytes: 0,
            duration,
        }
    }
}

/// What the client is told.
fn why(loss: Loss) -> &'static str {
    match loss {
        Loss::Ended => "the server's process ended and was started anew: what it knew of this session is lost",
        Loss::Parked => {
            "the server's process made room for others while this session was idle, and was started anew: what it knew of this session is lost"
        }
        Loss::Forgotten => "the server forgot this session, which was begun anew: what it knew of it is lost",
    }
}

/// The result in an answer, `None` for an error. Whatever else comes before it concerns nobody.
async fn result(content: Content) -> Result<Option<String>, UpstreamError> {
    match content {
        Content::Json(text) => Ok(remembered::result_of(&text)),
        Content::Empty | Content::Opaque(_) => Ok(None),
        Content::Events(mut events) => {
            while let Some(event) = events.next().await {
                let Some(data) = event?.data else { continue };
                if remembered::is_answer(&data) {
                    return Ok(remembered::result_of(&data));
                }
            }
            Err(UpstreamError::Gone)
        }
    }
}

/// How often one session may be begun anew because its server forgot it: at once, then ever more rarely.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Instant, Duration)>,
}

impl Pace {
    /// Takes a turn, or says after what time there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let next = match self.last {
            Some((last, wait)) if now.saturating_duration_since(last) < wait => {
                return Err(wait.saturating_sub(now.saturating_duration_since(last)));
            }
            Some((last, wait)) if now.saturating_duration_since(last) < KEPT => (wait * 2).min(limits::REPLAY_PACE),
            Some(_) | None => FIRST,
        };
        self.last = Some((now, next));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_forgets_again_and_again_is_followed_ever_more_rarely() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..9 {
            pace.take(now).unwrap();
            let wait = pace.take(now).unwrap_err();
            waits.push(wait.as_millis());
            now += wait;
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);

        pace.take(now + KEPT).unwrap();
        assert_eq!(pace.take(now + KEPT), Err(FIRST), "one that keeps its sessions for a while is as before");
    }
}
