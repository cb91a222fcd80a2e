//! `toolgate snapshot`: the compiled policy of a folder, to be looked at, compared and reviewed.

use std::path::Path;

use serde::Serialize;

use crate::policy::compile;
use crate::policy::snapshot::{Snapshot, Target};

use super::manifests::{Loader, Problem};

/// One compiled policy and its digests.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hashed {
    /// See [`Snapshot::hash`].
    pub hash: String,
    /// See [`Snapshot::access_hash`]: equal on a laptop and in a cluster.
    pub access_hash: String,
    /// The policy.
    pub snapshot: Snapshot,
}

/// Compiles every server of a folder, or the one called `server`, without the laptop's additions: no local URL, no
/// local issuer.
pub fn snapshots(directory: &Path, server: Option<&str>) -> std::io::Result<(Vec<Hashed>, Vec<Problem>)> {
    let loaded = Loader::new(directory).load()?;
    let wanted = loaded.world.servers.keys().filter(|(_, name)| server.is_none_or(|wanted| wanted == name));
    let compiled = wanted.filter_map(|(namespace, name)| {
        let target = Target { namespace: namespace.clone(), server: name.clone() };
        let snapshot = compile(&loaded.world, &target, &[])?;
        Some(Hashed { hash: snapshot.hash(), access_hash: snapshot.access_hash(), snapshot })
    });
    Ok((compiled.collect(), loaded.problems))
}
