//! `toolgate validate`: everything wrong or doubtful in a folder, one line each.

use std::io::Write;
use std::path::Path;

use super::manifests::Loader;
use crate::policy::Severity;

/// Prints every problem as `FILE:LINE: error: MESSAGE`, then a summary. Returns whether there was no error; warnings
/// do not count. Fails if the folder cannot be read or the output cannot be written.
pub fn validate(dir: &Path, out: &mut impl Write) -> std::io::Result<bool> {
    let loaded = Loader::new(dir).load()?;
    for problem in &loaded.problems {
        writeln!(out, "{problem}")?;
    }
    let errors = loaded.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = loaded.problems.len() - errors;
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    writeln!(out, "{}, {}, {}", count(loaded.objects, "object"), count(errors, "error"), count(warnings, "warning"))?;
    Ok(errors == 0)
}
