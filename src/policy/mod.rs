//! PURE. What may be called by whom, from declared objects to one decision.
//!
//! ```text
//! parse(objects) -> World -> compile(&World, target) -> Snapshot -> Policy::load -> .subject -> .decide
//! ```
//! Owns the meaning of roles, rules, conditions and lists. Has no runtime, no client and no clock of its own:
//! time comes in as an argument. Deny wins; what no rule allows is denied; what cannot be evaluated is denied.

mod arguments;
mod check;
pub mod compile;
mod condition;
pub mod decide;
pub(crate) mod entries;
pub mod explain;
pub mod extent;
mod glob;
pub mod identity;
mod input;
pub mod load;
#[cfg(feature = "api")]
pub mod parse;
mod possible;
mod retain;
mod roles;
mod rule;
mod scopes;
pub mod snapshot;
mod truth;
mod uri;
pub mod version;
mod window;
pub mod world;

pub use check::{
    check_condition, check_folder, check_glob, check_pointer, check_time_zone, check_uri_glob, glob_matches,
};
pub use compile::{Compiler, compile};
pub use decide::{Call, Decision, Item, Reason, RuleRef, Verdict};
pub use explain::{Explanation, Reach, RuleReport, allowing_roles, conditions, explain, reach};
pub use identity::Identity;
pub use load::{LoadError, Policy, SubjectView};
pub use snapshot::Snapshot;
pub use world::{Finding, ObjectRef, Severity, World};

#[cfg(test)]
mod tests;
