//! The gateway as a whole: listeners, servers, and what is swapped while it runs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::AcceptFailures;
use super::audit::{Audit, Sink};
use super::catalogue::{self, Catalogue, Digests};
use super::drain::Drain;
use super::endpoint::{Endpoint, Force};
use super::fetch::Fetcher;
use super::layers::early;
use super::layers::expiry;
use super::layers::listen::Hosts;
use super::layers::record::RequestIds;
use super::lifetime::{self, Carried, Lifetime};
use super::link::Link;
use super::progress::Progress;
use super::tls::Tls;
use super::upstream::{self, UpstreamError};
use super::{admin, limits, memory, stack, sweep};
use crate::policy::Policy;
use crate::policy::snapshot::Target;
use crate::policy::version::Version;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Tracer;

/// How a gateway runs. All of it is fixed at start.
#[derive(Clone)]
pub struct Settings {
    /// Where callers connect; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` answer; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Where audit lines go.
    pub audit: Sink,
    /// Whether issuers' keys may come over http and from loopback: on a laptop, never in a cluster.
    pub allow_local_fetch: bool,
    /// Makes spans.
    pub tracer: Tracer,
    /// Values of `Host` and hosts of `Origin` that are accepted besides loopback names and the listen address.
    pub hosts: Vec<String>,
    /// Memory limit of the process, in bytes; `None`: that of its control group, or [`limits::MEMORY`].
    pub memory: Option<usize>,
    /// TLS towards callers; `None`: they come in the clear, as on a laptop.
    pub tls: Option<Tls>,
    /// The one server of a pod's gateway: it is served at `/mcp`, and nothing is at `/servers/NAME/mcp`. The gateway is
    /// not ready before [`Gateway::server_is_up`].
    pub sole: Option<String>,
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    connections: TaskTracker,
    fetcher: Fetcher,
    /// Serializes changes to the table of endpoints.
    changes: Mutex<()>,
}

/// What every connection sees.
pub(super) struct Shared {
    pub(super) audit: Audit,
    pub(super) endpoints: ArcSwap<HashMap<String, Arc<Endpoint>>>,
    pub(super) hosts: Hosts,
    pub(super) request_ids: RequestIds,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tracer: Tracer,
    pub(super) sole: Option<Box<str>>,
    pub(super) drain: Arc<Drain>,
    tls: Option<Tls>,
    /// The server of a pod took connections at least once.
    pub(super) is_server_up: AtomicBool,
    pub(super) closing: CancellationToken,
}

impl Shared {
    /// Whether callers can verify whom they talk to. In the clear there is nothing to verify.
    pub(super) fn is_vouched_for(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::is_vouched_for)
    }
}

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
        memory::set_limit(settings.memory);
        let audit = Audit::open(&settings.audit).map_err(StartError::Audit)?;
        let (listener, address) = bind(settings.listen).await?;
        let admin = match settings.admin {
            Some(wanted) => Some(bind(wanted).await?),
            None => None,
        };
        let metrics = Metrics::new();
        metrics.watch_audit(audit.clone());
        let shared = Arc::new(Shared {
            audit,
            endpoints: ArcSwap::default(),
            hosts: Hosts::new(address, &settings.hosts),
            request_ids: RequestIds::new(),
            metrics,
            tracer: settings.tracer.clone(),
            is_server_up: AtomicBool::new(settings.sole.is_none()),
            sole: settings.sole.map(Into::into),
            drain: Arc::default(),
            tls: settings.tls.clone(),
            closing: CancellationToken::new(),
        });
        let connections = TaskTracker::new();
        connections.spawn(sweep::run(shared.clone()));
        connections.spawn(accept(listener, shared.clone(), connections.clone(), Surface::Callers(settings.tls)));
        let admin_address = admin.map(|(listener, address)| {
            connections.spawn(accept(listener, shared.clone(), connections.clone(), Surface::Admin));
            address
        });
        let fetcher = Fetcher::new(settings.allow_local_fetch);
        Ok(Self { shared, address, admin_address, connections, fetcher, changes: Mutex::default() })
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/metrics` answers.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Serves `/servers/NAME/mcp`. Until [`Gateway::publish`] gives it a policy it answers 503. A server that is
    /// there already with an equal configuration stays as it is; with another one it is replaced. A configuration
    /// that could never work is refused, and what was there stays.
    pub async fn put_server(&self, name: &str, config: upstream::Config) -> Result<(), UpstreamError> {
        let replaced = {
            let _guard = self.changes.lock();
            let before = self.endpoint(name);
            if before.as_ref().is_some_and(|before| before.config == config) {
                return Ok(());
            }
            let (closing, drain) = (self.shared.closing.child_token(), self.shared.drain.clone());
            let endpoint = Endpoint::new(name, config, closing.clone(), drain)?;
            if let Some(before) = &before {
                endpoint.force.store(before.force.load_full()); // The policy is about the server, not about how it runs.
                endpoint.link.store(before.link.load_full());
            }
            let endpoint = Arc::new(endpoint);
            tokio::spawn(expiry::run(Arc::downgrade(&endpoint), closing));
            self.change(|table| table.insert(name.to_owned(), endpoint));
            before
        };
        end(replaced).await;
        Ok(())
    }

    /// Ends a server: its path is unknown from now on, its children end.
    pub async fn remove_server(&self, name: &str) {
        let removed = {
            let _guard = self.changes.lock();
            let removed = self.endpoint(name);
            self.change(|table| table.remove(name));
            if let Some(force) = removed.as_ref().and_then(|removed| removed.force.load_full()) {
                let target = &force.policy.snapshot().target;
                self.shared.metrics.remove_server(&target.namespace, &target.server);
            }
            removed
        };
        end(removed).await;
    }

    /// Puts a policy in force for a server, for the next message on.
    pub fn publish(&self, name: &str, policy: Arc<Policy>) {
        let _guard = self.changes.lock();
        if let Some(endpoint) = self.endpoint(name) {
            let before = endpoint.force.load_full();
            let force = Force::new(policy, before.as_deref(), &self.fetcher, &self.shared.metrics);
            endpoint.enforce(force);
        }
    }

    /// Trusts these certificate authorities (PEM) and no others, from now on, for a server that is reached over TLS.
    /// On an error everything stays as it was.
    pub fn trust(&self, name: &str, ca: &str) -> Result<(), UpstreamError> {
        self.endpoint(name).map_or(Ok(()), |endpoint| endpoint.upstream.trust(ca))
    }

    /// Counts a policy for a server that could not be loaded: the one before stays in force.
    pub fn policy_failed(&self, name: &str) {
        if let Some(force) = self.endpoint(name).and_then(|endpoint| endpoint.force.load_full()) {
            force.metrics.policy_failed();
        }
    }

    /// The server's policy comes from a policy server, which is not connected yet, and was not for `silent` when this
    /// process began.
    pub fn expect_stream(&self, name: &str, target: &Target, silent: Duration) {
        if let Some(endpoint) = self.endpoint(name) {
            let metrics = self.shared.metrics.link(&target.namespace, &target.server);
            endpoint.link.store(Some(Arc::new(Link::new(metrics, silent))));
        }
    }

    /// Whether the policy server is connected, and the policy in force denies once it was not for too long.
    pub fn must_note_contact(&self, name: &str) -> bool {
        self.endpoint(name).is_some_and(|endpoint| {
            endpoint.link.load().as_ref().is_some_and(|link| link.is_there())
                && endpoint.force.load().as_ref().is_some_and(|force| force.deny_after.is_some())
        })
    }

    /// The policy server is connected, or no longer. Nothing to a server without [`Gateway::expect_stream`].
    pub fn stream_is(&self, name: &str, connected: bool) {
        if let Some(link) = self.endpoint(name).and_then(|endpoint| endpoint.link.load_full()) {
            link.set(connected);
        }
    }

    /// How new the policy in force is, for metrics.
    pub fn version_is(&self, name: &str, version: &Version) {
        if let Some(link) = self.endpoint(name).and_then(|endpoint| endpoint.link.load_full()) {
            link.version(version);
        }
    }

    /// The server of a pod takes connections: callers may be sent here.
    pub fn server_is_up(&self) {
        self.shared.is_server_up.store(true, Ordering::Relaxed);
    }

    /// Waits until a server has said that one of its lists changed. Several changes may count as one.
    pub async fn lists_changed(&self, name: &str) {
        match self.endpoint(name) {
            Some(endpoint) => endpoint.changed.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Asks a server for what it offers, now.
    pub async fn catalogue(&self, name: &str, digests: Digests) -> Result<Catalogue, UpstreamError> {
        let endpoint = self.endpoint(name).ok_or_else(|| UpstreamError::Unreachable("it is not served".to_owned()))?;
        catalogue::ask(&endpoint.upstream, digests).await
    }

    /// Is not ready any more, and returns when nothing runs (0) or after [`limits::DRAIN_BOUND`] (how much still runs).
    pub async fn drain(&self) -> usize {
        tracing::info!("draining");
        let left = self.shared.drain.run(|| self.running()).await;
        if left > 0 {
            tracing::warn!(left, "calls were still running at the end of the drain");
        }
        left
    }

    /// Exchanges that run and have an end of their own.
    fn running(&self) -> usize {
        let running = |endpoint: &Endpoint| {
            let active = endpoint.force.load_full().map_or(0, |force| force.metrics.active.get());
            active.saturating_sub(endpoint.streams.count())
        };
        self.shared.endpoints.load().values().map(|endpoint| running(endpoint)).sum()
    }

    /// Takes no new calls, ends all streams and children, and writes the audit log out.
    pub async fn stop(self) {
        self.shared.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(limits::DRAIN, self.connections.wait()).await.is_err() {
            tracing::warn!("calls were still running when the gateway stopped");
        }
        let endpoints = self.shared.endpoints.swap(Arc::default());
        futures::future::join_all(endpoints.values().map(|endpoint| endpoint.upstream.stop())).await;
        self.shared.audit.close().await;
        self.shared.tracer.shutdown().await;
    }

    fn endpoint(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.shared.endpoints.load().get(name).cloned()
    }

    fn change<T>(&self, edit: impl FnOnce(&mut HashMap<String, Arc<Endpoint>>) -> T) {
        let mut table = HashMap::clone(&self.shared.endpoints.load());
        edit(&mut table);
        self.shared.endpoints.store(Arc::new(table));
    }
}

async fn end(endpoint: Option<Arc<Endpoint>>) {
    if let Some(endpoint) = endpoint {
        endpoint.closing.cancel();
        endpoint.upstream.stop().await;
    }
}

async fn bind(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = TcpListener::bind(wanted).await.map_err(|error| StartError::Listen(wanted, error))?;
    let address = listener.local_addr().map_err(|error| StartError::Listen(wanted, error))?;
    Ok((listener, address))
}

/// Who connects to a listener.
#[derive(Clone)]
enum Surface {
    /// Over TLS, where there is something to vouch for the gateway.
    Callers(Option<Tls>),
    Admin,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, connections: TaskTracker, surface: Surface) {
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut failures = AcceptFailures::new("a connection");
    loop {
        let next = async {
            // No more connections are accepted than may be open: the others wait in the kernel's queue.
            let permit = room.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let (accepted, permit) = tokio::select! {
            () = shared.closing.cancelled() => return,
            Some(next) = next => next,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                drop(permit);
                tokio::select! {
                    () = shared.closing.cancelled() => return,
                    () = failures.pause(&error) => continue,
                }
            }
        };
        let (shared, surface) = (shared.clone(), surface.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true); // Only a delay is lost where this fails.
            let stream = Progress::new(stream);
            match surface {
                Surface::Callers(Some(tls)) => secure(stream, &tls, shared).await,
                Surface::Callers(None) => connection(stream, shared, true).await,
                Surface::Admin => connection(stream, shared, false).await,
            }
            drop(permit);
        });
    }
}

async fn secure(stream: Progress<TcpStream>, tls: &Tls, shared: Arc<Shared>) {
    match tokio::time::timeout(limits::READ_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, shared, true).await,
        Ok(Err(error)) => tracing::debug!(%error, "a caller did not agree on TLS"),
        Err(_) => tracing::debug!("a caller did not finish the TLS handshake in time"),
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>, callers: bool) {
    let (closing, drain) = (shared.closing.clone(), shared.drain.clone());
    let opened = drain.round();
    let (carries, stream_now) = watch::channel(Carried::None);
    let log = shared.clone();
    let service = service_fn(move |request| {
        let (shared, carries) = (shared.clone(), carries.clone());
        async move {
            set_carried(&carries, None); // The stream before it has ended.
            let mut response =
                if callers { stack::serve(shared.clone(), request).await } else { admin::answer(&shared, &request) };
            set_carried(&carries, response.extensions_mut().remove());
            if callers && shared.drain.is_on() {
                // The next request of this client goes to another gateway.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::READ_TIMEOUT)
        .max_buf_size(limits::HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ends = async {
        tokio::select! {
            () = closing.cancelled() => {}
            // What runs on it finishes. An idle one would carry a call to a gateway whose server is gone.
            () = drain.ends(opened), if callers => {}
        }
        Signal::End
    };
    let over = async {
        lifetime::over(stream_now).await;
        Signal::Cut
    };
    // A connection wakes several times for a call, these once in its life: here each is polled only when it wakes.
    let waits: [Pin<Box<dyn Future<Output = Signal> + Send>>; 2] = [Box::pin(ends), Box::pin(over)];
    let mut signals = FuturesUnordered::from_iter(waits);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            Some(signal) = signals.next() => match signal {
                Signal::End => connection.as_mut().graceful_shutdown(),
                Signal::Cut => {
                    tracing::debug!("a connection is cut: its stream must not live any longer, and its client does not read");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        if callers {
            early::unreadable(&log, &error);
        }
        tracing::debug!(%error, "a connection broke off");
    }
}

/// What ends a connection from outside.
enum Signal {
    /// After what runs on it.
    End,
    /// At once.
    Cut,
}

/// Notes which stream a connection carries. Most carry none, now and before, and then nobody is woken.
fn set_carried(carries: &watch::Sender<Carried>, lifetime: Option<Lifetime>) {
    if lifetime.is_some() || carries.borrow().is_some() {
        carries.send_replace(lifetime);
    }
}

#[cfg(test)]
mod tests;
