//! The gateway's tier: the real binary on folders of manifests, real servers behind it, real clients before it, all
//! on loopback.
//!
//! Owns what only a whole process can show. What a pure function can show is tested beside that function.
#![allow(missing_docs, unreachable_pub, reason = "a test binary has no users")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod support;

mod anonymous;
mod audit;
mod bad_requests;
mod bad_servers;
mod clients;
mod conformance;
mod enforced;
mod fidelity;
mod isolation;
mod lifecycle;
mod list_changes;
mod must_hold;
mod oauth;
mod reference;
mod replay;
mod server_messages;
mod sessions;
mod shaping;
mod shim;
mod sidecar;
mod tokens;
mod traces;
mod versions;
