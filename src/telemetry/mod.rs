//! What the process says about itself: logs, metrics, traces. Every metric name stands once: the gateway's in
//! `metrics.rs`, the operator's in `operator.rs`.
//!
//! Knows the gateway's enums that become labels, and nothing else of it. Never decides anything.

#[cfg(feature = "operator")]
pub mod admin;
#[cfg(feature = "gateway")]
mod labels;
#[cfg(feature = "gateway")]
pub mod link;
pub mod logs;
#[cfg(feature = "gateway")]
pub mod metrics;
#[cfg(feature = "operator")]
pub mod operator;
mod process;
#[cfg(feature = "gateway")]
mod series;
#[cfg(feature = "gateway")]
pub mod traces;
