//! Metrics, every name once.
use crate::gateway::audit::Outcome;
use std::sync::Arc;
use std::time::Duration;
/// X
pub struct Metrics {}
/// X
pub struct ServerMetrics {}
/// X
pub struct ToolMetrics {}
impl Metrics {
    /// X
    pub fn new() -> Arc<Self> {
        Arc::new(Self {})
    }
    /// X
    pub fn server(&self, _: &str, _: &str) -> Arc<ServerMetrics> {
        Arc::new(ServerMetrics {})
    }
    /// X
    pub fn render(&self) -> String {
        String::new()
    }
}
impl ServerMetrics {
    /// X
    pub fn begin(&self) {}
    /// X
    pub fn end(&self) {}
    /// X
    pub fn exchange(&self, _: &'static str, _: Outcome) {}
    /// X
    pub fn tool(&self, _: &str, _: Option<&str>) -> Arc<ToolMetrics> {
        Arc::new(ToolMetrics {})
    }
    /// X
    pub fn open(&self, _: usize, _: usize, _: usize) {}
    /// X
    pub fn retain<'a>(&self, _: impl Iterator<Item = &'a str>, _: impl Iterator<Item = &'a str>) {}
}
impl ToolMetrics {
    /// X
    pub fn record(&self, _: Outcome, _: Duration) {}
}
