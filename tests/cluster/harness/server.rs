//! An API server of one's own: started by `tests/cluster/up`, ended with this process or by dropping it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use kube::Client;
use kube::config::Kubeconfig;
use serde_json::Value;

use super::repository;

/// etcd, kube-apiserver and kube-controller-manager on ports of their own.
pub(crate) struct ApiServer {
    state: PathBuf,
    up: Child,
    /// `up --follow` ends when this does, whichever way this process ends.
    hold: Option<ChildStdin>,
}

impl ApiServer {
    /// Starts it and returns when it answers.
    ///
    /// # Panics
    /// With the words of `up` when a prerequisite is missing or a component does not start.
    pub(crate) fn start() -> Self {
        let state = unused_path();
        // A file without a name: nothing is left of it, and `up` can write there when this process is gone.
        let mut said = tempfile::tempfile().expect("no temporary file");
        let mut up = command(&state)
            .args(["api-up", "--follow"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said.try_clone().unwrap())
            .spawn()
            .expect("tests/cluster/up cannot be run; it needs bash");
        let hold = up.stdin.take();
        // One line when it is up, or the end of the output when it is not.
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if !line.starts_with("export KUBECONFIG=") {
            let _ = up.wait();
            let mut words = String::new();
            said.rewind().unwrap();
            said.read_to_string(&mut words).unwrap();
            panic!("no API server for tests:\n{words}");
        }
        Self { state, up, hold }
    }

    /// As whom and where to call it. The user may do everything.
    pub(crate) fn kubeconfig(&self) -> Kubeconfig {
        Kubeconfig::read_from(self.state.join("kubeconfig/admin")).expect("up leaves a kubeconfig")
    }

    /// A client for the runtime that asks.
    pub(crate) async fn client(&self) -> Client {
        super::client(self.kubeconfig()).await
    }

    /// Ends a component, for example `kube-apiserver`, and returns when it is gone.
    pub(crate) fn stop(&self, component: &str) {
        self.run(["stop", component]);
    }

    /// Starts a component that was stopped. An API server answers when this returns.
    pub(crate) fn resume(&self, component: &str) {
        self.run(["start", component]);
    }

    /// Stops everything, lets somebody work on etcd's folder, and starts it all again: with another folder's content
    /// this is what a restore from a backup does.
    pub(crate) fn offline(&self, work: impl FnOnce(&Path)) {
        // Who writes goes first, and comes last.
        let components = ["kube-controller-manager", "kube-apiserver", "etcd"];
        for component in components {
            self.stop(component);
        }
        work(&self.state.join("etcd"));
        for component in components.into_iter().rev() {
            self.resume(component);
        }
    }

    /// Every request that it has answered so far: events of its audit log, in the order in which they were answered.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state.join("log/audit")).expect("the audit log can be read");
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) {
        let output = command(&self.state).args(arguments).output().unwrap();
        assert!(output.status.success(), "up {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.hold.take());
        let ended = self.up.wait();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("the API server in {} was not stopped cleanly", self.state.display());
        }
    }
}

/// `up` makes its folder itself, to be sure that nobody else has it.
fn unused_path() -> PathBuf {
    tempfile::Builder::new().prefix("toolgate-api-").tempdir().expect("no temporary folder").path().to_owned()
}

fn command(state: &Path) -> Command {
    let mut command = Command::new(repository().join("tests/cluster/up"));
    command.env("TOOLGATE_TEST_STATE", state);
    command
}
