//! What the process says about itself: logs, metrics, traces. Every metric name stands once, in `metrics.rs`.

pub mod logs;
pub mod metrics;
pub mod traces;
