//! Puts the policy server together: judge, streams, TLS, epochs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Caches;
use super::epoch::Epochs;
use super::fleet::Fleet;
use super::identity::Identities;
use super::index::Index;
use super::judge::Judge;
use super::keys::Keys;
use super::listen::{Certificate, TlsError, connections};
use super::observe::{Observations, Observe};
use super::outbox::Outbox;
use super::stream::{Follow, Messages};
use crate::wire::proto::policy_server::{Policy, PolicyServer};
use crate::wire::proto::{FromGateway, ObserveRequest};

/// A peer that has not been heard of for so long is asked.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A peer that does not answer for so long is gone.
const ANSWER: Duration = Duration::from_secs(5);
/// A connection that outlives its streams' lifetimes is one that nobody needs.
const AGE: Duration = Duration::from_mins(75);
/// Time for streams to end when the server shuts down; a peer that does not read does not hold it up.
const FAREWELL: Duration = Duration::from_secs(5);
/// Streams of one connection: a gateway and a replica need one each.
const STREAMS: u32 = 8;
/// Largest message of a gateway, in bytes: a chunk of a catalogue.
const MESSAGE_BYTES: usize = 1 << 20;

/// How the policy server is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// DNS names and addresses by which gateways and other replicas dial it.
    pub hosts: Vec<String>,
}

/// Why the policy server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken, or not ours.
    #[error("failed to listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// HTTP/2 broke down.
    #[error("failed to serve the policy stream")]
    Serve(#[from] tonic::transport::Error),
}

/// The policy server of this replica.
pub struct Server {
    settings: Settings,
    caches: Caches,
    index: Arc<Index>,
    fleet: Arc<Fleet>,
    keys: Arc<Keys>,
    epochs: Arc<Epochs>,
}

impl Server {
    /// `index` is filled with what policy says, `fleet` with what the gateways of this replica say (and of no other: see
    /// [`super::Observer`]).
    pub fn new(
        settings: Settings,
        caches: Caches,
        index: Arc<Index>,
        fleet: Arc<Fleet>,
        keys: Arc<Keys>,
        epochs: Arc<Epochs>,
    ) -> Self {
        Self { settings, caches, index, fleet, keys, epochs }
    }

    /// Judges and serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let listen = self.settings.listen;
        let listener = TcpListener::bind(listen).await.map_err(|error| ServerError::Listen(listen, error))?;
        self.serve(listener, shutdown).await
    }

    /// As [`Server::run`], on a socket that listens already.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self { settings, caches, index, fleet, keys, epochs } = self;
        // What is started here ends with the server, also when it fails.
        let shutdown = shutdown.child_token();
        let _ends = shutdown.clone().drop_guard();
        let certificate = Certificate::issue(Arc::clone(&keys), settings.hosts)?;
        let acceptor = Arc::clone(&certificate).acceptor()?;
        tokio::spawn(certificate.renew(shutdown.clone()));

        let outbox = Arc::new(Outbox::default());
        let judge = Judge::new(caches.clone(), index, Arc::clone(&outbox), Arc::clone(&keys), Arc::clone(&epochs));
        let judging = tokio::spawn(judge.run(shutdown.clone()));
        tokio::spawn(Arc::clone(&epochs).keep(caches.clone(), shutdown.clone()));

        let identities = Identities::new(caches.cluster.clone(), caches.pods.clone());
        let observe = Observe::new(Arc::clone(&fleet), Arc::clone(&keys), shutdown.clone());
        let follow = Follow::new(identities, outbox, keys, epochs, fleet, shutdown.clone());
        let service = PolicyServer::new(Service { follow, observe }).max_decoding_message_size(MESSAGE_BYTES);
        let serving = tonic::transport::Server::builder()
            .max_connection_age(AGE)
            .max_connection_age_grace(FAREWELL)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(ANSWER))
            .max_concurrent_streams(Some(STREAMS))
            .add_service(service)
            .serve_with_incoming_shutdown(
                connections(listener, acceptor, shutdown.clone()),
                shutdown.clone().cancelled_owned(),
            );
        let given_up = async {
            shutdown.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let served = tokio::select! {
            served = serving => served,
            () = given_up => Ok(()),
        };
        shutdown.cancel();
        let _ = judging.await; // Its panics are in the log; nothing is left to do.
        Ok(served?)
    }
}

/// The two calls.
struct Service {
    follow: Follow,
    observe: Observe,
}

#[tonic::async_trait]
impl Policy for Service {
    type FollowStream = Messages;
    type ObserveStream = Observations;

    async fn follow(&self, request: Request<Streaming<FromGateway>>) -> Result<Response<Messages>, Status> {
        self.follow.follow(request).await
    }

    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<Observations>, Status> {
        self.observe.observe(&request)
    }
}
