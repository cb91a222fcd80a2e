//! The laptop mode and the offline tools: `local`, `validate`, `explain`, `crds`.
//!
//! Owns folders of manifests, the overlay, and the wiring of one gateway to them. Policy is compiled and enforced by
//! the same code as in a cluster: nothing of it is written here again.

pub mod crds;
pub mod manifests;
pub mod validate;
