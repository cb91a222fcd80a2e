//! The gateway as a whole: listeners, servers, and what is swapped while it runs.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::policy::Policy;

use super::audit::Sink;
use super::catalogue::Catalogue;
use super::upstream::{self, UpstreamError};

/// How a gateway runs. All of it is fixed at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where callers connect; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` answer; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Where audit lines go.
    pub audit: Sink,
    /// Whether issuers' keys may come over http and from loopback: on a laptop, never in a cluster.
    pub allow_local_fetch: bool,
    /// Values of `Host` and hosts of `Origin` that are accepted besides loopback names and the listen address.
    pub hosts: Vec<String>,
}

/// A running gateway.
pub struct Gateway {}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("failed to listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The audit log cannot be written.
    #[error("failed to open the audit log")]
    Audit(#[source] std::io::Error),
}

impl Gateway {
    /// Listens at once. Servers come with [`Gateway::put_server`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let _ = settings;
        Ok(Self {})
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Where `/metrics` answers.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Serves `/servers/NAME/mcp`. Until [`Gateway::publish`] gives it a policy it answers 503. A server that is
    /// there already with an equal configuration stays as it is; with another one it is replaced.
    pub async fn put_server(&self, name: &str, config: upstream::Config) {
        let _ = (name, config);
    }

    /// Ends a server: its path is unknown from now on, its children end.
    pub async fn remove_server(&self, name: &str) {
        let _ = name;
    }

    /// Puts a policy in force for a server, for the next message on.
    pub fn publish(&self, name: &str, policy: Arc<Policy>) {
        let _ = (name, policy);
    }

    /// Asks a server for what it offers, now.
    pub async fn catalogue(&self, name: &str) -> Result<Catalogue, UpstreamError> {
        let _ = name;
        Err(UpstreamError::Gone)
    }

    /// Takes no new calls, ends all streams and children, and writes the audit log out.
    pub async fn stop(self) {}
}
