//! The leader's ear: hears from every replica what its gateways say, and keeps one Fleet of all.
//!
//! Controllers read that Fleet, and no replica but the leader fills one.

mod merge;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use self::merge::Merge;
use super::fleet::Fleet;
use super::keys::Keys;
use super::observe::report;
use crate::kubernetes::watch::Cache;
use crate::policy::snapshot::Target;
use crate::wire::proto::policy_client::PolicyClient;
use crate::wire::proto::{self, observation};

/// No replica is waited for longer than this, before a gateway that was not heard of counts as not connected.
const COMPLETE: Duration = Duration::from_secs(15);
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// First and last pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// A replica that has not been heard of for so long is asked, and gone when it does not answer for half of it.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Most replicas that are heard.
const REPLICAS: usize = 64;
/// Largest message, in bytes: a gateway with a catalogue of 5,000 tools.
const MESSAGE_BYTES: usize = 8 << 20;
/// Name of the Service's port, where it has several.
const PORT: &str = "policy";

/// Where the replicas are.
pub enum Replicas {
    /// At these addresses.
    At(BTreeSet<SocketAddr>),
    /// Behind a Service: the cache holds its `EndpointSlice`s (label `kubernetes.io/service-name`).
    Behind(Cache<EndpointSlice>),
}

/// Hears all replicas.
pub struct Observer {
    replicas: Replicas,
    host: String,
    keys: Arc<Keys>,
    own: Arc<Fleet>,
    fleet: Arc<Fleet>,
}

impl Observer {
    /// `host` is a name that the replicas' certificates have ([`super::Settings::hosts`]); `own` are the gateways of
    /// this replica; `fleet` is filled, and completed ([`Fleet::complete`]).
    pub fn new(replicas: Replicas, host: String, keys: Arc<Keys>, own: Arc<Fleet>, fleet: Arc<Fleet>) -> Self {
        Self { replicas, host, keys, own, fleet }
    }

    /// Hears them until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { replicas, host, keys, own, fleet } = self;
        let ear = Arc::new(Ear {
            merge: Mutex::new(Merge::new(Arc::clone(&fleet))),
            answered: watch::Sender::new(HashSet::new()),
            host,
            keys,
            own,
        });
        let deadline = Instant::now() + COMPLETE;
        let mut known: HashMap<SocketAddr, DropGuard> = HashMap::new();
        let mut answered = ear.answered.subscribe();
        let mut moves = match &replicas {
            Replicas::At(_) => None,
            Replicas::Behind(slices) => Some(slices.changes()),
        };
        let mut is_listed = matches!(replicas, Replicas::At(_));
        loop {
            let now = match &replicas {
                Replicas::At(addresses) => addresses.clone(),
                Replicas::Behind(slices) => addresses(&slices.all()),
            };
            known.retain(|address, _| now.contains(address)); // Whoever is gone is no longer heard.
            for address in now.iter().take(REPLICAS).filter(|address| !known.contains_key(address)).collect::<Vec<_>>()
            {
                let ended = shutdown.child_token();
                tokio::spawn(Arc::clone(&ear).hear(*address, ended.clone()));
                known.insert(*address, ended.drop_guard());
            }
            let has_all = is_listed && !known.is_empty() && known.keys().all(|a| answered.borrow().contains(a));
            if !*fleet.is_complete().borrow() && (has_all || Instant::now() >= deadline) {
                fleet.complete();
            }
            let purge = ear.merge.lock().purge(Instant::now());
            let look = Instant::now() + Duration::from_secs(1);
            tokio::select! {
                () = listed(&replicas), if !is_listed => is_listed = true,
                () = moved(&mut moves) => {}
                _ = answered.changed() => {} // Its sender is in `ear`.
                () = sleep_until(purge.map_or(look, |at| at.min(look))) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

async fn listed(replicas: &Replicas) {
    if let Replicas::Behind(slices) = replicas {
        slices.ready().await;
    }
}

async fn moved(moves: &mut Option<crate::kubernetes::watch::Changes>) {
    match moves {
        Some(changes) => {
            changes.next().await; // The cache outlives this.
        }
        None => std::future::pending().await, // They never move.
    }
}

/// The addresses in `EndpointSlice`s, ready or not: a replica that is about to end still has gateways.
fn addresses(slices: &[Arc<EndpointSlice>]) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let named = ports.iter().find(|port| port.name.as_deref() == Some(PORT));
        let port = named.or_else(|| ports.first()).and_then(|port| u16::try_from(port.port?).ok());
        let Some(port) = port else { continue };
        let texts = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        let parsed = texts.filter_map(|address| address.parse::<IpAddr>().ok());
        found.extend(parsed.map(|address| SocketAddr::new(address, port)));
    }
    found
}

/// What the connections share.
struct Ear {
    merge: Mutex<Merge>,
    /// Replicas that told everything once.
    answered: watch::Sender<HashSet<SocketAddr>>,
    host: String,
    keys: Arc<Keys>,
    /// The gateways of this replica, which is one of those that are heard.
    own: Arc<Fleet>,
}

/// Why a replica is not heard.
#[derive(Debug, thiserror::Error)]
enum HearError {
    #[error("failed to connect")]
    Connect(#[from] tonic::transport::Error),
    #[error("the replica refused")]
    Call(#[from] Box<Status>),
    #[error("the replica's token is no header")]
    Token,
    #[error("the replica ended the stream")]
    Ended,
}

fn tell(address: SocketAddr, error: &(dyn std::error::Error + 'static)) {
    tracing::info!(%address, error, "a replica is not heard; it is tried again");
}

/// Numbers of connections, never used twice in a process.
static CONNECTIONS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

impl Ear {
    /// Hears one replica, again and again, until `ended`.
    async fn hear(self: Arc<Self>, address: SocketAddr, ended: CancellationToken) {
        let mut pause = PAUSES.0;
        loop {
            let connection = CONNECTIONS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let outcome = tokio::select! {
                outcome = self.once(address, connection, &mut pause) => outcome,
                () = ended.cancelled() => Ok(()),
            };
            self.merge.lock().lost(connection, Instant::now());
            let Err(error) = outcome else {
                self.answered.send_modify(|answered| {
                    answered.remove(&address);
                });
                return;
            };
            tell(address, &error);
            tokio::select! {
                () = sleep(pause) => {}
                () = ended.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn once(&self, address: SocketAddr, connection: u64, pause: &mut Duration) -> Result<(), HearError> {
        let mut observations = self.dial(address).await?;
        while let Some(observation) = observations.message().await.map_err(Box::new)? {
            *pause = PAUSES.0;
            match observation.message {
                Some(observation::Message::Gateway(gateway)) => self.told(connection, gateway),
                Some(observation::Message::Gone(proto::Gone { namespace, server, pod })) => {
                    let target = Target { namespace, server };
                    self.merge.lock().gone(connection, &target, &pod, Instant::now());
                }
                Some(observation::Message::Complete(_)) => {
                    self.answered.send_modify(|answered| {
                        answered.insert(address);
                    });
                }
                None => {} // Of a newer replica.
            }
        }
        Err(HearError::Ended)
    }

    fn told(&self, connection: u64, gateway: proto::Gateway) {
        let mut merge = self.merge.lock();
        let target = Target { namespace: gateway.namespace.clone(), server: gateway.server.clone() };
        let pod = gateway.pod.clone();
        let read = report(gateway, merge.last(connection, &target, &pod));
        if let Some((target, report)) = read {
            // What this replica itself was told is here already.
            let own = self.own.of(&target).into_iter().find(|own| **own == report);
            merge.put(connection, &target, own.unwrap_or_else(|| Arc::new(report)));
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<Streaming<proto::Observation>, HearError> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.keys.ca_pem()))
            .domain_name(self.host.clone());
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(tls)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE / 2)
            .keep_alive_while_idle(true);
        let mut client = PolicyClient::new(endpoint.connect().await?).max_decoding_message_size(MESSAGE_BYTES);
        let mut request = Request::new(proto::ObserveRequest {});
        let token = format!("Bearer {}", self.keys.replica_token()).parse().map_err(|_| HearError::Token)?;
        request.metadata_mut().insert("authorization", token);
        Ok(client.observe(request).await.map_err(Box::new)?.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort};

    use super::*;

    #[test]
    fn replicas_are_found_at_the_named_port_of_their_slices() {
        let port =
            |name: &str, port| EndpointPort { name: Some(name.to_owned()), port: Some(port), ..Default::default() };
        let endpoint = |address: &str| Endpoint { addresses: vec![address.to_owned()], ..Default::default() };
        let slice = EndpointSlice {
            endpoints: vec![endpoint("10.0.0.1"), endpoint("fd00::1"), endpoint("not an address")],
            ports: Some(vec![port("metrics", 9901), port("policy", 9443)]),
            ..Default::default()
        };

        let found: Vec<String> = addresses(&[Arc::new(slice)]).iter().map(ToString::to_string).collect();

        assert_eq!(found, ["10.0.0.1:9443", "[fd00::1]:9443"]);
    }
}
