//! Metrics, every name once.
//!
//! | Name | Labels | Meaning |
//! |---|---|---|
//! | `mcp_tool_requests_total` | `server_namespace`, `server`, `tool`, `status`, `user_role` | calls of tools; `status` is the [`Outcome`], `user_role` the role of the deciding rule or `none` |
//! | `mcp_tool_duration_seconds` | `server_namespace`, `server`, `tool` | time of those calls, from the first byte of the request to the last of the answer; buckets from 1 ms to 30 s |
//! | `mcp_active_requests` | `server_namespace`, `server` | requests that are being served |
//! | `toolgate_requests_total` | `class`, `outcome` | all messages from clients, by what they are in the eyes of policy |
//! | `toolgate_auth_refusals_total` | `reason` | tokens that were not accepted |
//! | `toolgate_sessions` | `server_namespace`, `server` | open sessions |
//! | `toolgate_streams` | `server_namespace`, `server` | open long-lived streams |
//! | `toolgate_children` | `server_namespace`, `server` | running child processes |
//! | `toolgate_child_restarts_total` | `server_namespace`, `server` | child processes that ended without being told to |
//! | `toolgate_session_replays_total` | `server_namespace`, `server` | sessions that were begun anew because their server's side was gone |
//! | `toolgate_upstream_errors_total` | `server_namespace`, `server`, `reason` | calls that the server did not answer as it should |
//! | `toolgate_policy_loads_total` | `server_namespace`, `server`, `result` | policies that came; `result` is `ok` or `failed` |
//! | `toolgate_policy_info` | `server_namespace`, `server`, `snapshot` | 1 for the policy in force |
//! | `toolgate_policy_loaded_timestamp_seconds` | `server_namespace`, `server` | when it came into force, Unix time |
//! | `toolgate_audit_slots` | | records that are promised or queued, of at most 5120 |
//! | `toolgate_audit_lines_total` | | lines written |
//! | `toolgate_audit_refused_total` | | calls refused because they could not be audited |
//! | `toolgate_audit_dropped_total` | | lines lost because closing took too long |
//! | `toolgate_audit_left_out_total` | | lines about requests without a token, left out during a flood |
//! | `toolgate_audit_failing` | | 1 while lines cannot be written |
//! | `toolgate_held_bytes` | | bytes of messages that are held for callers and servers |
//! | `toolgate_build_info` | `version` | 1 |
//! | `process_resident_memory_bytes`, `process_threads`, `process_open_fds` | | of this process |
//!
//! Label values are names of declared objects or values of an enum; everything else is [`OTHER`]. Never a subject, a
//! session, an argument or a URI. The tool metrics have at most 2,000 series; what does not fit is counted with
//! [`OTHER`] in every label but `status`. Series of removed objects go.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::gateway::audit::{Audit, Outcome};
use crate::gateway::protocol::methods::Class;

use super::labels::{CLASSES, class_index};
pub use super::labels::{NO_ROLE, OTHER};
use super::link::{LinkFamilies, LinkMetrics};
use super::process;
pub use super::series::ToolMetrics;
use super::series::{BUCKETS, Families, ServerTools};

const SERVER: [&str; 2] = ["server_namespace", "server"];

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    tools: Arc<Families>,
    last_resort: Arc<ToolMetrics>,
    requests: IntCounterVec,
    request_handles: [[OnceLock<IntCounter>; Outcome::ALL.len()]; CLASSES.len()],
    auth_refusals: IntCounterVec,
    gauges: ServerGauges,
    upstream_errors: IntCounterVec,
    policy_loads: IntCounterVec,
    policy_info: IntGaugeVec,
    own: Own,
    /// By namespace and name.
    servers: Mutex<Servers>,
    audit: Mutex<Option<Audit>>,
    link: OnceLock<LinkFamilies>,
}

#[derive(Clone)]
struct ServerGauges {
    active: IntGaugeVec,
    sessions: IntGaugeVec,
    streams: IntGaugeVec,
    children: IntGaugeVec,
    child_restarts: IntCounterVec,
    session_replays: IntCounterVec,
    policy_loaded: IntGaugeVec,
}

/// Figures that are read when someone asks.
struct Own {
    audit_slots: IntGauge,
    audit_lines: IntCounter,
    audit_refused: IntCounter,
    audit_dropped: IntCounter,
    audit_left_out: IntCounter,
    audit_failing: IntGauge,
    held: IntGauge,
    memory: IntGauge,
    threads: IntGauge,
    files: IntGauge,
}

type Servers = HashMap<(Box<str>, Box<str>), Arc<ServerMetrics>>;

/// Makes and registers; a failure is a wrong name in this file.
struct Maker(Registry);

type Made<T> = Result<T, prometheus::Error>;

impl Maker {
    fn register<T: prometheus::core::Collector + Clone + 'static>(&self, metric: T) -> Made<T> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Made<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> Made<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Made<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn families(&self) -> Made<Families> {
        let requests = self.counters(
            "mcp_tool_requests_total",
            "Calls of tools.",
            &["server_namespace", "server", "tool", "status", "user_role"],
        )?;
        let options = HistogramOpts::new("mcp_tool_duration_seconds", "Time of calls of tools.");
        let labels = ["server_namespace", "server", "tool"];
        let duration = self.register(HistogramVec::new(options.buckets(BUCKETS.to_vec()), &labels)?)?;
        Ok(Families::new(requests, duration))
    }

    fn server_gauges(&self) -> Made<ServerGauges> {
        Ok(ServerGauges {
            active: self.gauges("mcp_active_requests", "Requests that are being served.", &SERVER)?,
            sessions: self.gauges("toolgate_sessions", "Open sessions.", &SERVER)?,
            streams: self.gauges("toolgate_streams", "Open long-lived streams.", &SERVER)?,
            children: self.gauges("toolgate_children", "Running child processes.", &SERVER)?,
            child_restarts: self.counters(
                "toolgate_child_restarts_total",
                "Child processes that ended without being told to.",
                &SERVER,
            )?,
            session_replays: self.counters(
                "toolgate_session_replays_total",
                "Sessions that were begun anew.",
                &SERVER,
            )?,
            policy_loaded: self.gauges(
                "toolgate_policy_loaded_timestamp_seconds",
                "When the policy in force came, Unix time.",
                &SERVER,
            )?,
        })
    }

    fn own(&self) -> Made<Own> {
        let build = self.gauges("toolgate_build_info", "Version of this build.", &["version"])?;
        build.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        Ok(Own {
            audit_slots: self.gauge("toolgate_audit_slots", "Audit records that are promised or queued.")?,
            audit_lines: self.counter("toolgate_audit_lines_total", "Audit lines written.")?,
            audit_refused: self.counter("toolgate_audit_refused_total", "Calls refused for want of an audit slot.")?,
            audit_dropped: self.counter("toolgate_audit_dropped_total", "Audit lines lost at the end.")?,
            audit_left_out: self.counter("toolgate_audit_left_out_total", "Audit lines left out in a flood.")?,
            audit_failing: self.gauge("toolgate_audit_failing", "1 while audit lines cannot be written.")?,
            held: self.gauge("toolgate_held_bytes", "Bytes of messages that are held.")?,
            memory: self.gauge("process_resident_memory_bytes", "Resident memory.")?,
            threads: self.gauge("process_threads", "Threads.")?,
            files: self.gauge("process_open_fds", "Open file descriptors.")?,
        })
    }

    fn metrics(self) -> Made<Metrics> {
        let tools = Arc::new(self.families()?);
        let last_resort = ToolMetrics::last_resort(&tools)?;
        Ok(Metrics {
            last_resort,
            requests: self.counters("toolgate_requests_total", "Messages from clients.", &["class", "outcome"])?,
            request_handles: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            auth_refusals: self.counters("toolgate_auth_refusals_total", "Tokens not accepted.", &["reason"])?,
            gauges: self.server_gauges()?,
            upstream_errors: self.counters(
                "toolgate_upstream_errors_total",
                "Calls that the server did not answer as it should.",
                &["server_namespace", "server", "reason"],
            )?,
            policy_loads: self.counters(
                "toolgate_policy_loads_total",
                "Policies that came.",
                &["server_namespace", "server", "result"],
            )?,
            policy_info: self.gauges(
                "toolgate_policy_info",
                "1 for the policy in force.",
                &["server_namespace", "server", "snapshot"],
            )?,
            own: self.own()?,
            servers: Mutex::default(),
            audit: Mutex::default(),
            link: OnceLock::new(),
            tools,
            registry: self.0,
        })
    }
}

impl Metrics {
    /// All metrics, without any value yet.
    ///
    /// # Panics
    /// Never: names and labels are constants of this file, and distinct.
    #[allow(clippy::expect_used)]
    #[allow(clippy::new_ret_no_self)] // It is shared from the start.
    pub fn new() -> Arc<Self> {
        Arc::new(Maker(Registry::new()).metrics().expect("the constants of this file register"))
    }

    /// The audit log whose figures [`Metrics::render`] shows.
    pub fn watch_audit(&self, audit: Audit) {
        *self.audit.lock() = Some(audit);
    }

    /// Counts one message from a client; `None` is one that has no class.
    pub fn request(&self, class: Option<Class>, outcome: Outcome) {
        let index = class_index(class);
        let handles = self.request_handles.get(index).and_then(|row| row.get(outcome as usize));
        let (Some(handle), Some(class)) = (handles, CLASSES.get(index)) else { return };
        handle.get_or_init(|| self.requests.with_label_values(&[*class, outcome.as_str()])).inc();
    }

    /// Counts a token that was not accepted. `reason` is `Refused::label`.
    pub fn auth_refused(&self, reason: &'static str) {
        self.auth_refusals.with_label_values(&[reason]).inc();
    }

    /// The metrics of a server; the same ones for the same names until [`Metrics::remove_server`].
    pub fn server(&self, namespace: &str, server: &str) -> Arc<ServerMetrics> {
        let mut servers = self.servers.lock();
        let entry = servers.entry((namespace.into(), server.into()));
        Arc::clone(entry.or_insert_with(|| Arc::new(ServerMetrics::new(self, namespace, server))))
    }

    /// Takes all series of a server away.
    pub fn remove_server(&self, namespace: &str, server: &str) {
        if let Some(metrics) = self.servers.lock().remove(&(namespace.into(), server.into())) {
            metrics.clear();
        }
    }

    /// The metrics of a server's connection to the policy server.
    ///
    /// # Panics
    /// Never: names and labels are constants, and distinct.
    #[allow(clippy::expect_used)]
    pub fn link(&self, namespace: &str, server: &str) -> LinkMetrics {
        let families = || LinkFamilies::new(&self.registry).expect("the constants of a connection register");
        self.link.get_or_init(families).of(namespace, server)
    }

    /// Everything in the text exposition format (`text/plain; version=0.0.4`).
    pub fn render(&self) -> String {
        self.read_own();
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// Bytes of messages that are held now.
    pub fn held(&self, bytes: usize) {
        self.own.held.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn read_own(&self) {
        let own = &self.own;
        let set = |gauge: &IntGauge, value: Option<u64>| {
            gauge.set(value.and_then(|value| i64::try_from(value).ok()).unwrap_or_default());
        };
        if let Some(audit) = &*self.audit.lock() {
            let stats = audit.stats();
            let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
            set(&own.audit_slots, u64::try_from(stats.taken).ok());
            raise(&own.audit_lines, stats.written);
            raise(&own.audit_refused, stats.refused);
            raise(&own.audit_dropped, stats.dropped);
            raise(&own.audit_left_out, stats.left_out);
            own.audit_failing.set(stats.failing.into());
        }
        let (memory, threads) = process::memory_and_threads();
        set(&own.memory, memory);
        set(&own.threads, threads);
        set(&own.files, process::open_files());
    }
}

/// A number of things that are there now.
#[derive(Clone)]
pub struct Gauge(IntGauge);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// One less.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// This many.
    pub fn set(&self, value: usize) {
        self.0.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// How many there are.
    pub fn get(&self) -> usize {
        usize::try_from(self.0.get()).unwrap_or_default()
    }

    /// One more for as long as the guard lives.
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.0.clone())
    }
}

/// Counts as one until it is dropped.
pub struct Held(IntGauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is counted for one server.
pub struct ServerMetrics {
    /// Requests that are being served.
    pub active: Gauge,
    /// Open sessions.
    pub sessions: Gauge,
    /// Open long-lived streams.
    pub streams: Gauge,
    /// Running child processes.
    pub children: Gauge,
    namespace: Box<str>,
    server: Box<str>,
    tools: ServerTools,
    child_restarts: IntCounter,
    session_replays: IntCounter,
    policy_loaded: IntGauge,
    gauges: ServerGauges,
    upstream_errors: IntCounterVec,
    policy_loads: IntCounterVec,
    policy_info: IntGaugeVec,
    /// Label values that have series, for their removal: upstream errors' reasons, and the snapshot in force.
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    reasons: Vec<&'static str>,
    snapshot: Option<String>,
}

impl ServerMetrics {
    fn new(metrics: &Metrics, namespace: &str, server: &str) -> Self {
        let gauges = metrics.gauges.clone();
        let labels = [namespace, server];
        let gauge = |family: &IntGaugeVec| Gauge(family.with_label_values(&labels));
        Self {
            active: gauge(&gauges.active),
            sessions: gauge(&gauges.sessions),
            streams: gauge(&gauges.streams),
            children: gauge(&gauges.children),
            namespace: namespace.into(),
            server: server.into(),
            tools: ServerTools::new(&metrics.tools, namespace, server, Arc::clone(&metrics.last_resort)),
            child_restarts: gauges.child_restarts.with_label_values(&labels),
            session_replays: gauges.session_replays.with_label_values(&labels),
            policy_loaded: gauges.policy_loaded.with_label_values(&labels),
            gauges,
            upstream_errors: metrics.upstream_errors.clone(),
            policy_loads: metrics.policy_loads.clone(),
            policy_info: metrics.policy_info.clone(),
            seen: Mutex::default(),
        }
    }

    /// Handles for one tool and the role of the deciding rule. `name` must be declared or listed by the server, else
    /// pass [`OTHER`]. Cheap, and cheaper kept.
    pub fn tool(&self, name: &str, role: Option<&str>) -> Arc<ToolMetrics> {
        self.tools.tool(name, role)
    }

    /// Takes away the series of tools and roles that a new policy does not have.
    pub fn retain(&self, keep_tool: impl Fn(&str) -> bool, keep_role: impl Fn(&str) -> bool) {
        self.tools.retain(keep_tool, keep_role);
    }

    /// Counts a call that the server did not answer as it should. `reason` is one of an enum.
    pub fn upstream_error(&self, reason: &'static str) {
        let mut seen = self.seen.lock();
        if !seen.reasons.contains(&reason) {
            seen.reasons.push(reason);
        }
        self.upstream_errors.with_label_values(&[&*self.namespace, &*self.server, reason]).inc();
    }

    /// Counts child processes that ended without being told to.
    pub fn children_ended(&self, count: u64) {
        self.child_restarts.inc_by(count);
    }

    /// Counts a session that was begun anew.
    pub fn session_replayed(&self) {
        self.session_replays.inc();
    }

    /// A policy came into force.
    pub fn policy_loaded(&self, snapshot: &str, now: jiff::Timestamp) {
        self.policy_loads.with_label_values(&[&*self.namespace, &*self.server, "ok"]).inc();
        let mut seen = self.seen.lock();
        if let Some(before) = seen.snapshot.replace(snapshot.to_owned()) {
            let _ = self.policy_info.remove_label_values(&[&*self.namespace, &*self.server, before.as_str()]);
        }
        self.policy_info.with_label_values(&[&*self.namespace, &*self.server, snapshot]).set(1);
        self.policy_loaded.set(now.as_second());
    }

    /// A policy came that cannot be enforced.
    pub fn policy_failed(&self) {
        self.policy_loads.with_label_values(&[&*self.namespace, &*self.server, "failed"]).inc();
    }

    fn clear(&self) {
        self.tools.clear();
        // A series that was never made cannot be removed: each error here says just that.
        let labels = [&*self.namespace, &*self.server];
        let gauges = &self.gauges;
        for family in [&gauges.active, &gauges.sessions, &gauges.streams, &gauges.children, &gauges.policy_loaded] {
            let _ = family.remove_label_values(&labels);
        }
        let _ = gauges.child_restarts.remove_label_values(&labels);
        let _ = gauges.session_replays.remove_label_values(&labels);
        for result in ["ok", "failed"] {
            let _ = self.policy_loads.remove_label_values(&[&*self.namespace, &*self.server, result]);
        }
        let mut seen = self.seen.lock();
        for reason in seen.reasons.drain(..) {
            let _ = self.upstream_errors.remove_label_values(&[&*self.namespace, &*self.server, reason]);
        }
        if let Some(snapshot) = seen.snapshot.take() {
            let _ = self.policy_info.remove_label_values(&[&*self.namespace, &*self.server, snapshot.as_str()]);
        }
    }
}
