//! Newline-delimited JSON-RPC: one message a line, in bounded memory.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::gateway::limits;
use crate::gateway::memory::Hold;

/// Smallest room for one read, in bytes.
const READ: usize = 8 << 10;
/// What is kept of a line that is too long, in bytes.
const HEAD: usize = 1 << 10;

/// Lines of a pipe. Holds no more than one line of the largest size, and one read beyond it.
pub(super) struct Lines<R> {
    input: R,
    buffer: BytesMut,
    /// Up to here the buffer was searched for the end of the line.
    scanned: usize,
    limit: usize,
    /// The rest of a line that was too long is still to be thrown away.
    skipping: bool,
    /// Memory for a line that is longer than a read, where it is counted.
    hold: Option<Hold>,
}

/// One line, without its end.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// All of it.
    Whole(Bytes),
    /// It is longer than the limit: its beginning. What follows of it is skipped.
    TooLong(Bytes),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, buffer: BytesMut::new(), scanned: 0, limit, skipping: false, hold: None }
    }

    /// With memory for long lines in a budget. Where there is no room the pipe waits, and with it the server.
    pub(super) fn counted(input: R, limit: usize, hold: Hold) -> Self {
        Self { hold: Some(hold), ..Self::new(input, limit) }
    }

    /// The next line, `None` at the end. What follows the last line end counts as a line. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(offset) = self.buffer.get(self.scanned..).and_then(|rest| memchr::memchr(b'\n', rest)) {
                let line = self.buffer.split_to(self.scanned + offset + 1).freeze();
                self.scanned = 0;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                return Ok(Some(self.judge(&line)));
            }
            if self.skipping {
                self.buffer.clear();
            } else if self.buffer.len() > self.limit {
                let whole = self.buffer.split().freeze();
                (self.scanned, self.skipping) = (0, true);
                return Ok(Some(self.judge(&whole)));
            }
            self.scanned = self.buffer.len();
            if let Some(hold) = &mut self.hold {
                // Doubled, as the buffer grows.
                let needed = (self.buffer.len() + READ).next_power_of_two().min(self.limit + READ);
                if self.buffer.len() < READ {
                    hold.shrink(0);
                } else if hold.grow_within(needed, limits::MEMORY_STALL).await.is_err() {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
            }
            self.buffer.reserve(READ);
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                let rest = self.buffer.split().freeze();
                self.scanned = 0;
                return Ok((!rest.is_empty() && !self.skipping).then(|| self.judge(&rest)));
            }
        }
    }

    fn judge(&self, line: &Bytes) -> Line {
        let end = line.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        if end > self.limit { Line::TooLong(line.slice(..end.min(HEAD))) } else { Line::Whole(line.slice(..end)) }
    }
}

/// A message as one line. In valid JSON a raw line break can only be white space between values, since strings must
/// escape theirs: a space in its place changes nothing.
pub(super) fn frame(message: String) -> Bytes {
    let mut line = message.into_bytes();
    let mut from = 0;
    while let Some(offset) = line.get(from..).and_then(|rest| memchr::memchr2(b'\n', b'\r', rest)) {
        from += offset;
        if let Some(byte) = line.get_mut(from) {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(input: &[u8], limit: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, limit);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn lines_lose_their_ends_and_the_last_needs_none() {
        assert_eq!(lines(b"a\r\n\nbc\nd", 10).await, [whole("a"), whole(""), whole("bc"), whole("d")]);
        assert_eq!(lines(b"", 10).await, []);
    }

    #[tokio::test]
    async fn a_line_in_many_reads_is_one_line() {
        let (mut writer, reader) = tokio::io::duplex(3);
        let writing = async move {
            tokio::io::AsyncWriteExt::write_all(&mut writer, b"{\"a\":\"0123456789\"}\n").await.unwrap();
        };
        let mut lines = Lines::new(reader, 100);

        let (line, ()) = tokio::join!(lines.next(), writing);

        assert_eq!(line.unwrap(), Some(whole("{\"a\":\"0123456789\"}")));
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_is_reported_once_and_never_held() {
        let long = [b"x".repeat(100_000).as_slice(), b"\nnext\n"].concat();
        let mut input = Lines::new(long.as_slice(), 10);

        assert_eq!(input.next().await.unwrap(), Some(Line::TooLong(Bytes::from(b"x".repeat(HEAD)))));
        assert!(input.buffer.capacity() <= 4 * READ);
        assert_eq!(input.next().await.unwrap(), Some(whole("next")));
        assert_eq!(lines(b"0123456789\n", 10).await, [whole("0123456789")]);
        assert!(matches!(lines(b"0123456789a\n", 10).await[..], [Line::TooLong(_)]));
    }

    #[test]
    fn a_pretty_printed_message_becomes_one_line() {
        assert_eq!(frame("{\r\n  \"a\": \"\\n\"\n}".to_owned()), "{    \"a\": \"\\n\" }\n");
    }
}
