//! What the process says about itself: logs, metrics, traces. Every metric name stands once, in `metrics.rs`.
//!
//! Knows the gateway's enums that become labels, and nothing else of it. Never decides anything.

mod labels;
pub mod link;
pub mod logs;
pub mod metrics;
mod process;
mod series;
pub mod traces;
