//! Series of one server's tools: made on first use, within a budget for the whole process, and taken away with what
//! they describe.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::gateway::audit::Outcome;

use super::labels::{NO_ROLE, OTHER};

/// Upper bounds of `mcp_tool_duration_seconds`.
pub(super) const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Series of one histogram: its buckets, `+Inf`, sum and count.
const HISTOGRAM_SERIES: usize = BUCKETS.len() + 3;
/// Series of all tools in the process.
pub(super) const TOOL_SERIES: usize = 2000;

/// The tool metrics of the process.
pub(super) struct Families {
    pub(super) requests: IntCounterVec,
    pub(super) duration: HistogramVec,
    used: AtomicUsize,
}

impl Families {
    pub(super) fn new(requests: IntCounterVec, duration: HistogramVec) -> Self {
        // The last resort has its place from the start.
        Self { requests, duration, used: AtomicUsize::new(Outcome::ALL.len() + HISTOGRAM_SERIES) }
    }

    fn claim(&self, series: usize) -> bool {
        let take = |used: usize| used.checked_add(series).filter(|used| *used <= TOOL_SERIES);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn release(&self, series: usize) {
        self.used.fetch_sub(series, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Handles for calls of one tool that a rule of one role decided. Keep it: recording then takes no lock and no
/// allocation.
pub struct ToolMetrics {
    labels: Labels,
    counters: [OnceLock<IntCounter>; Outcome::ALL.len()],
    duration: Histogram,
    families: Arc<Families>,
    /// Where a series goes that the budget has no room for.
    overflow: Option<Arc<Self>>,
    /// Taken away: counts no more, so that no series comes back.
    removed: AtomicBool,
    /// Orders the first use of a counter and its removal.
    making: parking_lot::Mutex<()>,
}

struct Labels {
    namespace: Box<str>,
    server: Box<str>,
    tool: Box<str>,
    role: Box<str>,
}

impl Labels {
    fn request(&self, outcome: Outcome) -> [&str; 5] {
        [&self.namespace, &self.server, &self.tool, outcome.as_str(), &self.role]
    }

    fn duration(&self) -> [&str; 3] {
        [&self.namespace, &self.server, &self.tool]
    }
}

impl ToolMetrics {
    /// The one that stands for all that the budget has no room for.
    pub(super) fn last_resort(families: &Arc<Families>) -> Result<Arc<Self>, prometheus::Error> {
        let labels = Labels { namespace: OTHER.into(), server: OTHER.into(), tool: OTHER.into(), role: OTHER.into() };
        let duration = families.duration.get_metric_with_label_values(&labels.duration())?;
        Ok(Arc::new(Self::new(families, labels, duration, None)))
    }

    fn new(families: &Arc<Families>, labels: Labels, duration: Histogram, overflow: Option<Arc<Self>>) -> Self {
        Self {
            labels,
            counters: std::array::from_fn(|_| OnceLock::new()),
            duration,
            families: Arc::clone(families),
            overflow,
            removed: AtomicBool::new(false),
            making: parking_lot::Mutex::default(),
        }
    }

    /// Counts one call.
    pub fn record(&self, outcome: Outcome, duration: Duration) {
        let Some(counter) = self.counters.get(outcome as usize) else { return };
        let Some(counter) = counter.get().or_else(|| self.first(outcome, counter)) else {
            match &self.overflow {
                Some(overflow) if !self.removed.load(Ordering::Relaxed) => overflow.record(outcome, duration),
                _ => {}
            }
            return;
        };
        counter.inc();
        self.duration.observe(duration.as_secs_f64());
    }

    #[cold]
    fn first<'a>(&self, outcome: Outcome, cell: &'a OnceLock<IntCounter>) -> Option<&'a IntCounter> {
        let _making = self.making.lock();
        if self.removed.load(Ordering::Relaxed) {
            return None;
        }
        if cell.get().is_none() {
            if self.overflow.is_some() && !self.families.claim(1) {
                return None;
            }
            let made = self.families.requests.get_metric_with_label_values(&self.labels.request(outcome));
            let _ = cell.set(made.ok()?);
        }
        cell.get()
    }

    /// Takes the counters away.
    fn remove(&self) {
        let _making = self.making.lock();
        self.removed.store(true, Ordering::Relaxed);
        for (outcome, counter) in Outcome::ALL.into_iter().zip(&self.counters) {
            if counter.get().is_some() {
                let _ = self.families.requests.remove_label_values(&self.labels.request(outcome));
                self.families.release(1);
            }
        }
    }
}

/// The tools of one server. Its name and namespace are labels.
pub(super) struct ServerTools {
    namespace: Box<str>,
    server: Box<str>,
    families: Arc<Families>,
    tools: RwLock<HashMap<Box<str>, Tool>>,
    last_resort: Arc<ToolMetrics>,
}

struct Tool {
    duration: Histogram,
    roles: HashMap<Box<str>, Arc<ToolMetrics>>,
}

impl ServerTools {
    /// The tools of a server; what does not fit the budget is counted by `last_resort`.
    pub(super) fn new(families: &Arc<Families>, namespace: &str, server: &str, last_resort: Arc<ToolMetrics>) -> Self {
        let families = Arc::clone(families);
        Self { namespace: namespace.into(), server: server.into(), families, tools: RwLock::default(), last_resort }
    }

    /// Finds or makes the handles.
    pub(super) fn tool(&self, name: &str, role: Option<&str>) -> Arc<ToolMetrics> {
        let role = role.unwrap_or(NO_ROLE);
        if let Some(found) = self.tools.read().get(name).and_then(|tool| tool.roles.get(role)) {
            return Arc::clone(found);
        }
        self.make(name, role).unwrap_or_else(|| Arc::clone(&self.last_resort))
    }

    #[cold]
    fn make(&self, name: &str, role: &str) -> Option<Arc<ToolMetrics>> {
        let mut tools = self.tools.write();
        let labels = Labels {
            namespace: self.namespace.clone(),
            server: self.server.clone(),
            tool: name.into(),
            role: role.into(),
        };
        if !tools.contains_key(name) {
            if !self.families.claim(HISTOGRAM_SERIES) {
                return None;
            }
            let duration = self.families.duration.get_metric_with_label_values(&labels.duration()).ok()?;
            tools.insert(name.into(), Tool { duration, roles: HashMap::new() });
        }
        let tool = tools.get_mut(name)?;
        let duration = tool.duration.clone();
        let overflow = Some(Arc::clone(&self.last_resort));
        let entry = tool
            .roles
            .entry(role.into())
            .or_insert_with(|| Arc::new(ToolMetrics::new(&self.families, labels, duration, overflow)));
        Some(Arc::clone(entry))
    }

    /// Takes away the series of tools and roles that are gone. [`OTHER`] and [`NO_ROLE`] stay.
    pub(super) fn retain(&self, keep_tool: impl Fn(&str) -> bool, keep_role: impl Fn(&str) -> bool) {
        self.tools.write().retain(|name, tool| {
            let keep_tool = &**name == OTHER || keep_tool(name);
            tool.roles.retain(|role, metrics| {
                let keep = keep_tool && (&**role == NO_ROLE || keep_role(role));
                if !keep {
                    metrics.remove();
                }
                keep
            });
            if !keep_tool {
                self.remove_duration(name);
            }
            keep_tool
        });
    }

    /// Takes everything away.
    pub(super) fn clear(&self) {
        for (name, tool) in self.tools.write().drain() {
            for metrics in tool.roles.values() {
                metrics.remove();
            }
            self.remove_duration(&name);
        }
    }

    fn remove_duration(&self, tool: &str) {
        let _ = self.families.duration.remove_label_values(&[&self.namespace, &self.server, tool]);
        self.families.release(HISTOGRAM_SERIES);
    }
}
