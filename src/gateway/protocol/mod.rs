//! MCP on the wire, as bytes: envelopes, eras, methods, headers, errors, event streams, lists.
//!
//! Owns what the specification says about messages. Knows no policy and does no I/O. Messages are looked into, never
//! decoded and encoded again: what is not changed on purpose passes byte for byte.

pub mod definition;
pub mod envelope;
pub mod era;
pub mod error;
pub mod fields;
mod forged;
pub mod headers;
pub mod id;
pub mod inputs;
pub mod json;
pub mod list;
pub mod list_changed;
pub mod meta;
pub mod methods;
pub mod sse;
pub mod strict;
pub mod trace;
