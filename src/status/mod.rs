//! PURE. What is said of each object: its whole status, from what was gathered.
//!
//! ```text
//! what policy found + what the workload is + what gateways reported + the status before  ->  the status now
//! ```
//! Owns the meaning of every condition. Has no client and no clock of its own: time comes in as an argument. Total,
//! and stable: the same facts over the status that came of them change nothing, so there is nothing to write.
//!
//! # What is true when
//! A condition speaks of a generation. While policy has not judged the newest one, what was said of the one before
//! stays as it was, with its number. An observation that rests on silence alone (a gateway is not connected, an
//! acknowledgement has not come) lowers nothing while the silence is to be expected: before every replica has told its
//! gateways ([`Enforcing::is_fleet_complete`]), and while acknowledgements may be on their way
//! ([`Enforcing::are_acks_due`]). So neither a new leader nor the edit of a role writes to objects whose state stays.

mod enforced;
mod enforcing;
mod gateway;
mod role;
mod server;
mod summary;
#[cfg(test)]
mod tests;
mod tool;
mod verdict;
mod workload;

pub use enforcing::Enforcing;
pub use gateway::{GatewayFacts, gateway};
pub use role::{RoleFacts, role};
pub use server::{ServerFacts, server};
pub use tool::{Declared, ServerView, ToolFacts, declared, is_usable, tool};
pub use verdict::Verdict;
pub use workload::{Waiting, Workload};

/// Where callers reach an McpServer in the cluster: the one audience that its endpoint accepts.
pub fn endpoint(namespace: &str, name: &str) -> String {
    format!("https://{name}.{namespace}.svc:8443/mcp")
}
