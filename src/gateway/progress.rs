//! A deadline for writes: a peer that does not read loses its connection, and frees all that was held for it.
//!
//! Wraps the socket itself, below TLS and HTTP, so that every byte towards a caller is covered: the handshake, answers,
//! streams, metadata and the admin page. A write that is taken at once costs one comparison; a timer exists only once
//! a write had to wait.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::limits;

/// A stream whose writes must make progress.
pub(super) struct Progress<S> {
    stream: S,
    /// Made by the first write that waits, and kept: a connection that had to wait once does so again.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes taken since the timer was set; `None` while no write waits.
    waiting: Option<usize>,
}

impl<S: AsyncWrite + Unpin> Progress<S> {
    /// Nothing was written yet.
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, timer: None, waiting: None }
    }

    /// What becomes of a write of `offered` bytes after the stream answered.
    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(taken)) => {
                if let Some(before) = self.waiting {
                    let so_far = before.saturating_add(taken);
                    // A peer that takes a few bytes now and then does not read. What was offered and taken whole is
                    // no longer waited for.
                    self.waiting = (taken < offered && so_far < limits::WRITE_PROGRESS).then_some(so_far);
                }
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.poll_deadline(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
            }
        }
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timer = match &mut self.timer {
            None => {
                self.waiting = Some(0);
                self.timer.insert(Box::pin(sleep(limits::WRITE_TIMEOUT)))
            }
            Some(timer) => {
                if self.waiting.is_none() {
                    self.waiting = Some(0);
                    timer.as_mut().reset(Instant::now() + limits::WRITE_TIMEOUT);
                }
                timer
            }
        };
        timer.as_mut().poll(context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.after_write(context, parts.iter().map(|part| part.len()).sum(), written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const ROOM: usize = 1 << 10;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_loses_the_connection_at_the_deadline() {
        let (here, _there) = duplex(ROOM);
        let mut stream = Progress::new(here);
        let begun = Instant::now();

        let error = stream.write_all(&[0; ROOM + 1]).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed().abs_diff(limits::WRITE_TIMEOUT) <= Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_byte_now_and_then_does_not_read() {
        let (here, mut there) = duplex(ROOM);
        let mut stream = Progress::new(here);
        let begun = Instant::now();
        let dripping = async {
            loop {
                tokio::time::sleep(limits::WRITE_TIMEOUT / 4).await;
                there.read_u8().await.unwrap();
            }
        };
        let bytes = vec![0; ROOM * 2];

        let error = tokio::select! {
            never = dripping => never,
            written = stream.write_all(&bytes) => written.unwrap_err(),
        };

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() <= limits::WRITE_TIMEOUT + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_that_reads_on_gets_everything_however_long_it_takes() {
        let (here, mut there) = duplex(limits::WRITE_PROGRESS);
        let mut stream = Progress::new(here);
        let begun = Instant::now();
        let whole = limits::WRITE_PROGRESS * 10;
        let reading = async {
            let mut some = vec![0; limits::WRITE_PROGRESS];
            for _ in 0..10 {
                tokio::time::sleep(limits::WRITE_TIMEOUT * 9 / 10).await;
                there.read_exact(&mut some).await.unwrap();
            }
        };
        let bytes = vec![0; whole];

        let ((), written) = tokio::join!(reading, stream.write_all(&bytes));

        written.unwrap();
        assert!(begun.elapsed() > limits::WRITE_TIMEOUT * 8);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_writes_does_not_count_and_each_wait_has_its_own_deadline() {
        let (here, mut there) = duplex(ROOM);
        let mut stream = Progress::new(here);
        let mut all = vec![0; ROOM + 1];
        for _ in 0..3 {
            tokio::time::sleep(limits::WRITE_TIMEOUT * 2).await;
            let sent = vec![1; ROOM + 1];
            let reading = async {
                tokio::time::sleep(limits::WRITE_TIMEOUT / 2).await; // The write has to wait.
                there.read_exact(&mut all).await.unwrap();
            };
            let ((), written) = tokio::join!(reading, stream.write_all(&sent));
            written.unwrap();
        }
    }
}
