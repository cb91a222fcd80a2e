//! Looks whether the server can be reached around the gateway: a socket in this pod, not ours, that listens on the
//! pod's address and answers there. Nobody can force an image to listen on loopback alone, so it is looked at.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::listeners::{dialled, listeners, reachable};
use super::offer::Offer;
use crate::gateway::state;

/// Time between two looks: a server may begin to listen at any time.
const PERIOD: Duration = Duration::from_secs(15);
/// Time for a connection within the pod.
const DIAL: Duration = Duration::from_secs(1);
/// Largest table of sockets that is read, in bytes.
const TABLE: usize = 16 << 20;
/// Sockets that are dialled.
const LISTENERS: usize = 64;
/// Addresses that are named.
const NAMED: usize = 8;

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::gateway) struct Isolation {
    /// The server cannot be reached around the gateway.
    pub(in crate::gateway) isolated: bool,
    /// Where it can, or why that is not known.
    pub(in crate::gateway) found: String,
}

/// Looks for as long as it is polled. A server that has not answered yet may still be about to listen: until then
/// only what can be reached is told.
pub(in crate::gateway) async fn run(
    pod: IpAddr,
    own: &[u16],
    found: &watch::Sender<Option<Isolation>>,
    mut offer: watch::Receiver<Option<Offer>>,
) {
    loop {
        let now = look(pod, own).await;
        let is_known = offer.borrow_and_update().as_ref().is_some_and(Offer::is_known);
        if !now.isolated || is_known {
            found.send_if_modified(|before| {
                let is_new = before.as_ref() != Some(&now);
                *before = Some(now);
                is_new
            });
        }
        tokio::select! {
            () = sleep(PERIOD) => {}
            Ok(()) = offer.changed() => {}
        }
    }
}

async fn look(pod: IpAddr, own: &[u16]) -> Isolation {
    let mut all = Vec::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match state::read(file.into(), TABLE).await {
            Ok(Some(table)) => all.extend(listeners(&String::from_utf8_lossy(&table))),
            Ok(None) if file.ends_with('6') => {} // A kernel without IPv6.
            Ok(None) => return unknown("there is no /proc/net/tcp"),
            Err(error) => return unknown(&format!("{file} cannot be read: {error}")),
        }
    }
    let reachable = reachable(all, own);
    if reachable.len() > LISTENERS {
        return unknown(&format!("{} sockets listen, which are too many to look at", reachable.len()));
    }
    let open = open(pod, &reachable).await;
    let found = open.iter().take(NAMED).fold(String::new(), |mut text, address| {
        let _ = write!(text, "{}{address}", if text.is_empty() { "" } else { ", " }); // Cannot fail.
        text
    });
    Isolation { isolated: open.is_empty(), found }
}

/// Those that answer, each where it was reached.
async fn open(pod: IpAddr, listeners: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut open = Vec::new();
    for listener in listeners {
        for address in dialled(*listener, pod) {
            if open.contains(&address) || answers(address).await {
                open.push(address);
                break;
            }
        }
    }
    open.dedup();
    open
}

/// What cannot be looked at counts as not isolated.
fn unknown(why: &str) -> Isolation {
    Isolation { isolated: false, found: why.to_owned() }
}

async fn answers(address: SocketAddr) -> bool {
    matches!(timeout(DIAL, TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_wildcard_that_answers_on_the_pods_address_is_found() {
        let pod = "127.0.0.2".parse().unwrap(); // An address of this machine that is not the usual one.
        let all = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let listening = [all.local_addr().unwrap()];

        assert_eq!(open(pod, &listening).await, [SocketAddr::new(pod, listening[0].port())]);

        drop(all);
        assert_eq!(open(pod, &listening).await, []);
    }

    #[tokio::test(start_paused = true)]
    async fn isolation_is_claimed_only_of_a_server_that_has_answered() {
        let (found, mut told) = watch::channel(None);
        let (offer, offers) = watch::channel(None);
        // Every socket of this machine that may answer is passed over: none is one of ours.
        let own: Vec<u16> = (0..=u16::MAX).collect();
        let looking = tokio::spawn(async move { run(IpAddr::from([127, 0, 0, 1]), &own, &found, offers).await });
        assert!(timeout(PERIOD * 3, told.changed()).await.is_err(), "nothing is known of a server that did not start");

        offer.send_replace(Some(Offer::new(crate::gateway::catalogue::Catalogue::default())));
        told.changed().await.unwrap();

        assert_eq!(*told.borrow(), Some(Isolation { isolated: true, found: String::new() }));
        looking.abort();
    }
}
