//! Server-sent events (WHATWG HTML §9.2), decoded without losing a byte.
//!
//! An event is kept as it came, so that an unchanged one passes as it is; its `data` is the message in it.

use bytes::{Bytes, BytesMut};

/// One server-sent event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event as it came, terminating blank line included.
    pub raw: Bytes,
    /// The message in it: its `data` lines joined. `None` for comments and priming events.
    pub data: Option<Bytes>,
}

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Up to here the buffer was searched for the end of a line.
    scanned: usize,
    /// Start of the current line.
    line: usize,
    limit: usize,
}

/// An event grew beyond the limit.
#[derive(Debug, Eq, PartialEq)]
pub struct TooLarge;

/// The stream ended in the middle of an event.
#[derive(Debug, Eq, PartialEq)]
pub struct Truncated;

impl Decoder {
    /// Refuses events of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, line: 0, limit }
    }

    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The last event, after the stream has ended. A carriage return may have waited for its line feed; anything else
    /// that is left is an event that was cut.
    pub fn finish(mut self) -> Result<Option<Event>, Truncated> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let blank = self.buffer.len() == self.line + 1 && self.buffer.last() == Some(&b'\r');
        if !blank {
            return Err(Truncated);
        }
        let raw = self.buffer.split().freeze();
        let data = data_of(&raw);
        Ok(Some(Event { raw, data }))
    }

    /// The next complete event, if there is one.
    #[allow(clippy::should_implement_trait)] // No iterator: more may come after `None`.
    pub fn next(&mut self) -> Option<Result<Event, TooLarge>> {
        while let Some(offset) = self.buffer.get(self.scanned..).and_then(|rest| memchr::memchr2(b'\n', b'\r', rest)) {
            let end = self.scanned + offset;
            let mut after = end + 1;
            if self.buffer.get(end) == Some(&b'\r') {
                match self.buffer.get(after) {
                    Some(b'\n') => after += 1,
                    Some(_) => {}
                    None => {
                        self.scanned = end; // The line feed may be in the next packet.
                        return self.check_size();
                    }
                }
            }
            let blank = end == self.line;
            (self.scanned, self.line) = (after, after);
            if blank {
                let raw = self.buffer.split_to(after).freeze();
                (self.scanned, self.line) = (0, 0);
                if raw.len() > self.limit {
                    return Some(Err(TooLarge));
                }
                let data = data_of(&raw);
                return Some(Ok(Event { raw, data }));
            }
        }
        self.scanned = self.buffer.len();
        self.check_size()
    }

    fn check_size(&self) -> Option<Result<Event, TooLarge>> {
        (self.buffer.len() > self.limit).then_some(Err(TooLarge))
    }
}

/// Joins the `data` lines of one event. One line is shared, not copied.
fn data_of(raw: &Bytes) -> Option<Bytes> {
    let mut joined: Option<Bytes> = None;
    for line in raw.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(rest) = line.strip_prefix(b"data") else { continue };
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => continue,
        };
        joined = Some(match joined {
            None => raw.slice_ref(value),
            Some(before) => [before.as_ref(), b"\n", value].concat().into(),
        });
    }
    joined.filter(|data| !data.is_empty())
}

/// The event's `id`, if it has one.
pub fn id_of(event: &Event) -> Option<&[u8]> {
    event
        .raw
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .find_map(|line| line.strip_prefix(b"id:"))
        .map(<[u8]>::trim_ascii)
}

/// Frames one message as an event. JSON text holds no line breaks between values that matter, but may hold some as
/// white space: each line gets its own `data`.
pub fn encode(message: &str) -> Bytes {
    let mut out = String::with_capacity(message.len() + 24);
    out.push_str("event: message\n");
    for line in message.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.into()
}

/// The event with another message in it: its `id`, `event` and `retry` lines stay.
pub fn replace_data(event: &Event, message: &str) -> Bytes {
    let mut out: Vec<u8> = Vec::with_capacity(event.raw.len().max(message.len()) + 16);
    for line in event.raw.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if !line.is_empty() && !line.starts_with(b"data") {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    for line in message.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut decoder = Decoder::new(1 << 20);
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(event) = decoder.next() {
                let event = event.unwrap();
                found.push((event.raw.to_vec(), event.data.map(|data| data.to_vec())));
            }
        }
        found
    }

    #[test]
    fn lines_of_data_are_joined_and_comments_carry_none() {
        let found = decode(&[b": hello\n\nid: 7\ndata: {\ndata:}\n\ndata\n\n"]);

        assert_eq!(found[0], (b": hello\n\n".to_vec(), None));
        assert_eq!(found[1].1.as_deref(), Some(&b"{\n}"[..]));
        assert_eq!(found[2].1, None);
    }

    #[test]
    fn a_data_prefix_of_another_field_is_no_data() {
        assert_eq!(decode(&[b"database: x\n\n"])[0].1, None);
    }

    #[test]
    fn an_event_beyond_the_limit_is_refused_before_it_ends() {
        let mut decoder = Decoder::new(16);
        decoder.push(b"data: 0123456789abcdef");

        assert!(matches!(decoder.next(), Some(Err(TooLarge))));
    }

    #[test]
    fn the_end_of_a_stream_tells_a_cut_event_from_a_whole_one() {
        let rest = |text: &str| {
            let mut decoder = Decoder::new(64);
            decoder.push(text.as_bytes());
            while decoder.next().is_some() {}
            decoder.finish().map(|event| event.map(|event| event.data.unwrap()))
        };

        assert_eq!(rest("data: 1\n\n"), Ok(None));
        assert_eq!(rest("data: 1\r\r"), Ok(Some(Bytes::from_static(b"1"))));
        for cut in ["d", "data: 1", "data: 1\n", "data: 1\r", "data: 1\n\ndata: 2\n"] {
            assert_eq!(rest(cut), Err(Truncated), "{cut:?}");
        }
    }

    #[test]
    fn replacing_the_message_keeps_the_event_id() {
        let mut decoder = Decoder::new(1024);
        decoder.push(b"id: 9\nevent: message\ndata: old\n\n");
        let event = decoder.next().unwrap().unwrap();

        assert_eq!(replace_data(&event, "new"), &b"id: 9\nevent: message\ndata: new\n\n"[..]);
    }

    proptest! {
        #[test]
        fn packets_may_break_anywhere(text in "(data: [a-z]{0,6}(\n|\r\n|\r)|(\n|\r\n)|: c\n){0,12}", cuts in prop::collection::vec(0usize..80, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);

            prop_assert_eq!(decode(&chunks), decode(&[bytes]));
        }

        #[test]
        fn a_message_survives_framing(message in "[ -~]{1,80}") {
            let found = decode(&[&encode(&message)]);

            prop_assert_eq!(found[0].1.as_deref(), Some(message.as_bytes()));
        }
    }
}
