//! Drops what nobody asks for any more, by a timer: whoever has gone away does not come back to be noticed.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::sleep;

use super::limits;
use super::server::Shared;

/// Sweeps until the gateway ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let sweeping = async {
        loop {
            sleep(limits::TOKEN_SWEEP).await;
            for endpoint in shared.endpoints.load().values() {
                if let Some(force) = endpoint.force.load_full() {
                    force.drop_expired(Timestamp::now());
                }
            }
        }
    };
    tokio::select! {
        () = sweeping => {}
        () = shared.closing.cancelled() => {}
    }
}
