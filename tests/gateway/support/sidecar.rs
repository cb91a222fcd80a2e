//! `toolgate-gateway sidecar` as it runs in a pod.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use toolgate::local::tokens::Mint;
use toolgate::policy::Identity;
use toolgate::policy::snapshot::{Effect, FORMAT, Registration, Role, Rule, ServerRequests, Snapshot, Subject, Target};
use toolgate::policy::version::Version;
use toolgate::wire::proto::from_gateway::Message as Said;

use super::client::Client;
use super::http;
use super::policy::{PolicyServer, TOKEN};
use super::process::{Process, eventually, until};

pub const NAMESPACE: &str = "agents";

/// The files and flags of a pod, over restarts of its container.
pub struct Pod {
    pub server: String,
    scratch: TempDir,
    upstream: Vec<OsString>,
}

/// A gateway that runs.
pub struct Sidecar {
    pub process: Process,
    pub admin: String,
    /// Where callers connect, by the name of the service.
    pub url: String,
    state: PathBuf,
    log: PathBuf,
}

impl Pod {
    /// In front of a server that is reached with these flags. Names of servers tell tests apart.
    pub fn new<I: IntoIterator<Item: Into<OsString>>>(server: &str, upstream: I) -> Self {
        let scratch = TempDir::new().expect("a temporary folder");
        let upstream = upstream.into_iter().map(Into::into).collect();
        let pod = Self { server: server.to_owned(), scratch, upstream };
        pod.write("token", TOKEN.as_bytes());
        pod
    }

    /// Replaces a file as the kubelet does.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let beside = self.path("new");
        std::fs::write(&beside, bytes).expect("the folder is writable");
        std::fs::rename(beside, self.path(name)).expect("the folder is writable");
    }

    /// Leaves a boot file.
    pub fn boot(&self, sealed: &Bytes) {
        self.write("boot", sealed);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Starts the container, and waits until it listens.
    pub async fn start(&self, policy: &PolicyServer) -> Sidecar {
        let log = self.path("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let seen = text(&log).len();
        let audit = std::fs::OpenOptions::new().create(true).append(true).open(self.path("audit")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate-gateway"));
        command.args(["sidecar", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--pod-ip", "127.0.0.1"]);
        command.args(["--namespace", NAMESPACE, "--server", &self.server, "--policy-server", &policy.url()]);
        command.arg("--boot").arg(self.path("boot")).arg("--state").arg(self.path("state"));
        command.arg("--token").arg(self.path("token")).args(&self.upstream);
        command.env("TOOLGATE_POLICY_CA", policy.ca_pem());
        command.env("TOOLGATE_VERIFY_KEY", policy.signer.verify_key().unwrap().to_string());
        command.stdin(Stdio::null()).stdout(audit).stderr(file);
        let mut process = Process::start(&mut command);
        let (listen, admin) = until("the gateway listens", || {
            let log = text(&log);
            assert!(!process.is_over(), "the gateway ended early:\n{log}");
            let line = log.get(seen..)?.lines().find(|line| line.contains(r#""message":"listening""#))?;
            let line: Value = serde_json::from_str(line).ok()?;
            Some((line["listen"].as_str()?.parse().ok()?, line["admin"].as_str()?.to_owned()))
        })
        .await;
        let host = format!("{}.{NAMESPACE}.svc:8443", self.server);
        http::route(&host, listen, None);
        let state = self.path("state");
        Sidecar { process, admin: format!("http://{admin}"), url: format!("https://{host}/mcp"), state, log }
    }

    /// A policy that lets everybody use these tools, without a token.
    pub fn allowing(&self, tools: &[&str]) -> Snapshot {
        let rule = Rule {
            index: 0,
            effect: Effect::Allow,
            tools: tools.iter().map(|&tool| tool.to_owned()).collect(),
            tool_selector: None,
            prompts: Vec::new(),
            resources: Vec::new(),
            arguments: Vec::new(),
            time_window: None,
            when: None,
        };
        let all = Role { name: "all".to_owned(), inherits: Vec::new(), subjects: Vec::new(), rules: vec![rule] };
        Snapshot {
            format: FORMAT,
            target: Target { namespace: NAMESPACE.to_owned(), server: self.server.clone() },
            urls: vec![format!("https://{}.{NAMESPACE}.svc:8443/mcp", self.server)],
            registration: Registration::Auto,
            server_requests: ServerRequests::default(),
            deny_after_seconds: None,
            on_loss: toolgate::policy::snapshot::OnLoss::default(),
            tools: Vec::new(),
            roles: vec![all],
            anonymous: Some("all".to_owned()),
            issuers: Vec::new(),
            inputs: Vec::new(),
        }
    }
}

impl Pod {
    /// A policy that lets ada use these tools, with a token of an issuer that it trusts, and that token.
    pub fn allowing_ada(&self, tools: &[&str]) -> (Snapshot, String) {
        let base = "https://login.example.com";
        let (issuer, name) = ("corp".to_owned(), "ada".to_owned());
        let claims = serde_json::json!({"sub": name}).as_object().cloned().expect("an object");
        let ada =
            Identity { issuer: issuer.clone(), subject: name.clone(), groups: Vec::new(), scopes: Vec::new(), claims };
        let mut mint = Mint::new(Duration::from_mins(10));
        mint.renew(&[(name.clone(), ada)].into()).expect("a key");
        let open = self.allowing(tools);
        let subjects = vec![Subject::User { issuer: issuer.clone(), name: name.clone() }];
        let roles = open.roles.iter().map(|role| Role { subjects: subjects.clone(), ..role.clone() }).collect();
        let policy = Snapshot { issuers: vec![mint.issuer(&issuer, base)], roles, anonymous: None, ..open };
        let mut tokens = mint.tokens(base, &policy.urls, jiff::Timestamp::now()).expect("a token");
        (policy, tokens.remove(&name).expect("ada's"))
    }
}

impl Sidecar {
    /// A client without a token.
    pub fn client(&self) -> Client {
        Client::modern(&self.url, None)
    }

    /// Whether a call of this tool reaches the server.
    pub async fn allows(&self, tool: &str) -> bool {
        let answer = self.client().call(tool, serde_json::json!({})).await;
        answer.status == 200 && answer.response().get("result").is_some()
    }

    /// Tells it to drain as the pod does; what it answered once that is done.
    pub fn drain(&self) -> impl Future<Output = String> + Send + use<> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_toolgate-gateway"));
        command.args(["drain", "--state"]).arg(&self.state);
        async move {
            let output = command.output().await.expect("the program runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        }
    }

    /// The status of an admin page.
    pub async fn status(&self, page: &str) -> u16 {
        http::get(&format!("{}{page}", self.admin)).await.status
    }

    /// A figure of the metrics page, with its labels.
    pub async fn figure(&self, name: &str) -> Option<f64> {
        let page = http::get(&format!("{}/metrics", self.admin)).await;
        let text = String::from_utf8_lossy(&page.body).into_owned();
        text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
    }

    pub fn log(&self) -> String {
        text(&self.log)
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The version at which each kind was seen so often.
pub fn version(roles: u64) -> Version {
    Version { epoch: 1, seen: [("McpRole".to_owned(), roles)].into() }
}

/// Waits until it takes callers.
pub async fn ready(gateway: &Sidecar) {
    eventually("the gateway is ready", async || (gateway.status("/readyz").await == 200).then_some(())).await;
}

/// Waits until a version is acknowledged.
pub async fn acked(policy: &PolicyServer, version: &Version) {
    until("the policy is acknowledged", || {
        policy.find(0, |said| match said {
            Said::Ack(ack) => (ack.version.clone()?.seen == version.seen).then_some(()),
            _ => None,
        })
    })
    .await;
}
