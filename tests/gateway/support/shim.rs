//! `toolgate-shim serve` as it runs in a server's container.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::process::{Process, until};

/// A shim that serves.
pub struct Shim {
    pub process: Process,
    id: u32,
    scratch: TempDir,
}

impl Shim {
    /// Serves a command, and waits until it listens.
    pub async fn serve<I: IntoIterator<Item: AsRef<OsStr>>>(command: I) -> Self {
        let scratch = TempDir::new().expect("a temporary folder");
        let log = std::fs::File::create(scratch.path().join("log")).expect("a log");
        let mut shim = Command::new(env!("CARGO_BIN_EXE_toolgate-shim"));
        shim.args(["serve", "--grace-seconds", "1", "--socket"])
            .arg(scratch.path().join("socket"))
            .arg("--")
            .args(command);
        let process = Process::start(shim.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        let id = process.id();
        let shim = Self { process, id, scratch };
        until("the shim listens", || shim.socket().exists().then_some(())).await;
        shim
    }

    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join("socket")
    }

    /// What it and its processes wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// Opens a connection, which starts a process.
    pub async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.expect("the shim takes connections")
    }

    /// Processes below it, zombies included, whoever their parent was before.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.id)
    }
}

/// The processes whose parent this is, zombies included.
pub fn children_of(parent: u32) -> Vec<u32> {
    let process = |entry: std::fs::DirEntry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        (fields.nth(1)?.parse() == Ok(parent)).then_some(id)
    };
    std::fs::read_dir("/proc").expect("/proc is there").flatten().filter_map(process).collect()
}
