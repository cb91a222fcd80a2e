//! The audit log: one JSON line per request and hop, through a bounded ring and one writer.
//!
//! Owns the record's fields, the ring and the file. A call that cannot be audited does not happen: the slot is
//! reserved before the call is forwarded, and a call that may change something is announced first.
//!
//! Callers without a token have a share of the ring of their own: they never take a place from those who are known. What
//! refuses them leaves lines at a bounded rate; the next line counts those that were left out.
//!
//! ```text
//! reserve -> Slot -> intent (waits for the write) -> forward -> finish
//!                      \________ line ________/               \___ line
//!                               pending bytes  ->  writer thread  ->  one write per batch
//! ```

mod line;
mod output;
mod record;
mod sampler;
mod writer;

#[cfg(test)]
mod tests;

pub use record::{Event, Outcome, Record, TEXT_BYTES};
pub use writer::{Audit, Busy, Share, Sink, Slot, Stats};
