//! Stdio upstreams: supervised child processes that speak newline-delimited JSON-RPC.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Outbound, Reply, UpstreamError};

/// How to run a child.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the server, for logs.
    pub name: String,
    /// Program and arguments. No shell is involved.
    pub command: Vec<String>,
    /// The child's environment, besides the few variables that any program needs.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub directory: PathBuf,
    /// How children are shared.
    pub sessions: Sessions,
}

/// How children are shared among callers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sessions {
    /// One child for every client session; a stateless client gets one per subject.
    #[default]
    PerClient,
    /// One child for all.
    Shared,
}

/// A server that is a child process.
pub struct StdioUpstream {}

impl StdioUpstream {
    /// Prepares the upstream; children start when they are needed.
    ///
    /// Fails with [`UpstreamError::Unreachable`] if there is no command.
    pub fn new(config: Config) -> Result<Self, UpstreamError> {
        if config.command.is_empty() {
            return Err(UpstreamError::Unreachable("there is no command to run".to_owned()));
        }
        Ok(Self {})
    }

    pub(super) async fn send(&self, _outbound: Outbound) -> Result<Reply, UpstreamError> {
        Err(UpstreamError::Gone)
    }

    pub(super) async fn stop(&self) {}
}
