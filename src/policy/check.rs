//! The checks that one field of a rule can pass or fail by itself, for `parse` and `validate`.
//!
//! Each is what [`Policy::load`](super::Policy::load) will do with the field, so what passes here loads. Errors are
//! lower case, without a full stop, and say what to write instead.

use super::{arguments, condition, glob, window};

/// Checks a `when` condition: bounds, syntax, and that only `identity`, `arguments`, `tool` and `now` are read.
pub fn check_condition(source: &str) -> Result<(), String> {
    condition::Condition::compile(source).map(drop)
}

/// Checks a glob over names.
pub fn check_glob(text: &str) -> Result<(), String> {
    glob::Glob::parse(text).map(drop)
}

/// Checks a glob over URIs: it must have a canonical form, because it is compared with canonical URIs.
pub fn check_uri_glob(text: &str) -> Result<(), String> {
    glob::Glob::parse_uri(text).map(drop)
}

/// Checks a JSON pointer (RFC 6901) into the arguments.
pub fn check_pointer(pointer: &str) -> Result<(), String> {
    arguments::check_pointer(pointer)
}

/// Checks a folder of `below`.
pub fn check_folder(folder: &str) -> Result<(), String> {
    arguments::check_folder(folder)
}

/// Checks the name of a time zone.
pub fn check_time_zone(name: &str) -> Result<(), String> {
    window::zone(name).map(drop)
}

/// Whether `text` is named by `glob`; a bad glob names nothing. For findings such as "matches nothing".
pub fn glob_matches(glob: &str, text: &str) -> bool {
    glob::Glob::parse(glob).is_ok_and(|glob| glob.matches(text))
}
