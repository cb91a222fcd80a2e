//! A folder of manifests: read, checked, and kept through edits that break it.
//!
//! Owns files, positions in them, and the last good version of each object. Decides nothing about policy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::policy::{Severity, World, world::Key};

/// Reads one folder again and again.
pub struct Loader {}

/// What a folder says now.
pub struct Loaded {
    /// Policy's view of all objects in force.
    pub world: World,
    /// The McpServers in force, as written.
    pub servers: BTreeMap<Key, crate::api::McpServer>,
    /// Everything wrong or doubtful, sorted by file and line.
    pub problems: Vec<Problem>,
}

/// One finding, mapped to a place. `Display` gives `FILE:LINE: error: MESSAGE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The file, as given to [`Loader::new`] plus its name.
    pub file: PathBuf,
    /// 1-based; 0 for the file or the folder as a whole.
    pub line: usize,
    /// Whether something is out of force.
    pub severity: Severity,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}: {severity}: {}", self.file.display(), self.line, self.message)
    }
}

impl Loader {
    /// Reads nothing yet.
    pub fn new(directory: &Path) -> Self {
        let _ = directory;
        Self {}
    }

    /// Reads all `*.yaml`, `*.yml` and `*.json` below the folder but `toolgate.local.yaml`. An object that is broken
    /// now keeps its last good version, if there was one; the problem says so.
    pub fn load(&mut self) -> std::io::Result<Loaded> {
        Err(std::io::Error::other("not built"))
    }
}
