//! Asks the server what it offers: at once, when it says that something changed, on demand, and every few minutes.

use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::offer::Offer;
use crate::gateway::Gateway;
use crate::gateway::catalogue::Digests;

/// Time between two questions to a server that answers.
const PERIOD: Duration = Duration::from_mins(5);
/// Time in which several changes count as one.
const SETTLE: Duration = Duration::from_secs(3);
/// Time before a server that did not answer is asked again; doubled after each.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest such time.
const AGAIN_MAX: Duration = Duration::from_mins(1);

/// Asks for as long as it is polled, and tells what is new.
pub(in crate::gateway) async fn run(
    gateway: &Gateway,
    server: &str,
    offer: &watch::Sender<Option<Offer>>,
    on_demand: &Notify,
) {
    let mut again = AGAIN;
    loop {
        let wait = match gateway.catalogue(server, Digests::Compute).await {
            Ok(catalogue) => {
                again = AGAIN;
                publish(offer, Offer::new(catalogue));
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "the server did not say what it offers");
                let stale = Offer::stale(offer.borrow().as_ref(), &error.to_string());
                publish(offer, stale);
                let wait = again;
                again = (again * 2).min(AGAIN_MAX);
                wait
            }
        };
        // Some servers say that their lists changed at the start of each session, ours included.
        let _ = gateway.lists_changed(server).now_or_never();
        tokio::select! {
            () = sleep(wait) => {}
            () = on_demand.notified() => {}
            () = gateway.lists_changed(server) => sleep(SETTLE).await,
        }
    }
}

fn publish(offer: &watch::Sender<Option<Offer>>, now: Offer) {
    offer.send_if_modified(|before| {
        let is_new = before.as_ref() != Some(&now);
        *before = Some(now);
        is_new
    });
}
