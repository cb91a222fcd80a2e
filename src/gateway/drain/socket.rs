//! Who may say that a gateway is about to end: whoever opens a socket in its own folder. In a pod that folder is mounted
//! in the gateway's container alone, so neither the server beside it, nor whoever makes that server fetch a URL, nor
//! another pod can take a gateway out of service. A connection is the request; its answer is one line.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

use crate::gateway::accept::AcceptFailures;
use crate::gateway::{Gateway, limits};

/// File of the socket.
const SOCKET: &str = "drain";
/// Time for an answer beyond the time of a drain.
const SLACK: Duration = Duration::from_secs(5);

/// The socket, bound.
pub(in crate::gateway) struct DrainSocket(UnixListener);

impl DrainSocket {
    /// Binds it, in place of one that an earlier process left.
    pub(in crate::gateway) fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(path).map(Self),
        }
    }

    /// Drains when asked, for as long as it is polled.
    pub(in crate::gateway) async fn run(self, gateway: &Gateway) -> Infallible {
        let mut failures = AcceptFailures::new("a request to drain");
        loop {
            match self.0.accept().await {
                Ok((mut asker, _)) => {
                    let answer = match gateway.drain().await {
                        0 => "drained\n".to_owned(),
                        left => format!("{left} still running\n"),
                    };
                    let _ = asker.write_all(answer.as_bytes()).await; // Whoever asked may be gone; it is drained.
                }
                Err(error) => failures.pause(&error).await,
            }
        }
    }
}

/// Asks the gateway that keeps its state in this folder to drain, and waits until it has; its answer.
pub fn ask(folder: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(folder.join(SOCKET))?;
    stream.set_read_timeout(Some(limits::DRAIN_BOUND + SLACK))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the gateway ended before it was drained"));
    }
    Ok(answer)
}
