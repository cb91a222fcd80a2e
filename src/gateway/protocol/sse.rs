//! Server-sent events, decoded as the HTML standard says (WHATWG HTML §9.2), and encoded anew.
//!
//! What a client gets was framed here: bytes that another reader might split otherwise do not pass. The message in an
//! event keeps its bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::{memchr, memchr2, memmem};

/// One server-sent event. An event of comments alone has none of these.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Event {
    /// `id`: where the stream may be resumed. Absent if no HTTP header could carry it.
    pub id: Option<Bytes>,
    /// `event`: its name.
    pub name: Option<Bytes>,
    /// `retry`: milliseconds before the client connects again.
    pub retry: Option<u32>,
    /// Its `data` lines, joined. Empty in events that only say where the stream may be resumed.
    pub data: Option<Bytes>,
}

impl Event {
    /// An event with this message in it.
    pub fn message(data: Bytes) -> Self {
        Self { name: Some(Bytes::from_static(MESSAGE)), data: Some(data), ..Self::default() }
    }

    /// Whether its data is a message: MCP's messages come in events without a name, or named `message`.
    pub fn is_message(&self) -> bool {
        let named = self.name.as_ref().is_none_or(|name| name.is_empty() || name.as_ref() == MESSAGE);
        named && self.data.as_ref().is_some_and(|data| !data.is_empty())
    }

    /// Whether it carries nothing but its `id` or `retry`.
    pub fn is_empty(&self) -> bool {
        self.data.as_ref().is_none_or(Bytes::is_empty)
    }

    /// Reads the lines of one event.
    fn read(raw: &Bytes) -> Self {
        let mut event = Self::default();
        let mut joined = BytesMut::new();
        let mut rest: &[u8] = raw;
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let (field, value) = match memchr(b':', line) {
                None => (line, &b""[..]),
                Some(colon) => (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default()),
            };
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match field {
                b"data" => match &event.data {
                    None => event.data = Some(raw.slice_ref(value)),
                    Some(first) => {
                        if joined.is_empty() {
                            joined.extend_from_slice(first);
                        }
                        joined.extend_from_slice(b"\n");
                        joined.extend_from_slice(value);
                    }
                },
                b"event" => event.name = Some(raw.slice_ref(value)),
                b"id" if !value.contains(&0) => event.id = Some(raw.slice_ref(value)),
                b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                    event.retry = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                }
                _ => {} // A comment, an unknown field, or no field: the blank line.
            }
        }
        if !joined.is_empty() {
            event.data = Some(joined.freeze());
        }
        // No header carries another, and a lenient reader could find a line end in it.
        event.id = event.id.filter(|id| id.iter().all(|byte| matches!(byte, b' '..=b'~')));
        event
    }
}

const MESSAGE: &[u8] = b"message";
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text without one byte order mark before it: readers of JSON bodies skip it (RFC 8259 §8.1 permits that).
pub fn without_mark(mut text: Bytes) -> Bytes {
    if text.starts_with(MARK) {
        text.advance(MARK.len());
    }
    text
}

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Up to here the buffer was searched for the end of a line.
    scanned: usize,
    /// Start of the current line.
    line: usize,
    /// The last line ended with a carriage return, to which a line feed may belong.
    after_return: bool,
    /// Something came, so that a byte order mark is none any more.
    begun: bool,
    limit: usize,
}

/// An event grew beyond the limit.
#[derive(Debug, Eq, PartialEq)]
pub struct TooLarge;

/// The stream ended in the middle of an event that has data.
#[derive(Debug, Eq, PartialEq)]
pub struct Truncated;

impl Decoder {
    /// Refuses events of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), scanned: 0, line: 0, after_return: false, begun: false, limit }
    }

    /// Bytes of events that are not complete yet.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The stream has ended. An event that was not finished is none; one with data was cut.
    pub fn finish(self) -> Result<(), Truncated> {
        if Event::read(&self.buffer.freeze()).is_empty() { Ok(()) } else { Err(Truncated) }
    }

    /// The next complete event, if there is one.
    #[allow(clippy::should_implement_trait)] // No iterator: more may come after `None`.
    pub fn next(&mut self) -> Option<Result<Event, TooLarge>> {
        if !self.begun {
            if self.buffer.len() < MARK.len() && MARK.starts_with(&self.buffer) {
                return None; // The rest of the mark may be in the next packet.
            }
            if self.buffer.starts_with(MARK) {
                self.buffer.advance(MARK.len());
            }
            self.begun = true;
        }
        loop {
            if self.after_return
                && let Some(&byte) = self.buffer.get(self.line)
            {
                self.after_return = false;
                if byte == b'\n' {
                    self.line += 1;
                    self.scanned = self.line;
                }
            }
            let Some(offset) = self.buffer.get(self.scanned..).and_then(|rest| memchr2(b'\n', b'\r', rest)) else {
                break;
            };
            let end = self.scanned + offset;
            // A carriage return ends its line at once: its event does not wait for the next packet.
            self.after_return = self.buffer.get(end) == Some(&b'\r');
            let blank = end == self.line;
            (self.scanned, self.line) = (end + 1, end + 1);
            if blank {
                let raw = self.buffer.split_to(end + 1).freeze();
                (self.scanned, self.line) = (0, 0);
                if raw.len() > self.limit {
                    return Some(Err(TooLarge));
                }
                return Some(Ok(Event::read(&raw)));
            }
        }
        self.scanned = self.buffer.len();
        self.check_size()
    }

    fn check_size(&self) -> Option<Result<Event, TooLarge>> {
        (self.buffer.len() > self.limit).then_some(Err(TooLarge))
    }
}

/// Frames one message of our own as an event.
pub fn encode(message: &str) -> Bytes {
    frame(&Event::message(Bytes::new()), message)
}

/// The event with this message, JSON text, in it: its `id` and `retry` stay. An empty message stays one.
///
/// JSON text holds no line breaks between values that matter, but may hold some as white space: each line gets its own
/// `data`.
pub fn frame(event: &Event, message: &str) -> Bytes {
    let message = unbroken(message);
    let id = event.id.as_deref().unwrap_or_default();
    let mut out: Vec<u8> = Vec::with_capacity(message.len() + id.len() + 56);
    let mut line = |field: &[u8], value: &[u8]| {
        for part in [field, value, b"\n"] {
            out.extend_from_slice(part);
        }
    };
    if let Some(id) = &event.id {
        line(b"id: ", id);
    }
    if event.name.is_some() && !message.is_empty() {
        line(b"event: ", MESSAGE);
    }
    if let Some(retry) = event.retry {
        line(b"retry: ", retry.to_string().as_bytes());
    }
    if message.is_empty() && event.data.is_some() {
        line(b"data:", b"");
    }
    for text in message.split(['\n', '\r']).filter(|text| !text.is_empty()) {
        line(b"data: ", text.as_bytes());
    }
    out.push(b'\n');
    out.into()
}

/// The text with an escape for each character that ends a line for Unicode, though not for the standard, where a
/// reader that splits there (such as `httpx-sse` before 0.4.2) would find a `data` field behind it: a message within
/// the message that nobody checked. In JSON text they stand in strings only.
fn unbroken(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut from = 0;
    for at in memmem::find_iter(text.as_bytes(), b"data") {
        let Some(before) = text.get(from..at) else { continue };
        let Some(last) = before.chars().next_back().filter(|last| matches!(last, '\u{85}' | '\u{2028}' | '\u{2029}'))
        else {
            continue;
        };
        out.push_str(before.get(..before.len() - last.len_utf8()).unwrap_or_default());
        let _ = write!(out, "\\u{:04x}", u32::from(last)); // Writing to a String cannot fail.
        from = at;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
