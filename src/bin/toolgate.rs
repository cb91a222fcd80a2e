//! `toolgate`: the laptop mode and the offline tools. Flags and wiring only.

// Comments on flags are what `--help` prints.
#![allow(clippy::doc_markdown)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::Value;

use toolgate::api::schema::FILES;
use toolgate::gateway::audit::Sink;
use toolgate::gateway::memory;
use toolgate::local::console::Console;
use toolgate::local::explain::{Question, explain};
use toolgate::local::run::{Options, RunError};
use toolgate::local::{apart, crds, run, snapshot, validate};
use toolgate::telemetry::logs;

/// Declare MCP servers, tools and roles; every call is enforced.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the servers of a folder of manifests behind an enforcing gateway on this machine.
    Local(Local),
    /// Check a folder of manifests: FILE:LINE: error: MESSAGE. Exit code 1 if there is an error.
    Validate {
        /// Folder of manifests.
        dir: PathBuf,
    },
    /// Say who may use what, and which role, rule and condition says so. Exit code 1 if the asked call is refused.
    Explain(Explain),
    /// Print the compiled policy of each server with its hashes, as a gateway in a cluster would get it.
    Snapshot {
        /// One server by name; all of them without it.
        #[arg(long, value_name = "NAME")]
        server: Option<String>,
        /// Folder of manifests.
        dir: PathBuf,
    },
    /// Read a folder for `local`, which runs this as a process of its own.
    #[command(name = apart::COMMAND, hide = true)]
    ReadFolder {
        /// Folder of manifests.
        dir: PathBuf,
    },
    /// Print the CustomResourceDefinitions.
    Crds {
        /// Write one file for each kind into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        output_dir: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Local {
    /// Folder of manifests, with the overlay toolgate.local.yaml.
    dir: PathBuf,
    /// Write every URL and token to this file (mode 0600) once every server has answered, or failed to. Default:
    /// DIR/.toolgate/ready.json.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Where callers connect; port 0 picks a free one. Default: `listen` of the overlay, else 127.0.0.1:8811.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where /metrics, /healthz and /readyz answer, or `off`.
    #[arg(long, value_name = "ADDR|off", default_value = "127.0.0.1:0", value_parser = admin)]
    admin: Admin,
    /// Where audit lines go: `stdout` or a file. Default: DIR/.toolgate/audit.jsonl.
    #[arg(long, value_name = "stdout|FILE", value_parser = sink)]
    audit: Option<Sink>,
    /// Write the configuration of MCP clients to this file. Default: DIR/.toolgate/mcp.json.
    #[arg(long, value_name = "FILE")]
    mcp_json: Option<PathBuf>,
    /// Whose token stands in it. Default: the first identity of the overlay by name.
    #[arg(long, value_name = "NAME")]
    mcp_json_identity: Option<String>,
    /// How long printed tokens are valid.
    #[arg(long, value_name = "HOURS", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=8760))]
    token_hours: u32,
    /// How much memory the gateway may have, as in 512Mi: half of it may be held for callers. Default: the limit of its
    /// control group, else 1Gi.
    #[arg(long, value_name = "QUANTITY", value_parser = memory::parse)]
    memory_limit: Option<usize>,
    #[command(flatten)]
    telemetry: Telemetry,
}

#[derive(Args)]
struct Telemetry {
    /// Send spans to this OTLP/HTTP collector, as in http://127.0.0.1:4318.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// Share of calls that get a span, from 0 to 1. A sampled caller's call always gets one.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0, value_parser = ratio)]
    trace_sample_ratio: f64,
    /// Form of the process log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Args)]
struct Explain {
    /// An identity of the overlay, or a subject. Without it: a table of all identities of the overlay.
    #[arg(long = "as", value_name = "USER")]
    who: Option<String>,
    /// The subject's issuer; needed where there are several.
    #[arg(long, value_name = "NAME", requires = "who")]
    issuer: Option<String>,
    /// A group that the subject has; repeat for more.
    #[arg(long = "as-group", value_name = "GROUP", requires = "who")]
    groups: Vec<String>,
    /// A claim of the token; the value is JSON, or else a string. Repeat for more.
    #[arg(long = "claim", value_name = "KEY=VALUE", value_parser = claim, requires = "who")]
    claims: Vec<(String, Value)>,
    /// An OAuth scope of the token; repeat for more.
    #[arg(long = "scope", value_name = "SCOPE", requires = "who")]
    scopes: Vec<String>,
    /// Only this server.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Judge a call of this tool.
    #[arg(long, value_name = "NAME", requires = "who")]
    tool: Option<String>,
    /// The call's arguments as a JSON object. Without it: whether some arguments are allowed.
    #[arg(long, value_name = "JSON", requires = "tool")]
    arguments: Option<String>,
    /// The instant that counts, as in 2026-11-24T09:30:00Z. Default: now.
    #[arg(long, value_name = "RFC3339")]
    at: Option<Timestamp>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Folder of manifests.
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// `--admin`: a type of its own, because clap gives `Option` a meaning.
#[derive(Clone, Copy)]
struct Admin(Option<SocketAddr>);

fn admin(text: &str) -> Result<Admin, String> {
    if text == "off" {
        return Ok(Admin(None));
    }
    let address = text.parse().map_err(|_| "neither `off` nor an address with a port, as in 127.0.0.1:9090")?;
    Ok(Admin(Some(address)))
}

// clap needs the error type.
#[allow(clippy::unnecessary_wraps)]
fn sink(text: &str) -> Result<Sink, std::convert::Infallible> {
    Ok(if text == "stdout" { Sink::Stdout } else { Sink::File(text.into()) })
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("must be from 0 to 1".to_owned()) }
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((key.to_owned(), value))
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Local(flags) => local(flags),
        Command::Validate { dir } => validate_folder(&dir),
        Command::Explain(flags) => explain_folder(flags),
        Command::Snapshot { server, dir } => print_snapshots(&dir, server.as_deref()),
        Command::ReadFolder { dir } => {
            apart::serve(&dir, std::io::stdin().lock(), std::io::stdout().lock()).map(|()| true).map_err(Into::into)
        }
        Command::Crds { output_dir } => print_crds(output_dir.as_deref()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS, // The reader has seen enough: `| head`.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn local(flags: Local) -> anyhow::Result<bool> {
    // One TLS provider for the process; a second installation can only be of the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let format = match flags.telemetry.log_format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    let filter = std::env::var("RUST_LOG").ok();
    logs::init(format, Some(filter.as_deref().unwrap_or("warn"))).context("failed to set up the log")?;
    let out: Box<dyn std::io::Write + Send> = match flags.audit {
        Some(Sink::Stdout) => Box::new(std::io::stderr()), // Standard output is for audit lines alone.
        _ => Box::new(std::io::stdout()),
    };
    let options = Options {
        directory: flags.dir,
        ready_file: flags.ready_file,
        listen: flags.listen,
        admin: flags.admin.0,
        audit: flags.audit,
        mcp_json: flags.mcp_json,
        mcp_json_identity: flags.mcp_json_identity,
        memory: flags.memory_limit,
        token_lifetime: Duration::from_secs(u64::from(flags.token_hours) * 3600),
        otlp_endpoint: flags.telemetry.otlp_endpoint,
        trace_sample_ratio: flags.telemetry.trace_sample_ratio,
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(4)) // More threads cost memory and win nothing here.
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(run::run(options, Console::new(out)));
    // Blocking work that hangs must not keep the process: every child has been ended, or the user insists.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(()) => Ok(true),
        Err(RunError::Overlay(problems)) => {
            for problem in problems {
                let _ = writeln!(std::io::stderr(), "{problem}");
            }
            Ok(false)
        }
        Err(error) => Err(anyhow!(error)),
    }
}

fn validate_folder(dir: &Path) -> anyhow::Result<bool> {
    validate::validate(dir, &mut std::io::stdout().lock()).with_context(|| format!("failed to check {}", dir.display()))
}

fn explain_folder(flags: Explain) -> anyhow::Result<bool> {
    let question = Question {
        directory: flags.dir,
        who: flags.who,
        issuer: flags.issuer,
        groups: flags.groups,
        claims: flags.claims.into_iter().collect(),
        scopes: flags.scopes,
        server: flags.server,
        tool: flags.tool,
        arguments: flags.arguments,
        at: flags.at.unwrap_or_else(Timestamp::now),
    };
    let explained = explain(&question)?;
    for problem in &explained.problems {
        let _ = writeln!(std::io::stderr(), "{problem}");
    }
    let text = match flags.output {
        Format::Table => explained.answer.to_text(),
        Format::Json => explained.answer.to_json()?,
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(explained.answer.allowed())
}

fn print_snapshots(dir: &Path, server: Option<&str>) -> anyhow::Result<bool> {
    let (snapshots, problems) =
        snapshot::snapshots(dir, server).with_context(|| format!("failed to read {}", dir.display()))?;
    for problem in &problems {
        let _ = writeln!(std::io::stderr(), "{problem}");
    }
    if snapshots.is_empty() {
        return Err(anyhow!("there is no such McpServer in {}", dir.display()));
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&snapshots)?)?;
    Ok(true)
}

fn print_crds(output_dir: Option<&Path>) -> anyhow::Result<bool> {
    if let Some(folder) = output_dir {
        std::fs::create_dir_all(folder)
            .and_then(|()| crds::write(folder))
            .with_context(|| format!("failed to write to {}", folder.display()))?;
        return Ok(true);
    }
    for (_, text) in FILES {
        let text = text.trim_start_matches("---\n").trim_end();
        writeln!(std::io::stdout(), "---\n{text}")?;
    }
    Ok(true)
}
