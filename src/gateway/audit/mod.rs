//! The audit log: one JSON line per request and hop, through a bounded ring and one writer.
//!
//! Owns the record's fields, the ring and the file. A call that cannot be audited does not happen: the slot is
//! reserved before the call is forwarded, and a call that may change something is announced first.

mod record;
mod writer;

pub use record::{Event, Outcome, Record};
pub use writer::{Audit, Busy, Sink, Slot};
