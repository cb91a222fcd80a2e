//! Tests against a real API server: what only it can answer. README.md beside this file says how to run them.

// Helpers of tests, not only tests, may stop by a panic.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod cases;
mod definitions;
mod examples;
mod harness;
mod objects;
mod operator;
mod outage;
mod rules;
mod subresources;
