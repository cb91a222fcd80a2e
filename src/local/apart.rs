//! Reads the folder in a process of its own, which ends when it has read: a manifest that breaks the reader, by its
//! depth, its size or a fault of ours, never takes a running gateway with it, and the memory of parsers and schemas is
//! not the gateway's.
//!
//! Owns that process and what goes in and out: the state of the [`Loader`] both ways, and the [`Reading`].

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::manifests::{Loaded, Loader, Problem};
use super::overlay::Overlay;

/// The subcommand of this program that reads a folder; see [`serve`].
pub const COMMAND: &str = "read-folder";
/// Time for one reading.
const TIME: Duration = Duration::from_secs(30);
/// Largest reading, in bytes.
const BYTES: u64 = 256 << 20;

/// What a folder says now.
#[derive(Debug, Deserialize, Serialize)]
pub struct Reading {
    /// The manifests.
    pub loaded: Loaded,
    /// The overlay, or why there is none.
    pub overlay: Result<Overlay, Vec<Problem>>,
}

/// What the process answers.
#[derive(Deserialize, Serialize)]
struct Answer<L> {
    /// What the next reading needs to know of this one, as JSON of a [`Loader`].
    state: L,
    reading: Reading,
}

/// Reads one folder again and again.
pub struct Reader {
    directory: PathBuf,
    /// JSON of a [`Loader`]; empty before the first reading.
    state: String,
}

impl Reader {
    /// Reads nothing yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), state: String::new() }
    }

    /// Reads the folder. An error says why it could not be read; what was read before still counts.
    pub async fn read(&mut self) -> io::Result<Reading> {
        let answer = tokio::time::timeout(TIME, self.ask()).await.unwrap_or_else(|_| {
            let seconds = TIME.as_secs();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("reading took more than {seconds} s")))
        })?;
        let answer: Result<Answer<Box<RawValue>>, String> = serde_json::from_slice(&answer)?;
        let Answer { state, reading } = answer.map_err(io::Error::other)?;
        self.state = Box::<str>::from(state).into();
        Ok(reading)
    }

    async fn ask(&self) -> io::Result<Vec<u8>> {
        let mut child = Command::new(own_program()?)
            .arg(COMMAND)
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.state.as_bytes()).await?; // It reads all of this before it says anything.
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(BYTES).read_to_end(&mut answer).await?;
        }
        let status = child.wait().await?;
        if status.success() { Ok(answer) } else { Err(io::Error::other(format!("its reader ended with {status}"))) }
    }
}

/// This very program, even if its file was replaced meanwhile.
fn own_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

/// The other side: reads the state from `input` and writes the answer, or why there is none, to `output`.
pub fn serve(directory: &Path, mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text)?;
    let mut state = if text.is_empty() { Loader::new(directory) } else { serde_json::from_str(&text)? };
    let answer = match state.load() {
        Ok(loaded) => {
            let reading = Reading { loaded, overlay: Overlay::read(directory) };
            Ok(Answer { state: &state, reading })
        }
        Err(error) => Err(error.to_string()),
    };
    serde_json::to_writer(&mut output, &answer)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Path, state: &str) -> Answer<Loader> {
        let mut answer = Vec::new();
        serve(directory, state.as_bytes(), &mut answer).expect("readable");
        serde_json::from_slice::<Result<Answer<Loader>, String>>(&answer).expect("an answer").expect("readable")
    }

    #[test]
    fn the_last_good_version_survives_from_process_to_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("role.yaml");
        let role = "apiVersion: toolgate.dev/v1alpha1\nkind: McpRole\nmetadata: {name: r}\nspec: {rules: []}\n";
        std::fs::write(&file, role).expect("written");
        let first = read(folder.path(), "");
        let state = serde_json::to_string(&first.state).expect("JSON");

        std::fs::write(&file, format!("{role}---\nspec: [half")).expect("written");
        let second = read(folder.path(), &state);

        assert_eq!(first.reading.loaded.world.roles.len(), 1);
        assert_eq!(second.reading.loaded.world, first.reading.loaded.world);
        assert!(second.reading.loaded.problems.iter().any(|problem| problem.message.contains("last good version")));
    }

    #[test]
    fn examples_read_the_same_in_another_process() {
        for example in ["quickstart", "role-ladder"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example);
            let here = Loader::new(&folder).load().expect("readable");
            let there = read(&folder, "").reading;

            assert_eq!(there.loaded.world, here.world);
            assert_eq!(there.loaded.servers, here.servers);
            assert_eq!(there.overlay, Overlay::read(&folder));
        }
    }
}
