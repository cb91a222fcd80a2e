//! Tells gateways which policy is in force, and hears from them.
//!
//! Every replica serves; none writes to the cluster but its keys and epoch. Decides nothing about calls.
//!
//! ```text
//! caches -> judge -> Index  -> controllers (status, boot ConfigMaps)
//!              \---> Outbox -> stream   -> gateways
//! gateways -> stream -> Fleet of this replica -> observe -> observer of the leader -> Fleet of all -> controllers
//! ```

mod epoch;
#[cfg(test)]
mod fixture;
pub mod fleet;
pub mod identity;
pub mod index;
pub mod judge;
pub mod keys;
mod listen;
mod observe;
pub mod observer;
pub mod outbox;
mod server;
mod stream;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};

pub use self::epoch::Epochs;
pub use self::observer::{Observer, Replicas};
pub use self::server::{Server, ServerError, Settings};
use crate::api::{McpGateway, McpRole, McpServer, McpTool};
use crate::kubernetes::issuer::ClusterKeys;
use crate::kubernetes::watch::Cache;

/// Label that a Pod carries with the name of its McpServer.
pub const SERVER_LABEL: &str = "toolgate.dev/server";
/// Label selector of [`Caches::config_maps`]: a ConfigMap without this label is not read.
pub const KEY_SETS: &str = "toolgate.dev/jwks=true";

/// What the policy server reads of the cluster.
#[derive(Clone)]
pub struct Caches {
    /// Every McpServer.
    pub servers: Cache<McpServer>,
    /// Every McpTool.
    pub tools: Cache<McpTool>,
    /// Every McpRole.
    pub roles: Cache<McpRole>,
    /// Every McpGateway.
    pub gateways: Cache<McpGateway>,
    /// The ConfigMaps with the label [`KEY_SETS`].
    pub config_maps: Cache<ConfigMap>,
    /// The Pods with the label [`SERVER_LABEL`].
    pub pods: Cache<Pod>,
    /// The issuer of ServiceAccount tokens.
    pub cluster: ClusterKeys,
}

/// The URL of a server's endpoint, which is the audience of the tokens that it accepts.
pub fn endpoint(namespace: &str, server: &str) -> String {
    format!("https://{server}.{namespace}.svc:8443/mcp")
}

#[cfg(test)]
mod tests;
