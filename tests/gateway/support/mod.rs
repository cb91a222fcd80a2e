//! What every test needs: processes, folders of manifests, a client, recorded arrivals.

pub mod client;
pub mod folder;
pub mod http;
pub mod injector;
pub mod policy;
pub mod process;
pub mod shim;
pub mod sidecar;
pub mod tls;
pub mod tools;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use client::Client;
pub use folder::Folder;
pub use process::{Server, Toolgate, eventually, until};

/// What arrived at a hostile fixture.
pub struct Arrivals(PathBuf);

impl Arrivals {
    /// Reads the log that a fixture writes with `--log`.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The bytes of each message so far, as text.
    pub fn messages(&self) -> Vec<String> {
        let text = |entry: &Value| entry["line"].as_str().or_else(|| entry["body"].as_str()).map(str::to_owned);
        self.all().iter().filter_map(text).filter(|text| !text.is_empty()).collect()
    }

    /// Whether some message so far contains these characters.
    pub fn contain(&self, words: &str) -> bool {
        self.messages().iter().any(|message| message.contains(words))
    }
}

/// The hostile fixture over HTTP, whose arrivals are recorded.
pub struct Hostile {
    pub server: Server,
    pub arrivals: Arrivals,
    /// Where its recorded answers lie, by key.
    pub replay: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Hostile {
    /// Starts it with flags.
    pub fn start(flags: &[&str]) -> Self {
        let scratch = tempfile::TempDir::new().expect("a temporary folder");
        let (log, replay) = (scratch.path().join("log"), scratch.path().join("replay"));
        std::fs::create_dir(&replay).expect("a folder");
        let (log_text, replay_text) = (log.to_str().expect("UTF-8"), replay.to_str().expect("UTF-8"));
        let all = [&["--log", log_text, "--replay", replay_text], flags].concat();
        let server = Server::start("fixture-hostile", &all);
        Self { server, arrivals: Arrivals::at(&log), replay, _scratch: scratch }
    }

    /// Where it records what arrives.
    pub fn log(&self) -> &Path {
        &self.arrivals.0
    }

    /// A gateway in front of it, as server `h`, where ada may do everything.
    pub async fn behind_gateway(&self) -> Toolgate {
        Toolgate::start(Folder::new().remote("h", &self.server.url).all_for_ada()).await
    }
}
