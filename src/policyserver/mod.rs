//! Tells gateways which policy is in force, and hears from them.
//!
//! Every replica serves; none writes to the cluster. [`index`] is what policy says now, written by one task; [`fleet`]
//! is what gateways said. Controllers read both and report. Decides nothing about calls.

pub mod fleet;
pub mod index;
