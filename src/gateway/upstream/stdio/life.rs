//! The life of a child: its pipes are served until it ends, and then nothing of it is left.
//!
//! Owns the pipes. What a line means is the child's to say.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::child::{Child, End};
use super::process::{Pipes, Process};
use super::wire::{Line, Lines};

/// Longest line of standard error that is logged whole, in bytes.
const STDERR_LINE: usize = 8 << 10;

/// How a child's life ended.
#[derive(Debug)]
pub(super) struct Exit {
    /// We asked for it.
    pub(super) asked: bool,
    /// How long it lived.
    pub(super) up: Duration,
    /// In words: "the server exited with status 1".
    pub(super) why: String,
}

/// The life of a child, from its start until nothing of it is left.
pub(super) async fn live(
    child: Arc<Child>,
    mut process: Process,
    Pipes { stdin, stdout, stderr }: Pipes,
    queue: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
) -> Exit {
    /// What a process wrote before it exited is read at most this long: others may hold its output open.
    const REST: Duration = Duration::from_secs(1);
    let started = Instant::now();
    let log = AbortOnDropHandle::new(tokio::spawn(log(child.name.clone(), stderr)));
    let mut reader = Box::pin(read(&child, stdout).fuse());
    let mut writer = Box::pin(write(stdin, queue, child.bounds.write));
    let (end, asked) = tokio::select! {
        end = &mut reader => (end, false),
        () = &mut writer => (End::Gone, false),
        () = process.exited() => (timeout(REST, &mut reader).await.unwrap_or(End::Gone), false),
        () = stop.cancelled() => (End::Gone, true),
    };
    child.end(end);
    drop(writer); // Closes the child's standard input, which asks it to end.
    let up = started.elapsed();
    let status = tokio::select! {
        status = process.end(child.bounds.grace) => status,
        // A child that still writes must not block before it reads that its input is closed.
        never = async { (&mut reader).await; std::future::pending().await } => never,
    };
    // The last words of a server that failed are the ones to read.
    let _ = timeout(Duration::from_millis(100), log).await;
    let why = match end {
        End::TooLarge => format!("the server wrote a line of more than {} bytes", child.bounds.message),
        End::Gone => describe(status),
    };
    Exit { asked, up, why }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => format!("the server exited with status {code}"),
        Ok((None, Some(signal))) => format!("the server was ended by signal {signal}"),
        Ok((None, None)) => "the server exited".to_owned(),
        Err(error) => format!("the server's exit is unknown: {error}"),
    }
}

async fn read(child: &Child, stdout: ChildStdout) -> End {
    let mut lines = Lines::new(stdout, child.bounds.message);
    loop {
        match lines.next().await {
            Ok(Some(Line::Whole(line))) => child.receive(&line),
            // Whose answer it was cannot be known, so every call of this child fails and the child ends.
            Ok(Some(Line::TooLong(head))) => {
                child.report_odd(&head, "it is too long");
                return End::TooLarge;
            }
            Ok(None) | Err(_) => return End::Gone,
        }
    }
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Bytes>, limit: Duration) {
    while let Some(line) = queue.recv().await {
        // A child that reads nothing for so long is hung; its callers must not wait for ever.
        match timeout(limit, stdin.write_all(&line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn log(server: Arc<str>, stderr: impl AsyncRead + Unpin) {
    let mut lines = Lines::new(stderr, STDERR_LINE);
    while let Ok(Some(line)) = lines.next().await {
        let (Line::Whole(text) | Line::TooLong(text)) = line;
        if !text.is_empty() {
            tracing::info!(target: "upstream::stderr", %server, line = printable(&text), "stderr");
        }
    }
}

/// Text of a server for our log: no control character of it reaches a terminal.
pub(super) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}
