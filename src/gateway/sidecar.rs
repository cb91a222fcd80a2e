//! The gateway of one server in a cluster: beside the server in its pod, or alone in front of it.
//!
//! Owns what runs and for how long. What policy says comes from [`super::source`]; calls are the gateway's.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::audit::Sink;
use super::certificate::{CertificateError, Certificates};
use super::drain::socket::DrainSocket;
pub use super::drain::socket::ask as ask_to_drain;
use super::report::{discovery, isolation};
use super::source::{self, Reports, Source, contact};
use super::state::State;
use super::upstream::{Config, UpstreamError};
use super::{Gateway, Settings, StartError, limits, trust};
use crate::policy::snapshot::Target;
use crate::telemetry::traces::{ExportError, Tracer};

/// What the flags say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where policy comes from, and whose it is.
    pub source: source::Settings,
    /// Where callers connect, over TLS.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz`, `/startupz` and `/readyz` answer.
    pub admin: SocketAddr,
    /// The server.
    pub upstream: Config,
    /// File of the authorities that `upstream` begins with; followed.
    pub upstream_ca: Option<PathBuf>,
    /// The address of this pod; `None`: nobody looks whether the server can be reached there. It makes sense only
    /// where the server runs in this pod.
    pub pod: Option<IpAddr>,
    /// Folder for what must outlive the process: the last policy, key and certificate. In it is the socket that
    /// [`ask_to_drain`] opens.
    pub state: PathBuf,
    /// Where audit lines go.
    pub audit: Sink,
    /// Memory limit of the process, in bytes; `None`: that of its control group.
    pub memory: Option<usize>,
    /// Base URL of an OTLP/HTTP collector.
    pub otlp_endpoint: Option<String>,
    /// Share of calls that get a span, 0 to 1.
    pub trace_sample_ratio: f64,
}

/// Why the gateway did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// See [`StartError`].
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server could never be reached.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// See [`CertificateError`].
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// See [`ExportError`].
    #[error(transparent)]
    Traces(#[from] ExportError),
    /// The folder for state cannot be used.
    #[error("failed to use {0} for the gateway's state")]
    State(PathBuf, #[source] std::io::Error),
    /// Signals cannot be received.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// A second signal came before everything had ended.
    #[error("interrupted before every call had ended")]
    Interrupted,
}

/// Runs until SIGTERM or SIGINT. Needs tokio's multi-thread runtime.
pub async fn run(options: Options) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let unusable = |error| RunError::State(options.state.clone(), error);
    let state = State::open(&options.state).map_err(unusable)?;
    let drain = DrainSocket::bind(&options.state).map_err(unusable)?;
    let target = options.source.target.clone();
    let names = names(&target);
    let certificates = Certificates::load(names.clone(), state.clone()).await?;
    let gateway = Gateway::start(Settings {
        listen: options.listen,
        admin: Some(options.admin),
        audit: options.audit,
        allow_local_fetch: false,
        tracer: Tracer::new(options.otlp_endpoint.as_deref(), options.trace_sample_ratio)?,
        hosts: names,
        memory: options.memory,
        tls: Some(certificates.tls()?),
        sole: Some(target.server.clone()),
    })
    .await?;
    let upstream = options.upstream.clone();
    gateway.put_server(&target.server, options.upstream).await?;
    gateway.expect_stream(&target.server, &target, contact::silence(&state).await);
    let own: Vec<u16> =
        std::iter::once(gateway.address()).chain(gateway.admin_address()).map(|address| address.port()).collect();
    let admin = gateway.admin_address().map(tracing::field::display);
    tracing::info!(server = target.server, listen = %gateway.address(), admin, "listening");

    let (offer, offers) = watch::channel(None);
    let (found, isolation) = watch::channel(None);
    let reports = Reports { offer: offers.clone(), isolation, ask_again: Notify::new() };
    let source = Source::new(&gateway, &options.source, state.clone(), &certificates, &reports);
    let work = async {
        let looking = async {
            match options.pod {
                Some(pod) => isolation::run(pod, &own, &found, offers).await,
                None => std::future::pending().await,
            }
        };
        // Once is enough: a server that ends later is not Ready by its own container.
        let starting = async {
            if !upstream.is_up().await {
                while !upstream.is_up().await {
                    sleep(limits::UPSTREAM_LOOK).await;
                }
                reports.ask_again.notify_one(); // It could not say what it offers until now.
            }
            gateway.server_is_up();
        };
        let discovering = discovery::run(&gateway, &target.server, &offer, &reports.ask_again);
        let trusting = async {
            if let Some(file) = &options.upstream_ca {
                trust::follow(file, |ca| gateway.trust(&target.server, ca)).await;
            }
        };
        let noting = contact::keep(&state, || gateway.must_note_contact(&target.server));
        tokio::join!(source.run(), noting, discovering, looking, trusting, starting, drain.run(&gateway));
    };
    tokio::select! {
        () = work => {}
        () = signals.next() => {}
    }
    drop(source);
    tracing::info!("stopping");
    tokio::select! {
        () = gateway.stop() => Ok(()),
        () = signals.next() => Err(RunError::Interrupted),
    }
}

/// The names that a Service has within a cluster.
fn names(Target { namespace, server }: &Target) -> Vec<String> {
    let qualified = |suffix: &str| format!("{server}.{namespace}{suffix}");
    vec![server.clone(), qualified(""), qualified(".svc"), qualified(".svc.cluster.local")]
}

/// What ends the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
