//! What a gateway finds out about its server and reports: what it offers, and whether it can be reached around the
//! gateway.
//!
//! ```text
//! offer      PURE  a catalogue in the form of the policy stream
//! listeners  PURE  who listens on TCP, from what the kernel tells
//! discovery  asks the server, now and then
//! isolation  looks, now and then
//! ```
//! Decides nothing: a report becomes a condition elsewhere.

pub(super) mod discovery;
pub(super) mod isolation;
mod listeners;
pub(super) mod offer;
