//! Child processes that end with the test: the gateway under test, and the fixture servers.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use super::client::Client;
use super::folder::Folder;
use super::http;

/// Longest time for a process to be ready or to end.
const DEADLINE: Duration = Duration::from_mins(1);

/// A child that is killed when the test is over.
pub struct Process(Child);

impl Process {
    /// Starts a program.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is there").success(), "the process can be signalled");
    }

    /// Waits for the end and gives the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let end = until("the process ends", || self.0.try_wait().expect("a child can be waited for")).await;
        end.code()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("a child can be waited for").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_over() {
            let _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status();
            let end = Instant::now() + Duration::from_secs(10);
            while !self.is_over() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again until there is an answer; panics after a minute.
pub async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Like [`until`], for questions that take a while themselves.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Path of a fixture server; `cargo test` builds examples beside the tests.
pub fn fixture(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let path =
        test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}

/// A fixture server over HTTP.
pub struct Server {
    pub url: String,
    _process: Process,
}

impl Server {
    /// Starts a fixture on a free port.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(fixture(name));
        let mut process = Process::start(command.args(arguments).stdout(Stdio::piped()).stdin(Stdio::null()));
        let stdout = process.0.stdout.take().expect("stdout is piped");
        let mut url = String::new();
        BufReader::new(stdout).read_line(&mut url).expect("the fixture prints its URL");
        Self { url: url.trim().to_owned(), _process: process }
    }
}

/// `toolgate local` on a folder, ready.
pub struct Toolgate {
    pub folder: Folder,
    pub process: Process,
    ready: Value,
    scratch: TempDir,
}

impl Toolgate {
    /// Starts it and waits until everything answers.
    pub async fn start(folder: Folder) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// Starts it with further flags.
    pub async fn start_with(folder: Folder, flags: &[&str]) -> Self {
        let scratch = TempDir::new().expect("a temporary folder");
        let log = std::fs::File::create(scratch.path().join("log")).expect("a log");
        let ready = scratch.path().join("ready.json");
        let audit = scratch.path().join("audit.jsonl");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
        command.arg("local").arg(folder.path()).arg("--ready-file").arg(&ready);
        command.arg("--audit").arg(&audit).args(flags).stdin(Stdio::null());
        command.env("RUST_LOG", "info");
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut process = Process::start(&mut command);
        let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let ready = until("the gateway is ready", || {
            assert!(!process.is_over(), "toolgate ended early:\n{}", text(&scratch.path().join("log")));
            serde_json::from_str(&text(&ready)).ok()
        })
        .await;
        Self { folder, process, ready, scratch }
    }

    /// Endpoint of a server.
    pub fn url(&self, server: &str) -> String {
        let url = self.ready["servers"][server]["url"].as_str();
        url.unwrap_or_else(|| panic!("{server} is not in {}", self.ready)).to_owned()
    }

    /// `http://HOST:PORT`, from any server.
    pub fn base(&self) -> String {
        let any = self.ready["servers"].as_object().and_then(|servers| servers.keys().next().cloned());
        let url = self.url(&any.expect("there is a server"));
        url.split_once("/servers/").expect("the documented path").0.to_owned()
    }

    /// The page of metrics.
    pub async fn metrics(&self) -> String {
        let admin = self.ready["admin"].as_str().expect("the admin page has an address");
        String::from_utf8(http::get(&format!("{admin}/metrics")).await.body.to_vec()).unwrap()
    }

    /// Token of an identity.
    pub fn token(&self, identity: &str) -> String {
        let token = self.ready["identities"][identity]["token"].as_str();
        token.unwrap_or_else(|| panic!("{identity} is not in {}", self.ready)).to_owned()
    }

    /// A modern client of a server.
    pub fn modern(&self, server: &str, identity: &str) -> Client {
        Client::modern(&self.url(server), Some(&self.token(identity)))
    }

    /// A legacy client of a server, with a session.
    pub async fn legacy(&self, server: &str, identity: &str) -> Client {
        Client::legacy(&self.url(server), Some(&self.token(identity))).await
    }

    /// Where it said that it is ready.
    pub fn ready_file(&self) -> PathBuf {
        self.scratch.path().join("ready.json")
    }

    /// What the process printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// The audit records so far.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.scratch.path().join("audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an audit record.
    pub async fn audited(&self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.audit().into_iter().find(&found)).await
    }
}
