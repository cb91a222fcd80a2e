//! `toolgate-gateway`: the gateway of one server in a cluster. Flags and wiring only.

// Comments on flags are what `--help` prints.
#![allow(clippy::doc_markdown)]

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use toolgate::gateway::audit::Sink;
use toolgate::gateway::memory;
use toolgate::gateway::reach::Reach;
use toolgate::gateway::sidecar::{self, Options};
use toolgate::gateway::source::{Remote, Settings};
use toolgate::gateway::upstream::{Config, http, stdio};
use toolgate::policy::snapshot::Target;
use toolgate::telemetry::logs;
use toolgate::wire::VerifyKey;

/// The enforcing gateway of an MCP server.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve one server: over loopback or a unix socket beside it in its pod, or over the network in front of it.
    Sidecar(Box<Sidecar>),
    /// Prepare the gateway that runs in this container for its end: it stops being ready, and this returns when nothing
    /// runs there any more, after 20 seconds at the latest.
    Drain(Drain),
}

#[derive(Args)]
struct Drain {
    /// The gateway's folder.
    #[arg(long, value_name = "FOLDER", env = "TOOLGATE_STATE", default_value = "/var/lib/toolgate")]
    state: PathBuf,
}

#[derive(Args)]
#[command(group = ArgGroup::new("way to the server").required(true).args(["upstream", "stdio_socket"]))]
struct Sidecar {
    /// Namespace of the McpServer.
    #[arg(long, value_name = "NAMESPACE", env = "TOOLGATE_NAMESPACE")]
    namespace: String,
    /// Name of the McpServer.
    #[arg(long, value_name = "NAME", env = "TOOLGATE_SERVER")]
    server: String,
    /// Where callers connect, over TLS.
    #[arg(long, value_name = "ADDR", env = "TOOLGATE_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where /metrics, /healthz, /startupz and /readyz answer.
    #[arg(long, value_name = "ADDR", env = "TOOLGATE_ADMIN", default_value = "0.0.0.0:9901")]
    admin: SocketAddr,
    /// The policy server: https://HOST:PORT.
    #[arg(long, value_name = "URL", env = "TOOLGATE_POLICY_SERVER")]
    policy_server: String,
    /// The only certificate authorities that may vouch for the policy server, PEM.
    #[arg(long, value_name = "PEM", env = "TOOLGATE_POLICY_CA")]
    policy_ca: String,
    /// Public key of whoever signs policy: base64 of an Ed25519 key.
    #[arg(long, value_name = "KEY", env = "TOOLGATE_VERIFY_KEY")]
    verify_key: VerifyKey,
    /// File with the policy for a gateway that starts while no policy server answers.
    #[arg(long, value_name = "FILE", env = "TOOLGATE_BOOT", default_value = "/etc/toolgate/boot/snapshot")]
    boot: PathBuf,
    /// Folder for what must outlive a restart: the last policy, key and certificate.
    #[arg(long, value_name = "FOLDER", env = "TOOLGATE_STATE", default_value = "/var/lib/toolgate")]
    state: PathBuf,
    /// File with the token that says which pod this is.
    #[arg(long, value_name = "FILE", env = "TOOLGATE_TOKEN", default_value = "/var/run/toolgate/token/token")]
    token: PathBuf,
    /// URL of a server that speaks Streamable HTTP.
    #[arg(long, value_name = "URL", env = "TOOLGATE_UPSTREAM")]
    upstream: Option<String>,
    /// Never connect to this machine for that server, whatever the URL says: somebody else wrote it.
    #[arg(long, env = "TOOLGATE_UPSTREAM_IS_REMOTE", requires = "upstream")]
    upstream_is_remote: bool,
    /// File with the only certificate authorities that may vouch for that server, PEM; read again when it changes.
    /// Default: the public ones.
    #[arg(long, value_name = "FILE", env = "TOOLGATE_UPSTREAM_CA", requires = "upstream")]
    upstream_ca: Option<PathBuf>,
    /// Socket of toolgate-shim beside a server that speaks over standard input and output.
    #[arg(long, value_name = "SOCKET", env = "TOOLGATE_STDIO_SOCKET")]
    stdio_socket: Option<PathBuf>,
    /// Whether each client session gets a process of its own. For --stdio-socket alone.
    #[arg(long, value_enum, rename_all = "PascalCase", value_name = "MODE", env = "TOOLGATE_SESSIONS")]
    #[arg(default_value = "PerClient")]
    sessions: Sessions,
    /// Address of this pod. With it the gateway looks whether its server can be reached there, around the gateway, where
    /// the server is in the same pod: behind a socket, or a URL with a loopback address.
    #[arg(long, value_name = "IP", env = "TOOLGATE_POD_IP")]
    pod_ip: Option<IpAddr>,
    /// Where audit lines go: `stdout` or a file.
    #[arg(long, value_name = "stdout|FILE", env = "TOOLGATE_AUDIT", default_value = "stdout")]
    audit: String,
    /// How much memory the process may have, as in 128Mi: half of it may be held for callers. Default: the limit of its
    /// control group, else 1Gi.
    #[arg(long, value_name = "QUANTITY", env = "TOOLGATE_MEMORY_LIMIT", value_parser = memory::parse)]
    memory_limit: Option<usize>,
    /// Send spans to this OTLP/HTTP collector, as in http://127.0.0.1:4318.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// Share of calls that get a span, from 0 to 1. A sampled caller's call always gets one.
    #[arg(long, value_name = "RATIO", env = "TOOLGATE_TRACE_SAMPLE_RATIO", default_value_t = 0.0, value_parser = ratio)]
    trace_sample_ratio: f64,
    /// Form of the process log on standard error.
    #[arg(long, value_enum, env = "TOOLGATE_LOG_FORMAT", default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Sessions {
    PerClient,
    Shared,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("must be from 0 to 1".to_owned()) }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Sidecar(flags) => serve(*flags),
        Command::Drain(flags) => drain(&flags.state),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn drain(state: &Path) -> anyhow::Result<()> {
    let answer = sidecar::ask_to_drain(state).with_context(|| format!("no gateway drains at {}", state.display()))?;
    Ok(std::io::stdout().write_all(answer.as_bytes())?)
}

fn serve(flags: Sidecar) -> anyhow::Result<()> {
    // One TLS provider for the process; a second installation can only be of the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let format = match flags.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    let filter = std::env::var("RUST_LOG").ok();
    logs::init(format, filter.as_deref()).context("failed to set up the log")?;
    let options = options(flags)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(4)) // More threads cost memory and win nothing here.
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(sidecar::run(options));
    runtime.shutdown_timeout(Duration::from_millis(100)); // Blocking work that hangs must not keep the process.
    Ok(outcome?)
}

fn options(flags: Sidecar) -> anyhow::Result<Options> {
    let (upstream, is_beside) = match (flags.upstream, flags.stdio_socket) {
        (Some(url), _) => {
            let ca = flags.upstream_ca.as_deref().map(read).transpose()?;
            let is_beside = !flags.upstream_is_remote && http::is_loopback(&url);
            let reach = if is_beside { Reach::MACHINE } else { Reach::NETWORKS };
            (Config::Http(http::Config { url, ca, reach }), is_beside)
        }
        (None, socket) => {
            let config = stdio::Config {
                name: flags.server.clone(),
                run: stdio::Run::Socket(socket.unwrap_or_default()), // One of the two is required.
                sessions: match flags.sessions {
                    Sessions::PerClient => stdio::Sessions::PerClient,
                    Sessions::Shared => stdio::Sessions::Shared,
                },
                children: stdio::Children::default(),
            };
            (Config::Stdio(config), true)
        }
    };
    Ok(Options {
        source: Settings {
            target: Target { namespace: flags.namespace, server: flags.server },
            verify_key: flags.verify_key,
            remote: Remote { url: flags.policy_server, ca: flags.policy_ca, token: flags.token },
            boot: flags.boot,
        },
        listen: flags.listen,
        admin: flags.admin,
        upstream,
        upstream_ca: flags.upstream_ca,
        pod: flags.pod_ip.filter(|_| is_beside),
        state: flags.state,
        audit: if flags.audit == "stdout" { Sink::Stdout } else { Sink::File(flags.audit.into()) },
        memory: flags.memory_limit,
        otlp_endpoint: flags.otlp_endpoint,
        trace_sample_ratio: flags.trace_sample_ratio,
    })
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
}
