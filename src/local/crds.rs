//! `toolgate crds`: the custom resource definitions as YAML, one file a kind.

use std::path::Path;

use crate::api::schema::FILES;

/// Writes every definition into a folder, which must exist.
pub fn write(dir: &Path) -> std::io::Result<()> {
    FILES.into_iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}
