//! The life of a child: its pipes are served until it ends, and then nothing of it is left.
//!
//! Owns the pipes. What a line means is the child's to say.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::child::{Child, End, Queued};
use super::process::{Pipes, Process};
use super::wire::{Line, Lines};
use crate::gateway::memory;

/// Longest line of standard error that is logged whole, in bytes.
const STDERR_LINE: usize = 8 << 10;
/// Lines of standard error that are kept for the end.
const LAST_LINES: usize = 10;
/// What is kept of each, in bytes.
const LAST_LINE: usize = 400;

/// How a child's life ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// We asked for it.
    pub(super) asked: bool,
    /// How long it lived.
    pub(super) up: Duration,
    /// In words: "the server exited with status 1".
    pub(super) why: String,
    /// The last lines of standard error, oldest first, each cut to a bound.
    pub(super) last_lines: Vec<String>,
}

/// The life of a child, from its start until nothing of it is left.
pub(super) async fn live(
    child: Arc<Child>,
    mut process: Process,
    Pipes { stdin, stdout, stderr }: Pipes,
    mut queue: mpsc::Receiver<Queued>,
    stop: CancellationToken,
) -> Exit {
    /// What a process wrote before it exited is read at most this long: others may hold its output open.
    const REST: Duration = Duration::from_secs(1);
    let started = Instant::now();
    let last_lines = Arc::new(Mutex::new(VecDeque::new()));
    let (name, kept) = (child.name.clone(), last_lines.clone());
    let log = stderr.map(|stderr| AbortOnDropHandle::new(tokio::spawn(log(name, stderr, kept))));
    let mut reader = Box::pin(read(&child, stdout).fuse());
    let mut writer = Box::pin(write(stdin, &mut queue, child.bounds.write));
    let (end, asked) = tokio::select! {
        end = &mut reader => (end, false),
        () = &mut writer => (End::Gone, false),
        () = process.exited() => (timeout(REST, &mut reader).await.unwrap_or(End::Gone), false),
        () = stop.cancelled() => (End::Gone, true),
    };
    drop(writer); // Closes the child's standard input, which asks it to end.
    child.end(end, &unsent(&mut queue));
    let up = started.elapsed();
    let ended = tokio::select! {
        ended = process.end(child.bounds.grace) => ended,
        // A child that still writes must not block before it reads that its input is closed.
        never = async { (&mut reader).await; std::future::pending().await } => never,
    };
    // The last words of a server that failed are the ones to read.
    if let Some(log) = log {
        let _ = timeout(Duration::from_millis(100), log).await;
    }
    let why = match end {
        End::TooLarge => format!("the server wrote a line of more than {} bytes", child.bounds.message),
        End::Gone | End::Parked => ended,
    };
    let last_lines = std::mem::take(&mut *last_lines.lock()).into();
    Exit { asked, up, why, last_lines }
}

async fn read(child: &Child, stdout: impl AsyncRead + Unpin) -> End {
    let hold = memory::budget().hold(memory::Owner::Server(child.name.clone()));
    let mut lines = Lines::counted(stdout, child.bounds.message, hold);
    loop {
        match lines.next().await {
            Ok(Some(Line::Whole(line))) => child.receive(&line),
            // Whose answer it was cannot be known, so every call of this child fails and the child ends.
            Ok(Some(Line::TooLong(head))) => {
                child.report_odd(&head, "it is too long");
                return End::TooLarge;
            }
            Ok(None) => return End::Gone,
            Err(error) => {
                tracing::warn!(server = %child.name, %error, "the server's output cannot be read any more");
                return End::Gone;
            }
        }
    }
}

/// The calls whose lines nobody began to write. None comes later: whoever has a line now is told that it is too late.
fn unsent(queue: &mut mpsc::Receiver<Queued>) -> HashSet<u64> {
    queue.close();
    std::iter::from_fn(|| queue.try_recv().ok()).filter_map(|queued| queued.call).collect()
}

async fn write(mut stdin: impl AsyncWrite + Unpin, queue: &mut mpsc::Receiver<Queued>, limit: Duration) {
    while let Some(Queued { line, .. }) = queue.recv().await {
        // A child that reads nothing for so long is hung; its callers must not wait for ever.
        match timeout(limit, stdin.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn log(server: Arc<str>, stderr: impl AsyncRead + Unpin, last_lines: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = Lines::new(stderr, STDERR_LINE);
    while let Ok(Some(line)) = lines.next().await {
        let (Line::Whole(text) | Line::TooLong(text)) = line;
        if text.is_empty() {
            continue;
        }
        tracing::info!(target: "upstream::stderr", %server, line = printable(&text), "stderr");
        let mut last_lines = last_lines.lock();
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(printable(text.get(..LAST_LINE).unwrap_or(&text)));
    }
}

/// Text of a server for our log: no control character of it reaches a terminal.
pub(super) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_within_bounds() {
        let lines: Vec<String> = (0..50).map(|line| format!("{line}: \u{1b}[31m{}", "é".repeat(1_000))).collect();
        let kept = Arc::new(Mutex::new(VecDeque::new()));

        log("s".into(), lines.join("\n\n").as_bytes(), kept.clone()).await;

        let kept = kept.lock();
        assert_eq!(kept.len(), LAST_LINES);
        assert!(kept.front().unwrap().starts_with("40:  [31mé") && kept.back().unwrap().starts_with("49: "));
        assert!(kept.iter().all(|line| line.len() <= LAST_LINE + 2), "{kept:?}"); // A replacement character at the cut.
    }
}
