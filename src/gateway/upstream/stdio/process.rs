//! What a child is: a process of ours, or one that a helper runs at the other end of a socket.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connected::Connected;
use super::spawned::Spawned;
use super::{Config, Run};

/// A running child.
pub(super) enum Process {
    /// It is ours.
    Spawned(Spawned),
    /// It is a helper's.
    Connected(Connected),
}

/// How a child is spoken to. Dropping `stdin` asks it to end.
pub(super) struct Pipes {
    pub(super) stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// `None` where its container's log has it.
    pub(super) stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Process {
    /// Starts one.
    pub(super) async fn start(config: &Config) -> io::Result<(Self, Pipes)> {
        Ok(match &config.run {
            Run::Command(program) => {
                let (process, (stdin, stdout, stderr)) = Spawned::spawn(program)?;
                let pipes = Pipes { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Some(Box::new(stderr)) };
                (Self::Spawned(process), pipes)
            }
            Run::Socket(socket) => {
                let (process, input, output) = Connected::connect(socket).await?;
                (Self::Connected(process), Pipes { stdin: Box::new(input), stdout: Box::new(output), stderr: None })
            }
        })
    }

    /// Waits until it has ended by itself.
    pub(super) async fn exited(&mut self) {
        match self {
            Self::Spawned(process) => process.exited().await,
            Self::Connected(process) => process.exited().await,
        }
    }

    /// Ends it for good; `grace` is the time for each step. Its input is closed already. Returns when nothing of it is
    /// left, with how it ended in words.
    pub(super) async fn end(&mut self, grace: Duration) -> String {
        match self {
            Self::Spawned(process) => process.end(grace).await,
            Self::Connected(process) => process.end(grace).await,
        }
    }
}
