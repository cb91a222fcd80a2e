//! Placeholder for the checks of rules, until they are merged.

use globset::GlobBuilder;

pub(super) fn check_condition(source: &str) -> Result<(), String> {
    cel::Program::compile(source).map(drop).map_err(|error| error.to_string().replace('\n', " "))
}

pub(super) fn check_glob(text: &str) -> Result<(), String> {
    GlobBuilder::new(text).build().map(drop).map_err(|error| error.to_string())
}

pub(super) fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.starts_with('/') { Ok(()) } else { Err("not a JSON pointer".to_owned()) }
}

pub(super) fn check_folder(folder: &str) -> Result<(), String> {
    if folder.contains("..") { Err("no folder".to_owned()) } else { Ok(()) }
}

pub(super) fn check_time_zone(name: &str) -> Result<(), String> {
    jiff::tz::TimeZone::get(name).map(drop).map_err(|error| error.to_string())
}

pub(super) fn glob_matches(glob: &str, text: &str) -> bool {
    GlobBuilder::new(glob).build().is_ok_and(|glob| glob.compile_matcher().is_match(text))
}
