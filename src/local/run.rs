//! `toolgate local DIR`: manifests in, enforced MCP endpoints out, until Ctrl-C.
//!
//! Owns start, the one loop, and the end. What an edit means is [`super::laptop`]'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::gateway::audit::Sink;
use crate::gateway::{Gateway, Settings, StartError};
use crate::telemetry::traces::{ExportError, Tracer};

use super::apart::{Reader, Reading};
use super::console::Console;
use super::laptop::{Laptop, Questions, Setting};
use super::manifests::Problem;
use super::output;
use super::tokens::TokenError;
use super::watch::Watch;

/// Where callers connect unless flag or overlay say otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8811);

/// Folder for files of our own in a folder of manifests.
const FOLDER: &str = ".toolgate";

/// What the flags say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of manifests.
    pub directory: PathBuf,
    /// Where to say what scripts need, once everything answers; `None`: in `.toolgate` of the folder.
    pub ready_file: Option<PathBuf>,
    /// Where callers connect; `None`: as the overlay says, else [`LISTEN`].
    pub listen: Option<SocketAddr>,
    /// Where `/metrics` answers.
    pub admin: Option<SocketAddr>,
    /// Where audit lines go; `None`: a file in `.toolgate` of the folder.
    pub audit: Option<Sink>,
    /// Where to write `mcp.json`; `None`: in `.toolgate` of the folder.
    pub mcp_json: Option<PathBuf>,
    /// Whose token stands in `mcp.json`; `None`: that of the first identity by name.
    pub mcp_json_identity: Option<String>,
    /// How long tokens are valid.
    pub token_lifetime: Duration,
    /// Memory limit of the gateway, in bytes; `None`: that of its control group.
    pub memory: Option<usize>,
    /// Base URL of an OTLP/HTTP collector.
    pub otlp_endpoint: Option<String>,
    /// Share of calls that get a span, 0 to 1.
    pub trace_sample_ratio: f64,
}

/// Why the laptop mode did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder does not exist, or cannot be read.
    #[error("failed to read {0}")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The overlay is broken, and there is no earlier one.
    #[error("{}", list(.0))]
    Overlay(Vec<Problem>),
    /// `--mcp-json-identity` names nobody.
    #[error("there is no identity `{0}` in toolgate.local.yaml")]
    Identity(String),
    /// See [`StartError`].
    #[error(transparent)]
    Start(#[from] StartError),
    /// See [`ExportError`].
    #[error(transparent)]
    Traces(#[from] ExportError),
    /// See [`TokenError`].
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A file of ours cannot be written.
    #[error("failed to write {0}; name another place with --audit, --mcp-json or --ready-file")]
    File(PathBuf, #[source] std::io::Error),
    /// Signals cannot be received.
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    /// A second Ctrl-C came before all children had ended.
    #[error("interrupted before every server had ended")]
    Interrupted,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Runs until Ctrl-C or SIGTERM, then ends every child. Needs tokio's multi-thread runtime.
pub async fn run(options: Options, mut console: Console) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let folder_error = |error| RunError::Folder(options.directory.clone(), error);
    let directory = options.directory.canonicalize().map_err(folder_error)?;
    std::fs::read_dir(&directory).map_err(folder_error)?;

    // The watch comes before the first reading: an edit in between is seen.
    let mut watch = Watch::new(&directory);
    let mut reader = Reader::new(&options.directory);
    let first = reader.read().await.map_err(folder_error)?;
    let overlay = first.overlay.clone().map_err(RunError::Overlay)?;
    if let Some(name) = options.mcp_json_identity.as_ref().filter(|name| !overlay.identities.contains_key(*name)) {
        return Err(RunError::Identity(name.clone()));
    }
    let Files { audit, mcp_json, ready } = Files::place(&options)?;
    let listen = options.listen.or(overlay.listen).unwrap_or(LISTEN);
    let tracer = Tracer::new(options.otlp_endpoint.as_deref(), options.trace_sample_ratio)?;
    let gateway = Gateway::start(Settings {
        listen,
        admin: options.admin,
        audit: audit.clone(),
        allow_local_fetch: true,
        hosts: Vec::new(),
        memory: options.memory,
        tls: None,
        sole: None,
        tracer,
    })
    .await?;
    let setting = Setting {
        directory,
        base: base_url(gateway.address()),
        listen: overlay.listen,
        listen_flag: options.listen.is_some(),
        admin: gateway.admin_address().map(base_url),
        audit: match audit {
            Sink::Stdout => "standard output".to_owned(),
            Sink::File(file) => file.display().to_string(),
        },
        ready_file: ready,
        mcp_json,
        mcp_json_identity: options.mcp_json_identity,
        token_lifetime: options.token_lifetime,
    };
    console.say(format!("listening on {}", setting.base));
    let mut laptop = Laptop::new(&gateway, setting, reader, overlay, console);
    let mut questions: Questions<'_> = FuturesUnordered::new();
    let served = serve(&mut laptop, first, &mut questions, &mut watch, &mut signals).await;

    drop(questions);
    let mut console = laptop.into_console();
    console.say("stopping");
    tokio::select! {
        () = gateway.stop() => served,
        () = signals.next() => Err(RunError::Interrupted),
    }
}

async fn serve<'g>(
    laptop: &mut Laptop<'g>,
    first: Reading,
    questions: &mut Questions<'g>,
    watch: &mut Watch,
    signals: &mut Signals,
) -> Result<(), RunError> {
    laptop.take(first, questions).await?;
    loop {
        tokio::select! {
            () = signals.next() => return Ok(()),
            () = watch.changed() => laptop.reload(questions).await?,
            Some(answer) = questions.next(), if !questions.is_empty() => laptop.answered(answer, questions)?,
        }
    }
}

/// Files that are written while it runs.
struct Files {
    audit: Sink,
    mcp_json: PathBuf,
    ready: PathBuf,
}

impl Files {
    /// Makes the folder for those that no flag places, and removes what an earlier run left for scripts.
    fn place(options: &Options) -> Result<Self, RunError> {
        let folder = options.directory.join(FOLDER);
        if options.audit.is_none() || options.mcp_json.is_none() || options.ready_file.is_none() {
            output::private_folder(&folder).map_err(|error| RunError::File(folder.clone(), error))?;
        }
        let audit = options.audit.clone().unwrap_or_else(|| Sink::File(folder.join("audit.jsonl")));
        let mcp_json = options.mcp_json.clone().unwrap_or_else(|| folder.join("mcp.json"));
        let ready = options.ready_file.clone().unwrap_or_else(|| folder.join("ready.json"));
        output::remove_stale(&ready).map_err(|error| RunError::File(ready.clone(), error))?;
        Ok(Self { audit, mcp_json, ready })
    }
}

/// `http://ADDRESS`, with loopback for an address that means "all".
fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Ctrl-C and SIGTERM.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await; // Without signals the process ends by other means.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_means_all_is_reached_by_loopback() {
        assert_eq!(base_url("0.0.0.0:8811".parse().unwrap()), "http://127.0.0.1:8811");
        assert_eq!(base_url("[::]:8811".parse().unwrap()), "http://[::1]:8811");
        assert_eq!(base_url("10.0.0.1:80".parse().unwrap()), "http://10.0.0.1:80");
    }
}
