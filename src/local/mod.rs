//! The laptop mode and the offline tools: `local`, `validate`, `explain`, `crds`.
//!
//! Owns folders of manifests, the overlay, and the wiring of one gateway to them. Policy is compiled and enforced by
//! the same code as in a cluster: nothing of it is written here again.

pub mod access;
pub mod apart;
pub mod console;
pub mod crds;
pub mod explain;
pub mod identity;
mod laptop;
pub mod manifests;
pub mod output;
pub mod overlay;
pub mod plan;
pub mod registry;
pub mod run;
pub mod snapshot;
pub mod table;
pub mod tokens;
pub mod validate;
pub mod watch;
