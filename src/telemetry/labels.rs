//! Label values: enums as text, so that no caller can make up a series.

use crate::gateway::protocol::methods::Class;

/// Stands for every value that is not declared.
pub const OTHER: &str = "_OTHER";
/// `user_role` of a call that no rule decided.
pub const NO_ROLE: &str = "none";

/// Label values of `class`; the last is for messages without one.
pub(super) const CLASSES: [&str; 10] =
    ["initialize", "session", "list", "tool", "prompt", "resource", "complete", "task", "listen", "none"];

/// Position in [`CLASSES`].
pub(super) const fn class_index(class: Option<Class>) -> usize {
    match class {
        Some(Class::Initialize) => 0,
        Some(Class::Session | Class::Discover) => 1,
        Some(Class::List(_)) => 2,
        Some(Class::Tool) => 3,
        Some(Class::Prompt) => 4,
        Some(Class::Resource) => 5,
        Some(Class::Complete) => 6,
        Some(Class::Task) => 7,
        Some(Class::Listen) => 8,
        None => 9,
    }
}
