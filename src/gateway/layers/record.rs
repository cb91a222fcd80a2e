//! Around everything: one audit record and one measurement for each exchange, however it ends.
//!
//! A recorder that is dropped before its end (the caller went away) records that.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::gateway::audit::{Busy, Event, Outcome, Record, Slot};
use crate::gateway::endpoint::{Caller, Endpoint, Force};
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::error::Reject;
use crate::gateway::protocol::methods::Class;
use crate::gateway::protocol::trace;
use crate::gateway::server::Shared;
use crate::policy::RuleRef;
use crate::telemetry::metrics::{Held, OTHER};
use crate::telemetry::traces::{Outgoing, Span};

/// Collects what is known of one exchange.
pub(in crate::gateway) struct Recorder {
    slot: Option<Slot>,
    /// The stream's opening is recorded; its end takes a place of its own.
    parked: bool,
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
    /// Reserves a place in the audit log first: an exchange that cannot be recorded does not happen.
    pub(in crate::gateway) async fn start(
        shared: &Arc<Shared>,
        request_id: String,
        verb: &'static str,
        endpoint: Arc<Endpoint>,
        force: Arc<Force>,
    ) -> Result<Self, Busy> {
        let started = Instant::now();
        let slot = Some(shared.audit.reserve().await?);
        let active = force.metrics.active.hold();
        Ok(Self {
            slot,
            parked: false,
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
        })
    }

    pub(in crate::gateway) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// What is decided from here on is decided under this policy.
    pub(in crate::gateway) fn policy(&mut self, force: &Arc<Force>) {
        self.force = force.clone();
    }

    pub(in crate::gateway) fn caller(&mut self, caller: &Caller) {
        self.caller = Some(caller.clone());
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

    /// Announces a call that may change something, before it is sent.
    pub(in crate::gateway) async fn intent(&self) -> Result<(), Busy> {
        let Some(slot) = &self.slot else { return Err(Busy) };
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
        if let Some(slot) = self.slot.take() {
            self.parked = true;
            slot.finish(&self.record(Event::StreamOpened, None));
        }
    }

    /// The end of the exchange.
    pub(in crate::gateway) fn finish(mut self, outcome: Outcome) {
        self.write(outcome);
    }

    fn write(&mut self, outcome: Outcome) {
        let announced = std::mem::take(&mut self.parked);
        let slot = match self.slot.take() {
            None if announced => self.shared.audit.try_reserve(),
            slot => slot,
        };
        let record = self.record(Event::Request, Some(outcome));
        let duration = record.duration;
        match slot {
            Some(slot) => slot.finish(&record),
            None if announced => tracing::warn!(request_id = self.request_id, "the end of a stream was not recorded"),
            None => return, // It has ended before.
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
        let slot = self.shared.audit.reserve().await?;
        let decision = if refused.is_some() { "deny" } else { "allow" };
        slot.finish(&Record {
            method,
            target: None,
            decision,
            reason: refused,
            arguments: None,
            rule_role: None,
            rule_index: None,
            ..self.record(Event::ServerRequest, None)
        });
        Ok(())
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
