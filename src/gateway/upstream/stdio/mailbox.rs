//! What a session's own stream carries, kept a while when the stream is not open.

use std::collections::VecDeque;

use bytes::Bytes;

use super::queue::{Sink, Source, bounded};

/// Messages that wait in an open stream, and their bytes. When a client reads slower than that, its stream ends.
const QUEUE: usize = 256;
const QUEUE_BYTES: usize = 4 << 20;
/// Messages kept for a stream that is not open.
const KEPT: usize = 64;
/// Their bytes.
const KEPT_BYTES: usize = 1 << 20;

/// The notification stream of one session.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    stream: Option<Sink<Bytes>>,
    kept: VecDeque<Bytes>,
    bytes: usize,
    lost: u64,
}

impl Mailbox {
    /// Opens the stream. An older one ends: a client that reconnects is quicker than our notice of its first end.
    pub(super) fn open(&mut self) -> Source<Bytes> {
        let (sender, receiver) = bounded(QUEUE, QUEUE_BYTES);
        for message in self.kept.drain(..) {
            let _ = sender.push(message); // It has room for all that is kept.
        }
        if self.lost > 0 {
            tracing::debug!(lost = self.lost, "notifications were lost before the stream was opened");
        }
        (self.bytes, self.lost) = (0, 0);
        self.stream = Some(sender);
        receiver
    }

    /// Whether a client is listening.
    pub(super) fn is_open(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| !stream.is_closed())
    }

    /// Sends a message, or keeps it until a stream is opened.
    pub(super) fn post(&mut self, message: Bytes) {
        let message = match &self.stream {
            None => message,
            Some(stream) => match stream.push(message) {
                Ok(()) => return,
                Err(message) => {
                    self.stream = None;
                    message
                }
            },
        };
        if self.kept.len() >= KEPT || self.bytes + message.len() > KEPT_BYTES {
            self.lost += 1;
        } else {
            self.bytes += message.len();
            self.kept.push_back(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(source: &mut Source<Bytes>) -> usize {
        use futures::FutureExt as _;
        std::iter::from_fn(|| source.next().now_or_never().flatten()).count()
    }

    fn has_ended(source: &mut Source<Bytes>) -> bool {
        use futures::FutureExt as _;
        source.next().now_or_never() == Some(None)
    }

    #[test]
    fn early_messages_are_kept_up_to_a_bound() {
        let mut mailbox = Mailbox::default();
        for _ in 0..100 {
            mailbox.post(Bytes::from_static(b"{}"));
        }

        assert_eq!(mailbox.lost, 36);
        assert_eq!(drain(&mut mailbox.open()), KEPT);

        mailbox.stream = None;
        mailbox.post(vec![b' '; KEPT_BYTES + 1].into());
        assert_eq!(mailbox.lost, 1);
    }

    #[test]
    fn a_reader_that_is_too_slow_loses_its_stream() {
        let mut mailbox = Mailbox::default();
        let mut receiver = mailbox.open();
        for _ in 0..=QUEUE {
            mailbox.post(Bytes::from_static(b"{}"));
        }

        assert!(!mailbox.is_open());
        assert_eq!(drain(&mut receiver), QUEUE);
        assert!(has_ended(&mut receiver));
        assert_eq!(drain(&mut mailbox.open()), 1);
    }

    #[test]
    fn a_second_stream_takes_the_place_of_the_first() {
        let mut mailbox = Mailbox::default();
        let mut first = mailbox.open();
        let mut second = mailbox.open();
        mailbox.post(Bytes::from_static(b"{}"));

        assert_eq!((drain(&mut first), has_ended(&mut first)), (0, true));
        assert_eq!(drain(&mut second), 1);
    }
}
