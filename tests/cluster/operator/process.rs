//! Child processes: started with a log, ended with the test, quoted when they fail.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::eventually;

/// A running program. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: File,
}

impl Process {
    /// Starts a program whose output goes to `log`, after what is there.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).read(true).append(true).open(log).expect("a log can be written");
        let output = || log.try_clone().expect("a second handle");
        let command = command.stdin(Stdio::null()).stdout(output()).stderr(output());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, name: name.to_owned(), log }
    }

    /// What it printed, even if the file's folder is gone already.
    fn log(&self) -> String {
        let (mut bytes, mut log) = (Vec::new(), &self.log);
        let read = log.rewind().and_then(|()| log.read_to_end(&mut bytes)); // Writes go to the end all the same.
        read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits until `GET /PATH` on the admin port answers 200.
    ///
    /// # Panics
    /// With the program's log, when it ends before that or the deadline comes.
    pub(crate) async fn answers(&mut self, admin: u16, path: &str) {
        let url = format!("http://127.0.0.1:{admin}{path}");
        let mut last = String::new();
        let end = tokio::time::Instant::now() + crate::harness::DEADLINE;
        eventually(&format!("have {} answer {path}", self.name), async || {
            let over = self.child.try_wait().unwrap();
            assert!(over.is_none(), "{} ended early ({over:?}):\n{}", self.name, self.log());
            let answer = super::client::get(&url).await;
            let late = tokio::time::Instant::now() + std::time::Duration::from_secs(1) > end;
            assert!(!late, "{} never answered {path} with 200, but {last}:\n{}", self.name, self.log());
            match answer {
                Ok(answer) if answer.status == 200 => Some(()),
                other => {
                    last = format!("{other:?}");
                    None
                }
            }
        })
        .await;
    }

    /// Ends it at once, as a machine that dies would.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Sends it a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Asks it to end, and waits until it has; its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        let name = self.name.clone();
        eventually(&format!("end {name}"), async || self.child.try_wait().unwrap()).await.code()
    }

    fn end(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of the log of {}\n{}", self.name, &log[from..]);
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on. Below the usual range of outgoing connections, so that it stays free
/// while the program that will listen there starts, and starts again.
pub(crate) fn free_port() -> u16 {
    let seed = u64::from(std::process::id()) ^ u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    let candidates = (0..2000_u64).map(|step| 20_000 + (seed.wrapping_add(step * 7919) % 12_000) as u16);
    let mut free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

/// Path of a program that cargo built beside the tests.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}
