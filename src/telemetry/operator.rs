//! The operator's metrics, every name once.
//!
//! | Name | Labels | Meaning |
//! |---|---|---|
//! | `toolgate_reconcile_duration_seconds` | `controller` | time of one reconcile; buckets from 1 ms to 30 s |
//! | `toolgate_reconcile_errors_total` | `controller`, `reason` | reconciles that failed and are tried again |
//! | `toolgate_reconcile_queue_depth` | `controller` | objects that are due, or will be |
//! | `toolgate_api_writes_total` | `manager`, `kind`, `verb` | writes to the API server, the Lease apart |
//! | `toolgate_leader` | | 1 while this process writes to the cluster |
//! | `toolgate_build_info` | `version` | 1 |
//! | `process_resident_memory_bytes`, `process_threads`, `process_open_fds` | | of this process |
//!
//! Label values are constants of this program or kinds of Kubernetes: never a name, a namespace or a subject.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::process;

/// From 1 ms to 30 s.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// All metrics of the operator.
pub struct Metrics {
    registry: Registry,
    duration: HistogramVec,
    errors: IntCounterVec,
    depth: IntGaugeVec,
    writes: IntCounterVec,
    leader: IntGauge,
    memory: IntGauge,
    threads: IntGauge,
    files: IntGauge,
}

impl Metrics {
    /// Metrics of a process. An error is a wrong name in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name: &str, help: &str| IntGauge::new(name, help);
        let buckets =
            HistogramOpts::new("toolgate_reconcile_duration_seconds", "Time of one reconcile.").buckets(BUCKETS.into());
        let metrics = Self {
            registry: Registry::new(),
            duration: HistogramVec::new(buckets, &["controller"])?,
            errors: counters(
                "toolgate_reconcile_errors_total",
                "Reconciles that failed and are tried again.",
                &["controller", "reason"],
            )?,
            depth: IntGaugeVec::new(
                Opts::new("toolgate_reconcile_queue_depth", "Objects that are due, or will be."),
                &["controller"],
            )?,
            writes: counters(
                "toolgate_api_writes_total",
                "Writes to the API server, the Lease apart.",
                &["manager", "kind", "verb"],
            )?,
            leader: gauge("toolgate_leader", "1 while this process writes to the cluster.")?,
            memory: gauge("process_resident_memory_bytes", "Resident memory.")?,
            threads: gauge("process_threads", "Threads.")?,
            files: gauge("process_open_fds", "Open file descriptors.")?,
        };
        let build = IntGaugeVec::new(Opts::new("toolgate_build_info", "1 for the version that runs."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let registry = &metrics.registry;
        registry.register(Box::new(build))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.depth.clone()))?;
        registry.register(Box::new(metrics.writes.clone()))?;
        for gauge in [&metrics.leader, &metrics.memory, &metrics.threads, &metrics.files] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(metrics)
    }

    /// One reconcile ended.
    pub fn reconciled(&self, controller: &str, took: Duration) {
        self.duration.with_label_values(&[controller]).observe(took.as_secs_f64());
    }

    /// One reconcile failed. `reason` is one of few.
    pub fn failed(&self, controller: &str, reason: &'static str) {
        self.errors.with_label_values(&[controller, reason]).inc();
    }

    /// How many objects are due, or will be.
    pub fn queued(&self, controller: &str, depth: usize) {
        self.depth.with_label_values(&[controller]).set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// One write was made.
    pub fn wrote(&self, manager: &str, kind: &str, verb: &'static str) {
        self.writes.with_label_values(&[manager, kind, verb]).inc();
    }

    /// Whether this process writes to the cluster.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Where other rooms register metrics of theirs.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> String {
        let (memory, threads) = process::memory_and_threads();
        for (gauge, value) in [(&self.memory, memory), (&self.threads, threads), (&self.files, process::open_files())] {
            gauge.set(value.and_then(|value| i64::try_from(value).ok()).unwrap_or(0));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_under_its_name() {
        let metrics = Metrics::new().unwrap();

        metrics.reconciled("mcpserver", Duration::from_millis(2));
        metrics.failed("mcpserver", "timeout");
        metrics.queued("mcpserver", 3);
        metrics.wrote("toolgate/mcpserver", "Service", "apply");
        metrics.leads(true);

        let text = metrics.render();
        for line in [
            "toolgate_reconcile_duration_seconds_bucket{controller=\"mcpserver\",le=\"0.005\"} 1",
            "toolgate_reconcile_errors_total{controller=\"mcpserver\",reason=\"timeout\"} 1",
            "toolgate_reconcile_queue_depth{controller=\"mcpserver\"} 3",
            "toolgate_api_writes_total{kind=\"Service\",manager=\"toolgate/mcpserver\",verb=\"apply\"} 1",
            "toolgate_leader 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
