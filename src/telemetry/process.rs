//! The process's own figures from `/proc/self`, where there is one.

use std::fs;

/// Resident memory in bytes, and threads.
pub(super) fn memory_and_threads() -> (Option<u64>, Option<u64>) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    (field("VmRSS:").map(|kib| kib * 1024), field("Threads:"))
}

/// Open file descriptors.
pub(super) fn open_files() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries.saturating_sub(1)).ok() // One of them reads the folder.
}
