//! World and target to snapshot. Pure, total, deterministic.

use super::snapshot::{Snapshot, Target};
use super::world::World;

/// Compiles the policy of one server. `urls` are the endpoint's own URLs, canonical one first.
///
/// `None` if the world holds no such server.
pub fn compile(world: &World, target: &Target, urls: &[String]) -> Option<Snapshot> {
    let _ = (world, target, urls);
    None
}
