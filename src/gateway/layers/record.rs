//! Around everything: one audit record and one measurement for each exchange, however it ends.
//!
//! A recorder that is dropped before its end (the caller went away) records that.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::gateway::audit::{Busy, Event, Outcome, Record, Share, Slot};
use crate::gateway::endpoint::{Caller, Endpoint, Force};
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::error::Reject;
use crate::gateway::protocol::methods::Class;
use crate::gateway::protocol::trace;
use crate::gateway::server::Shared;
use crate::policy::RuleRef;
use crate::telemetry::metrics::{Held, OTHER};
use crate::telemetry::traces::{Outgoing, Span};

/// Where the exchange stands with the audit log.
enum Place {
    /// Nobody is known yet who could have one: a refusal leaves its line among those of guests.
    Unknown,
    /// It has one.
    Held(Slot),
    /// The stream's opening is recorded; its end takes a place of its own.
    Parked,
    /// Its end is recorded.
    Over,
}

/// Collects what is known of one exchange.
pub(in crate::gateway) struct Recorder {
    place: Place,
    /// Whose places in the ring it takes.
    share: Share,
    span: Span,
    _active: Held,
    shared: Arc<Shared>,
    started: Instant,
    request_id: String,
    endpoint: Arc<Endpoint>,
    force: Arc<Force>,
    caller: Option<Caller>,
    verb: &'static str,
    message: Option<Envelope>,
    class: Option<Class>,
    target: Option<String>,
    decision: &'static str,
    rule: Option<RuleRef>,
    reason: Option<String>,
    error_code: Option<i64>,
    status: Option<u16>,
    bytes: u64,
}

impl Recorder {
    /// Nobody is known yet who calls: see [`Recorder::caller`].
    pub(in crate::gateway) fn start(
        shared: &Arc<Shared>,
        request_id: String,
        verb: &'static str,
        endpoint: Arc<Endpoint>,
        force: Arc<Force>,
    ) -> Self {
        let started = Instant::now();
        let active = force.metrics.active.hold();
        Self {
            place: Place::Unknown,
            share: Share::Guests,
            span: Span::default(),
            _active: active,
            shared: shared.clone(),
            started,
            request_id,
            endpoint,
            force,
            caller: None,
            verb,
            message: None,
            class: None,
            target: None,
            decision: "none",
            rule: None,
            reason: None,
            error_code: None,
            status: None,
            bytes: 0,
        }
    }

    pub(in crate::gateway) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// What is decided from here on is decided under this policy.
    pub(in crate::gateway) fn policy(&mut self, force: &Arc<Force>) {
        self.force = force.clone();
    }

    /// The caller was verified again, under another policy.
    pub(in crate::gateway) fn renewed(&mut self, caller: &Caller) {
        self.caller = Some(caller.clone());
    }

    /// Who calls. Reserves a place in the audit log: from here on, what cannot be recorded does not happen. A caller
    /// without a token gets one of the guests' share, however many of them there are.
    pub(in crate::gateway) async fn caller(&mut self, caller: &Caller) -> Result<(), Busy> {
        self.caller = Some(caller.clone());
        if caller.verified.is_some() {
            self.share = Share::Callers;
        }
        self.place = Place::Held(self.shared.audit.reserve_in(self.share).await?);
        Ok(())
    }

    pub(in crate::gateway) fn message(&mut self, message: &Envelope) {
        self.message = Some(message.clone());
    }

    /// The message as it came.
    pub(in crate::gateway) fn received(&self) -> Option<&Envelope> {
        self.message.as_ref()
    }

    pub(in crate::gateway) fn class(&mut self, class: Class) {
        self.class = Some(class);
    }

    pub(in crate::gateway) fn target(&mut self, target: &str) {
        self.target = Some(target.to_owned());
    }

    pub(in crate::gateway) fn decision(
        &mut self,
        decision: &'static str,
        rule: Option<RuleRef>,
        reason: Option<String>,
    ) {
        (self.decision, self.rule, self.reason) = (decision, rule, reason);
    }

    pub(in crate::gateway) fn status(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    pub(in crate::gateway) fn sent(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(in crate::gateway) fn refused(&mut self, reject: &Reject) {
        self.status(reject.status);
        self.error_code = Some(reject.code);
    }

    /// Why an exchange that was let through failed: the server's answer was refused.
    pub(in crate::gateway) fn because(&mut self, reject: &Reject) {
        self.reason.get_or_insert_with(|| reject.message.clone());
    }

    /// The code of the JSON-RPC error that the caller got, if it was one. The status stands already.
    pub(in crate::gateway) fn answered(&mut self, error_code: Option<i64>) {
        self.error_code = error_code;
    }

    /// Announces a call that may change something, before it is sent.
    pub(in crate::gateway) async fn intent(&self) -> Result<(), Busy> {
        let Place::Held(slot) = &self.place else { return Err(Busy) };
        slot.intent(&self.record(Event::Intent, None)).await
    }

    /// Starts a span for a message of a known method, if one is wanted.
    pub(in crate::gateway) fn trace(&mut self, headers: &HeaderMap) {
        let Some(message) = self.message.as_ref().filter(|_| self.shared.tracer.is_on()) else { return };
        self.span = self.shared.tracer.start(&message.method, trace::incoming(headers, message).borrow());
        if self.span.exists() {
            let target = &self.force.policy.snapshot().target;
            self.span.server(&target.namespace, &target.server);
            self.span.request_id(&self.request_id);
        }
    }

    /// The trace context for the server, where this exchange has a span.
    pub(in crate::gateway) fn outgoing(&self) -> Option<Outgoing> {
        self.span.outgoing()
    }

    /// Records that a long-lived stream was opened, and gives its place back: open streams do not fill the ring.
    pub(in crate::gateway) fn park(&mut self) {
        if let Place::Held(_) = self.place
            && let Place::Held(slot) = std::mem::replace(&mut self.place, Place::Parked)
        {
            slot.finish(&self.record(Event::StreamOpened, None));
        }
    }

    /// The end of the exchange.
    pub(in crate::gateway) fn finish(mut self, outcome: Outcome) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome) {
        let place = std::mem::replace(&mut self.place, Place::Over);
        if matches!(place, Place::Over) {
            return; // It has ended before.
        }
        let record = self.record(Event::Request, Some(outcome));
        let duration = record.duration;
        match place {
            Place::Held(slot) => slot.finish(&record),
            Place::Parked => {
                if let Some(slot) = self.shared.audit.try_reserve_in(self.share) {
                    slot.finish(&record);
                } else {
                    tracing::warn!(request_id = self.request_id, "the end of a stream was not recorded");
                }
            }
            Place::Unknown | Place::Over => self.shared.audit.note(&record),
        }
        let mut span = std::mem::take(&mut self.span);
        if span.exists() {
            if self.class == Some(Class::Tool) {
                span.tool(self.method(), self.target.as_deref().unwrap_or_default());
            }
            span.decision(self.decision, self.force.policy.hash());
            span.end(outcome, self.error_code);
        }
        self.shared.metrics.request(self.class, outcome);
        if self.class == Some(Class::Tool) {
            let declared = self.target.as_deref().filter(|tool| self.force.policy.tool(tool).is_some());
            let role = self.rule.as_ref().map(|rule| &*rule.role);
            self.force.metrics.tool(declared.unwrap_or(OTHER), role).record(outcome, duration);
        }
        tracing::debug!(
            request_id = %self.request_id,
            server = %self.endpoint.name,
            method = self.method(),
            decision = self.decision,
            outcome = outcome.as_str(),
            "exchange ended"
        );
    }

    fn method(&self) -> &str {
        self.message
            .as_ref()
            .map(|message| message.method.as_str())
            .filter(|method| !method.is_empty())
            .unwrap_or(self.verb)
    }

    fn record(&self, event: Event, outcome: Option<Outcome>) -> Record<'_> {
        let snapshot = self.force.policy.snapshot();
        let identity =
            self.caller.as_ref().and_then(|caller| caller.verified.as_ref()).map(|verified| &verified.identity);
        Record {
            event,
            request_id: &self.request_id,
            issuer: identity.map(|identity| identity.issuer.as_str()),
            subject: identity.map(|identity| identity.subject.as_str()),
            roles: self.caller.as_ref().map_or(&[], |caller| &caller.view.roles),
            left_out: None,
            method: self.method(),
            server_namespace: &snapshot.target.namespace,
            server: &snapshot.target.server,
            target: self.target.as_deref(),
            snapshot: self.force.policy.hash(),
            rule_role: self.rule.as_ref().map(|rule| &*rule.role),
            rule_index: self.rule.as_ref().map(|rule| rule.index),
            decision: self.decision,
            reason: self.reason.as_deref(),
            arguments: self.message.as_ref().and_then(|message| message.arguments()),
            outcome,
            error_code: self.error_code,
            http_status: self.status,
            result_bytes: self.bytes,
            duration: self.started.elapsed(),
        }
    }

    /// Records a request from the server. One that cannot be recorded must not reach the caller.
    pub(in crate::gateway) async fn server_request(&self, method: &str, refused: Option<&str>) -> Result<(), Busy> {
        let slot = self.shared.audit.reserve_in(self.share).await?;
        self.server_line(slot, method, refused.is_some(), refused, None);
        Ok(())
    }

    /// Records a request from the server inside a result. One that cannot be recorded must not reach the caller.
    pub(in crate::gateway) fn input_request(&self, method: &str, refused: Option<&str>) -> Result<(), Busy> {
        let slot = self.shared.audit.reserve_now(self.share)?;
        self.server_line(slot, method, refused.is_some(), refused, None);
        Ok(())
    }

    /// Records the caller's answer to one, named by its key. One that cannot be recorded must not reach the server.
    pub(in crate::gateway) async fn input_answer(&self, method: &str, key: &str, reason: &str) -> Result<(), Busy> {
        let slot = self.shared.audit.reserve_in(self.share).await?;
        self.server_line(slot, method, false, Some(reason), Some(key));
        Ok(())
    }

    fn server_line(&self, slot: Slot, method: &str, is_refused: bool, reason: Option<&str>, target: Option<&str>) {
        slot.finish(&Record {
            method,
            target,
            decision: if is_refused { "deny" } else { "allow" },
            reason,
            arguments: None,
            rule_role: None,
            rule_index: None,
            ..self.record(Event::ServerRequest, None)
        });
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.write(Outcome::Cancelled); // Does nothing after `finish`.
    }
}

/// Ids that are unique in this process and, by their random start, beyond it.
pub(in crate::gateway) struct RequestIds {
    prefix: String,
    next: std::sync::atomic::AtomicU64,
}

impl RequestIds {
    pub(in crate::gateway) fn new() -> Self {
        let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
        let prefix = format!("{:08x}{:08x}", std::process::id(), now & 0xffff_ffff);
        Self { prefix, next: 0.into() }
    }

    pub(in crate::gateway) fn next(&self) -> String {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("{}-{number:x}", self.prefix)
    }
}
