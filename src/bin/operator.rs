//! `toolgate-operator`: controllers and policy server. Flags and wiring only.

// Comments on flags are what `--help` prints.
#![allow(clippy::doc_markdown)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Parser, ValueEnum};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use toolgate::api::Egress;
use toolgate::controllers::settings::{PolicyServer, Settings};
use toolgate::controllers::{self, Context, Options};
use toolgate::kubernetes::caches::Caches;
use toolgate::kubernetes::issuer::ClusterKeys;
use toolgate::kubernetes::lease::{self, Election, Outcome};
use toolgate::kubernetes::secret::SecretAt;
use toolgate::kubernetes::watch::{Cache, Scope};
use toolgate::policyserver::fleet::Fleet;
use toolgate::policyserver::index::Index;
use toolgate::policyserver::keys::{self, Keys};
use toolgate::policyserver::{self, Epochs, Observer, Replicas, Server};
use toolgate::telemetry::operator::Metrics;
use toolgate::telemetry::{admin, logs};

/// Gives back what is freed at once: see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Name of the Lease.
const LEASE: &str = "toolgate-operator";
/// Time between two tries to read the keys.
const RETRY: Duration = Duration::from_secs(2);

/// Runs MCP servers behind enforcing gateways, and tells the gateways which policy is in force.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Where gateways connect.
    #[arg(long, value_name = "ADDR", env = "TOOLGATE_POLICY_LISTEN", default_value = "0.0.0.0:9443")]
    policy_listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz answer.
    #[arg(long, value_name = "ADDR", env = "TOOLGATE_ADMIN", default_value = "0.0.0.0:9901")]
    admin: SocketAddr,
    /// Watch this namespace alone; repeat for more. Default: all namespaces.
    #[arg(long, value_name = "NAMESPACE", env = "TOOLGATE_WATCH_NAMESPACE", value_delimiter = ',')]
    watch_namespace: Vec<String>,
    /// The operator's own namespace, with its Lease and its keys.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    namespace: String,
    /// Image with toolgate-gateway and toolgate-shim.
    #[arg(long, value_name = "IMAGE", env = "TOOLGATE_GATEWAY_IMAGE")]
    gateway_image: String,
    /// What gateways dial: https://HOST:PORT. A host SERVICE.NAMESPACE.svc also says where the other replicas are.
    #[arg(long, value_name = "URL", env = "TOOLGATE_POLICY_SERVER", value_parser = policy_server)]
    policy_server: Url,
    /// A replica of the policy server; repeat for more. Default: those behind the Service of --policy-server, or else
    /// this process alone.
    #[arg(long, value_name = "ADDR")]
    policy_replica: Vec<SocketAddr>,
    /// Where pods may connect to unless their McpServer says otherwise: CIDR, CIDR=PORT, or `none`; repeat for more.
    /// Default: anywhere.
    #[arg(long, value_name = "CIDR[=PORT]|none", env = "TOOLGATE_DEFAULT_EGRESS", value_delimiter = ',')]
    #[arg(value_parser = egress)]
    default_egress: Vec<DefaultEgress>,
    /// Look at every object this often, whatever happens.
    #[arg(long, value_name = "SECONDS", env = "TOOLGATE_RESYNC", default_value_t = 300)]
    #[arg(value_parser = clap::value_parser!(u32).range(5..=86_400))]
    resync: u32,
    /// The name of this process among the replicas.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: String,
    /// How long the others wait for a leader that is silent.
    #[arg(long, value_name = "SECONDS", env = "TOOLGATE_LEASE_SECONDS", default_value_t = 15)]
    #[arg(value_parser = clap::value_parser!(u32).range(3..=300))]
    lease_seconds: u32,
    /// Form of the process log on standard error.
    #[arg(long, value_enum, env = "TOOLGATE_LOG_FORMAT", default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// What gateways dial.
#[derive(Clone)]
struct Url {
    text: String,
    host: String,
}

fn policy_server(text: &str) -> Result<Url, String> {
    let authority = text.strip_prefix("https://").ok_or("must begin with https://")?.trim_end_matches('/');
    let (host, port) =
        authority.rsplit_once(':').ok_or("must end with a port, as in https://policy.system.svc:9443")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
        return Err("must be https://HOST:PORT".to_owned());
    }
    Ok(Url { text: text.to_owned(), host: host.to_owned() })
}

#[derive(Clone)]
enum DefaultEgress {
    Nowhere,
    To(Egress),
}

fn egress(text: &str) -> Result<DefaultEgress, String> {
    if text == "none" {
        return Ok(DefaultEgress::Nowhere);
    }
    let (cidr, port) = match text.split_once('=') {
        Some((cidr, port)) => (cidr, Some(port.parse::<u16>().map_err(|_| "the port must be from 1 to 65535")?)),
        None => (text, None),
    };
    let is_cidr = cidr.split_once('/').is_some_and(|(address, bits)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    if !is_cidr || port == Some(0) {
        return Err("must be a prefix such as 10.0.0.0/8, or with a port 10.0.0.0/8=443, or `none`".to_owned());
    }
    Ok(DefaultEgress::To(Egress { cidr: cidr.to_owned(), port: port.map(i32::from) }))
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: Cli) -> anyhow::Result<()> {
    // One TLS provider for the process; a second installation can only be of the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let format = match flags.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    let filter = std::env::var("RUST_LOG").ok();
    logs::init(format, filter.as_deref()).context("failed to set up the log")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start the runtime")?;
    let outcome = runtime.block_on(run(flags));
    // Whoever lost the Lease must not write any more: what still runs is dropped, not waited for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

async fn run(flags: Cli) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = signals.0.recv() => {}
            _ = signals.1.recv() => {}
        }
        tracing::info!("stopping");
        told.cancel();
    });
    let client = Client::try_default().await.context("failed to find the API server")?;
    let metrics = Arc::new(Metrics::new().context("failed to make the metrics")?);
    let scope = match flags.watch_namespace.as_slice() {
        [] => Scope::All,
        names => Scope::Namespaces(names.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect()),
    };

    // What must run for as long as the process does: if one of these ends, so does the process.
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let index = Arc::new(Index::default());
    let ready: admin::Ready = {
        let judged = index.changes();
        Arc::new(move || if *judged.borrow() > 0 { Ok(()) } else { Err("waiting for the first look at policy") })
    };
    let listener =
        TcpListener::bind(flags.admin).await.with_context(|| format!("failed to listen on {}", flags.admin))?;
    let page = admin::serve(listener, metrics.clone(), ready, stop.clone());
    tasks.spawn(async move {
        page.await;
        Ok(())
    });
    let (caches, keep) = Caches::new(&client, &scope);
    tasks.spawn(async move {
        keep.await;
        bail!("the watches ended")
    });
    let (cluster, keep) = ClusterKeys::new(&client);
    tasks.spawn(async move {
        keep.await;
        bail!("the cluster's keys are not read any more")
    });
    let secret = SecretAt::new(client.clone(), &flags.namespace, keys::SECRET);
    let Some((keys, epochs)) = load(&secret, &stop).await else { return Ok(()) };
    let own = Arc::new(Fleet::default());
    let server = Server::new(
        policyserver::Settings { listen: flags.policy_listen, hosts: vec![flags.policy_server.host.clone()] },
        policyserver::Caches {
            servers: caches.servers.clone(),
            tools: caches.tools.clone(),
            roles: caches.roles.clone(),
            gateways: caches.gateways.clone(),
            config_maps: caches.key_sets.clone(),
            pods: caches.pods.clone(),
            cluster,
        },
        index.clone(),
        own.clone(),
        keys.clone(),
        epochs,
    );
    let serving = stop.clone();
    tasks.spawn(async move { Ok(server.run(serving).await?) });

    let leading = lead(&flags, &client, caches, Serving { index, own, keys }, metrics, &stop);
    let mut leading = std::pin::pin!(leading);
    let ended = tokio::select! {
        outcome = &mut leading => {
            stop.cancel();
            return outcome;
        }
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) if stop.is_cancelled() => Ok(()),
            Ok(Ok(())) => Err(anyhow!("a part of the operator ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(anyhow!(error).context("a part of the operator broke down")),
        },
    };
    // Whatever ended: what is being written is finished, and the Lease is freed for the next leader.
    stop.cancel();
    ended.and(leading.await)
}

/// The keys and the epoch; tried until the API server answers. `None` once the process is to stop.
async fn load(secret: &SecretAt, stop: &CancellationToken) -> Option<(Arc<Keys>, Arc<Epochs>)> {
    loop {
        let loading = async {
            let keys = Keys::load(secret).await?;
            let epochs = Epochs::load(secret.clone()).await?;
            anyhow::Ok((Arc::new(keys), Arc::new(epochs)))
        };
        tokio::select! {
            () = stop.cancelled() => return None,
            loaded = loading => match loaded {
                Ok(loaded) => return Some(loaded),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the keys are not at hand, and are tried again"),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// What the policy server of this process has to do with.
struct Serving {
    index: Arc<Index>,
    /// The gateways of this replica.
    own: Arc<Fleet>,
    keys: Arc<Keys>,
}

/// Waits to lead, and writes to the cluster while this process does.
async fn lead(
    flags: &Cli,
    client: &Client,
    caches: Caches,
    Serving { index, own, keys }: Serving,
    metrics: Arc<Metrics>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = Settings {
        gateway_image: flags.gateway_image.clone(),
        policy_server: PolicyServer {
            url: flags.policy_server.text.clone(),
            namespace: flags.namespace.clone(),
            port: flags.policy_listen.port(),
        },
        ca: keys.ca_pem().to_owned(),
        verify_key: *keys.verify_key(),
        default_egress: (!flags.default_egress.is_empty()).then(|| {
            let to = |egress: &DefaultEgress| match egress {
                DefaultEgress::Nowhere => None,
                DefaultEgress::To(egress) => Some(egress.clone()),
            };
            flags.default_egress.iter().filter_map(to).collect()
        }),
    };
    let options = Options { identity: flags.identity.clone(), resync: Duration::from_secs(u64::from(flags.resync)) };
    let leads = watch::Sender::new(false);
    let mut led = leads.subscribe();
    let tell = async {
        loop {
            metrics.leads(*led.borrow_and_update());
            if led.changed().await.is_err() {
                return;
            }
        }
    };
    let slices = endpoint_slices(flags, client);
    let terms = async {
        loop {
            // A term begins with no reports: what gateways said in an earlier one may be over.
            let fleet = Arc::new(Fleet::default());
            let observer = Observer::new(
                replicas(flags, slices.as_ref()),
                flags.policy_server.host.clone(),
                keys.clone(),
                own.clone(),
                fleet.clone(),
            );
            let context =
                Arc::new(Context::new(caches.clone(), index.clone(), fleet, settings.clone(), metrics.clone()));
            let options = &options;
            let work = |token: CancellationToken| async move {
                let hearing = observer.run(token.clone());
                tokio::join!(hearing, controllers::run(client, context, options, token));
            };
            let election = Election::new(
                client,
                lease::Settings {
                    namespace: flags.namespace.clone(),
                    name: LEASE.to_owned(),
                    identity: flags.identity.clone(),
                    ttl: Duration::from_secs(u64::from(flags.lease_seconds)),
                },
            );
            match lease::hold(election, stop, &leads, work).await {
                Outcome::Stopped if stop.is_cancelled() => return Ok(()),
                Outcome::Stopped => return Err(anyhow!("the controllers ended by themselves")),
                // The API server may just have been away. The controllers are gone; the policy server goes on, so that
                // no gateway loses its stream, and this process is a candidate again.
                Outcome::Lost => {}
            }
        }
    };
    tokio::select! {
        ended = terms => ended,
        () = tell => Ok(()), // Never: its sender lives as long as this does.
    }
}

/// The EndpointSlices of the Service that `--policy-server` names, if it names one of this namespace.
fn endpoint_slices(flags: &Cli, client: &Client) -> Option<Cache<EndpointSlice>> {
    let mut labels = flags.policy_server.host.split('.');
    let (service, namespace, kind) = (labels.next()?, labels.next()?, labels.next()?);
    if kind != "svc" || namespace != flags.namespace || !flags.policy_replica.is_empty() {
        return None;
    }
    let scope = Scope::Namespaces(vec![flags.namespace.clone()]);
    let (slices, keep) = Cache::new(client, &scope, &format!("kubernetes.io/service-name={service}"));
    tokio::spawn(keep);
    Some(slices)
}

/// Where every replica of the policy server is heard.
fn replicas(flags: &Cli, slices: Option<&Cache<EndpointSlice>>) -> Replicas {
    if let Some(slices) = slices {
        return Replicas::Behind(slices.clone());
    }
    if !flags.policy_replica.is_empty() {
        return Replicas::At(flags.policy_replica.iter().copied().collect());
    }
    let ip = match flags.policy_listen.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    Replicas::At(BTreeSet::from([SocketAddr::new(ip, flags.policy_listen.port())]))
}
