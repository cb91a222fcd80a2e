//! A queue bounded in messages and in bytes: between a child that writes and a client that reads more slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// What can be queued.
pub(super) trait Measured {
    /// Its bytes.
    fn bytes(&self) -> usize;
}

impl Measured for bytes::Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Sink<T> {
    sender: mpsc::Sender<T>,
    queued: Arc<AtomicUsize>,
    limit: usize,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Source<T> {
    receiver: mpsc::Receiver<T>,
    queued: Arc<AtomicUsize>,
}

/// A queue of at most `messages`, and of at most `bytes` unless a single message is larger.
pub(super) fn bounded<T: Measured>(messages: usize, bytes: usize) -> (Sink<T>, Source<T>) {
    let (sender, receiver) = mpsc::channel(messages);
    let queued = Arc::new(AtomicUsize::new(0));
    (Sink { sender, queued: queued.clone(), limit: bytes }, Source { receiver, queued })
}

impl<T: Measured> Sink<T> {
    /// Queues a message, or gives it back if there is no room or no reader. Never waits.
    pub(super) fn push(&self, message: T) -> Result<(), T> {
        let bytes = message.bytes();
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        let sent = if before > 0 && before + bytes > self.limit {
            Err(message)
        } else {
            self.sender.try_send(message).map_err(mpsc::error::TrySendError::into_inner)
        };
        if sent.is_err() {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl<T> Clone for Sink<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), queued: self.queued.clone(), limit: self.limit }
    }
}

impl<T: Measured> Source<T> {
    /// The next message; `None` when all senders are gone. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Option<T> {
        let message = self.receiver.recv().await?;
        self.queued.fetch_sub(message.bytes(), Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn messages_and_bytes_are_bounded() {
        let (sink, mut source) = bounded(3, 10);
        let text = |length: usize| Bytes::from(vec![b'x'; length]);

        assert!(sink.push(text(6)).is_ok());
        assert!(sink.push(text(5)).is_err());
        assert!(sink.push(text(4)).is_ok());
        assert_eq!(source.next().await.unwrap().len(), 6);
        assert_eq!(source.next().await.unwrap().len(), 4);

        assert!(sink.push(text(100)).is_ok(), "one larger message alone passes");
        assert!(sink.push(text(1)).is_err());
        assert_eq!(source.next().await.unwrap().len(), 100);

        assert!((0..3).all(|_| sink.push(text(1)).is_ok()));
        assert!(sink.push(text(1)).is_err());

        drop(source);
        assert!(sink.is_closed() && sink.push(text(0)).is_err());
    }
}
