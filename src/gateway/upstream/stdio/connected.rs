//! One child at the other end of a unix socket: a helper in the server's own container starts a process for each
//! connection and ends it when the connection closes (`crate::shim`).

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time for the helper to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The helper ends a process in three steps, and then what is left of its group.
const STEPS: u32 = 4;

/// A connection to the helper.
pub(super) struct Connected {
    /// The helper has closed its side: nothing of the process is left.
    over: CancellationToken,
}

impl Connected {
    /// Connects, which starts the process.
    pub(super) async fn connect(socket: &Path) -> io::Result<(Self, OwnedWriteHalf, Output)> {
        let stream = timeout(CONNECT, UnixStream::connect(socket)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let (output, input) = stream.into_split();
        let over = CancellationToken::new();
        Ok((Self { over: over.clone() }, input, Output { half: output, over }))
    }

    /// Waits until the process has ended by itself. Somebody must read its output meanwhile.
    pub(super) async fn exited(&mut self) {
        self.over.cancelled().await;
    }

    /// Waits until the helper has ended the process. Its input is closed already, which is the sign to do so.
    pub(super) async fn end(&mut self, grace: Duration) -> String {
        match timeout(grace * STEPS, self.over.cancelled()).await {
            Ok(()) => "the server ended; its container's log says why".to_owned(),
            Err(_) => "the server did not end in time".to_owned(), // Closing the connection leaves it to the helper.
        }
    }
}

/// The output of the process, which tells when it is over.
pub(super) struct Output {
    half: OwnedReadHalf,
    over: CancellationToken,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = ready!(Pin::new(&mut self.half).poll_read(context, buffer));
        if outcome.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0) {
            self.over.cancel();
        }
        Poll::Ready(outcome)
    }
}
