//! Streamable HTTP upstreams.

use super::{Outbound, Reply, UpstreamError};

/// Where an HTTP server is.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its MCP endpoint, http or https.
    pub url: String,
}

/// A server reached over the network.
pub struct HttpUpstream {}

impl HttpUpstream {
    pub(super) async fn send(&self, _outbound: Outbound) -> Result<Reply, UpstreamError> {
        Err(UpstreamError::Gone)
    }
}
