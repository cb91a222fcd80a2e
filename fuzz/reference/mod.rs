//! How a client reads what a server sends: the HTML standard's event stream, and JSON as `JSON.parse` has it, where
//! the last of several equal keys wins. Written from the standards, and from nothing under `src`; `check.mjs` compares
//! it with Node.

use std::fmt::Write as _;

/// One dispatched event.
#[derive(Debug)]
pub struct Event {
    /// Its type; empty counts as `message`.
    pub name: String,
    pub data: String,
}

impl Event {
    pub fn is_message(&self) -> bool {
        self.name.is_empty() || self.name == "message"
    }
}

/// Interprets an event stream (WHATWG HTML, 9.2.6).
pub fn events(bytes: &[u8]) -> Vec<Event> {
    let text = decode(bytes);
    let (mut found, mut name, mut data) = (Vec::new(), String::new(), String::new());
    // "The end of the stream": a line without an end is none, and an event without a blank line neither.
    for line in lines(&text) {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                found.push(Event { name: name.clone(), data: data.clone() });
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// "UTF-8 decode": one byte order mark goes.
pub fn decode(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Lines that have an end: CRLF, LF or CR.
fn lines(text: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        all.push(&rest[..end]);
        let length = if rest[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[end + length..];
    }
    all
}

/// A value. Strings are UTF-16, as in JavaScript: half a surrogate pair is one too.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(Vec<u16>),
    List(Vec<Self>),
    /// In the order of the text, with all equal keys.
    Object(Vec<(Vec<u16>, Self)>),
}

/// How members are looked up.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// As in JavaScript and Python.
    Exact,
    /// As in Go's `encoding/json`: case does not count.
    Folded,
}

impl Json {
    /// The member that the reader finds: the last one.
    pub fn get(&self, key: &str, reader: Reader) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let fits = |member: &[u16]| match reader {
            Reader::Exact => member.iter().copied().eq(key.encode_utf16()),
            Reader::Folded => fold(&String::from_utf16_lossy(member)) == fold(key),
        };
        members.iter().rev().find(|(member, _)| fits(member)).map(|(_, value)| value)
    }

    /// The same, where `null` counts as absent.
    pub fn some(&self, key: &str, reader: Reader) -> Option<&Self> {
        self.get(key, reader).filter(|value| **value != Self::Null)
    }

    pub fn text(&self) -> Option<String> {
        if let Self::Text(units) = self { Some(String::from_utf16_lossy(units)) } else { None }
    }

    /// One line in which equal values are equal, whoever writes it: numbers as bits, strings as code units, keys
    /// sorted and the last of equal ones alone.
    pub fn dump(&self, out: &mut String) {
        let units = |units: &[u16], out: &mut String| {
            out.push('"');
            for unit in units {
                let _ = write!(out, "{unit:04x}");
            }
            out.push('"');
        };
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value) => {
                let _ = write!(out, "{:016x}", value.to_bits());
            }
            Self::Text(text) => units(text, out),
            Self::List(items) => {
                out.push('[');
                for item in items {
                    item.dump(out);
                    out.push(',');
                }
                out.push(']');
            }
            Self::Object(members) => {
                let last: std::collections::BTreeMap<&Vec<u16>, &Self> =
                    members.iter().map(|(key, value)| (key, value)).collect();
                out.push('{');
                for (key, value) in last {
                    units(key, out);
                    out.push(':');
                    value.dump(out);
                    out.push(',');
                }
                out.push('}');
            }
        }
    }
}

fn fold(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// `JSON.parse`; `None` where that throws.
pub fn parse(text: &str) -> Option<Json> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut parser = Parser { units: &units, at: 0 };
    let value = parser.value()?;
    parser.space();
    (parser.at == units.len()).then_some(value)
}

struct Parser<'a> {
    units: &'a [u16],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.units.get(self.at).and_then(|unit| u8::try_from(*unit).ok())
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        word.bytes().all(|byte| self.take(byte)).then_some(value)
    }

    fn value(&mut self) -> Option<Json> {
        self.space();
        match self.peek()? {
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' => self.list(),
            b'{' => self.object(),
            _ => self.number(),
        }
    }

    fn list(&mut self) -> Option<Json> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Some(Json::List(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            if self.take(b']') {
                return Some(Json::List(items));
            }
            self.take(b',').then_some(())?;
        }
    }

    fn object(&mut self) -> Option<Json> {
        self.at += 1;
        let mut members = Vec::new();
        self.space();
        if self.take(b'}') {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.take(b':').then_some(())?;
            members.push((key, self.value()?));
            self.space();
            if self.take(b'}') {
                return Some(Json::Object(members));
            }
            self.take(b',').then_some(())?;
        }
    }

    fn string(&mut self) -> Option<Vec<u16>> {
        self.take(b'"').then_some(())?;
        let mut units = Vec::new();
        loop {
            let unit = *self.units.get(self.at)?;
            self.at += 1;
            match unit {
                0x22 => return Some(units),
                0x5c => {
                    let escape = self.peek()?;
                    self.at += 1;
                    units.push(match escape {
                        b'"' | b'\\' | b'/' => u16::from(escape),
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => 10,
                        b'r' => 13,
                        b't' => 9,
                        b'u' => self.hex()?,
                        _ => return None,
                    });
                }
                0..0x20 => return None,
                _ => units.push(unit),
            }
        }
    }

    fn hex(&mut self) -> Option<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.peek()?).to_digit(16)?;
            unit = unit * 16 + u16::try_from(digit).ok()?;
            self.at += 1;
        }
        Some(unit)
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        String::from_utf16_lossy(&self.units[start..self.at]).parse().ok().map(Json::Number)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}
