//! Streamable HTTP upstreams.

use super::{Outbound, Reply, UpstreamError};

/// A server reached over the network.
pub struct HttpUpstream {}

impl HttpUpstream {
    pub(super) async fn send(&self, _outbound: Outbound) -> Result<Reply, UpstreamError> {
        Err(UpstreamError::Gone)
    }
}
