//! A record as one line of JSON in canonical form (RFC 8785), written by hand: this runs for every call.
//!
//! The members stand in the order of their names. `sequence` is known only when the line joins the others, so a line
//! is made in two parts and the number goes between them.

use std::cell::RefCell;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;

use super::record::{Event, Record, TEXT_BYTES};

/// Largest integer that every reader of JSON keeps (RFC 8785 §3.2.2.3); larger ones are cut down to it.
const LARGEST: u64 = (1 << 53) - 1;
/// Roles in a line.
const ROLES: usize = 64;

/// Random for each process: digests can be compared within one log, and not be guessed from outside.
static DIGEST_KEY: LazyLock<Option<hmac::Key>> = LazyLock::new(|| {
    let random = aws_lc_rs::rand::SystemRandom::new();
    hmac::Key::generate(hmac::HMAC_SHA256, &random).ok()
});

/// A line without its number.
#[derive(Default)]
pub(super) struct Line {
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// Makes the line in a buffer of this thread, which keeps its capacity, and hands it to `use_line`.
pub(super) fn with_line<T>(record: &Record<'_>, use_line: impl FnOnce(&Line) -> T) -> T {
    LINE.with_borrow_mut(|line| {
        line.write(record, SystemTime::now());
        use_line(line)
    })
}

impl Line {
    fn write(&mut self, record: &Record<'_>, now: SystemTime) {
        // Without `..`: a new field must find its place here.
        let Record {
            event,
            request_id,
            issuer,
            subject,
            roles,
            left_out,
            method,
            server_namespace,
            server,
            target,
            snapshot,
            rule_role,
            rule_index,
            decision,
            reason,
            arguments,
            outcome,
            error_code,
            http_status,
            result_bytes,
            duration,
        } = *record;
        let ended = event != Event::Intent;

        self.before.clear();
        let mut to = Members { to: &mut self.before };
        to.to.push(b'{');
        if let Some(arguments) = arguments {
            to.digest("arguments_digest", arguments);
        }
        to.text("decision", Some(decision));
        if ended {
            to.number("duration_us", u64::try_from(duration.as_micros()).unwrap_or(LARGEST));
        }
        if let Some(code) = error_code {
            to.signed("error_code", code);
        }
        to.text("event", Some(event.as_str()));
        to.text("gateway_version", Some(env!("CARGO_PKG_VERSION")));
        if let Some(status) = http_status {
            to.number("http_status", status.into());
        }
        to.text("issuer", issuer);
        if let Some(lines) = left_out {
            to.number("left_out", lines);
        }
        to.text("method", Some(method));
        to.text("outcome", outcome.map(super::Outcome::as_str));
        to.text("reason", reason);
        to.text("request_id", Some(request_id));
        if ended {
            to.number("result_bytes", result_bytes);
        }
        to.texts("roles", roles);
        to.rule(rule_role, rule_index);
        to.name("sequence");

        self.after.clear();
        let mut to = Members { to: &mut self.after };
        to.text("server", not_empty(server));
        to.text("server_namespace", not_empty(server_namespace));
        to.text("snapshot", not_empty(snapshot));
        to.text("subject", subject);
        to.text("target", target);
        to.time("time", now);
        to.to.extend_from_slice(b"}\n");
    }
}

fn not_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Members of one JSON object, in the order in which they are written.
struct Members<'a> {
    to: &'a mut Vec<u8>,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        if self.to.last() != Some(&b'{') {
            self.to.push(b',');
        }
        self.to.push(b'"');
        self.to.extend_from_slice(name.as_bytes());
        self.to.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.name(name);
            push_text(self.to, value);
        }
    }

    fn texts(&mut self, name: &str, values: &[std::sync::Arc<str>]) {
        if values.is_empty() {
            return;
        }
        self.name(name);
        self.to.push(b'[');
        for (at, value) in values.iter().take(ROLES).enumerate() {
            if at > 0 {
                self.to.push(b',');
            }
            push_text(self.to, value);
        }
        self.to.push(b']');
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        push_number(self.to, value.min(LARGEST));
    }

    fn signed(&mut self, name: &str, value: i64) {
        self.name(name);
        if value < 0 {
            self.to.push(b'-');
        }
        push_number(self.to, value.unsigned_abs().min(LARGEST));
    }

    fn rule(&mut self, role: Option<&str>, index: Option<u32>) {
        if role.is_none() && index.is_none() {
            return;
        }
        self.name("rule");
        self.to.push(b'{');
        if let Some(index) = index {
            self.number("index", index.into());
        }
        self.text("role", role);
        self.to.push(b'}');
    }

    fn digest(&mut self, name: &str, value: &str) {
        self.name(name);
        match DIGEST_KEY.as_ref() {
            Some(key) => {
                self.to.extend_from_slice(b"\"hmac-sha256:");
                for byte in hmac::sign(key, value.as_bytes()).as_ref() {
                    push_hex(self.to, *byte);
                }
                self.to.push(b'"');
            }
            None => push_text(self.to, "unavailable"), // Without randomness; an unkeyed digest could be guessed.
        }
    }

    fn time(&mut self, name: &str, now: SystemTime) {
        thread_local! {
            // The second that was written last, and its text: a calendar computation once a second is enough.
            static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
        }
        self.name(name);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        SECOND.with_borrow_mut(|(second, text)| {
            if *second != since.as_secs() {
                let timestamp = i64::try_from(since.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
                *text = timestamp.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S").to_string();
                *second = since.as_secs();
            }
            self.to.push(b'"');
            self.to.extend_from_slice(text.as_bytes());
        });
        self.to.push(b'.');
        let micros = since.subsec_micros();
        for power in [100_000, 10_000, 1_000, 100, 10, 1] {
            self.to.push(digit(u64::from(micros / power)));
        }
        self.to.extend_from_slice(b"Z\"");
    }
}

fn digit(value: u64) -> u8 {
    #[allow(clippy::cast_possible_truncation)] // Below 10.
    let digit = (value % 10) as u8;
    b'0' + digit
}

pub(super) fn push_number(to: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut length = 0;
    for slot in digits.iter_mut().rev() {
        *slot = digit(value);
        length += 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    to.extend_from_slice(digits.get(20 - length..).unwrap_or_default());
}

fn push_hex(to: &mut Vec<u8>, byte: u8) {
    let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    to.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
}

/// A JSON string (RFC 8785 §3.2.2.2), cut at [`TEXT_BYTES`].
fn push_text(to: &mut Vec<u8>, text: &str) {
    let kept = text.get(..text.floor_char_boundary(TEXT_BYTES)).unwrap_or_default();
    to.push(b'"');
    let bytes = kept.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        to.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        from = at + 1;
        match *byte {
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            8 => to.extend_from_slice(b"\\b"),
            9 => to.extend_from_slice(b"\\t"),
            10 => to.extend_from_slice(b"\\n"),
            12 => to.extend_from_slice(b"\\f"),
            13 => to.extend_from_slice(b"\\r"),
            other => {
                to.extend_from_slice(b"\\u00");
                push_hex(to, other);
            }
        }
    }
    to.extend_from_slice(bytes.get(from..).unwrap_or_default());
    if kept.len() < text.len() {
        to.extend_from_slice("…".as_bytes());
    }
    to.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;
    use std::time::Duration;

    pub(super) fn render(record: &Record<'_>, sequence: u64, now: SystemTime) -> Vec<u8> {
        let mut line = Line::default();
        line.write(record, now);
        let mut bytes = line.before.clone();
        push_number(&mut bytes, sequence);
        bytes.extend_from_slice(&line.after);
        bytes
    }

    fn record<'a>(text: &'a [String], roles: &'a [Arc<str>]) -> Record<'a> {
        Record {
            event: Event::Request,
            request_id: &text[0],
            issuer: Some(&text[1]),
            subject: Some(&text[2]),
            roles,
            left_out: None,
            method: &text[3],
            server_namespace: &text[4],
            server: &text[5],
            target: Some(&text[6]),
            snapshot: &text[7],
            rule_role: Some(&text[8]),
            rule_index: Some(3),
            decision: "allow",
            reason: Some(&text[9]),
            arguments: Some(&text[10]),
            outcome: Some(Outcome::Ok),
            error_code: None,
            http_status: Some(200),
            result_bytes: 17,
            duration: Duration::from_micros(1234),
        }
    }

    proptest! {
        #[test]
        fn every_line_is_its_own_canonical_form(
            text in proptest::collection::vec(any::<String>(), 11..=11),
            roles in proptest::collection::vec(any::<String>().prop_map(Arc::from), 0..4),
            absent in any::<[bool; 6]>(),
            code in proptest::option::of(any::<i64>()),
            numbers in any::<(u64, u64, u64, Option<u16>, Option<u32>)>(),
            event in prop_oneof![Just(Event::Intent), Just(Event::Request), Just(Event::ServerRequest)],
            outcome in proptest::option::of(proptest::sample::select(&Outcome::ALL[..])),
        ) {
            let mut record = record(&text, &roles);
            for (field, absent) in [
                &mut record.issuer, &mut record.subject, &mut record.target, &mut record.rule_role,
                &mut record.reason, &mut record.arguments,
            ].into_iter().zip(absent) {
                if absent { *field = None; }
            }
            let (sequence, bytes, micros, status, index) = numbers;
            record.left_out = status.map(u64::from);
            (record.event, record.outcome, record.error_code) = (event, outcome, code);
            (record.result_bytes, record.http_status, record.rule_index) = (bytes, status, index);
            record.duration = Duration::from_micros(micros);
            let now = UNIX_EPOCH + Duration::from_micros(micros >> 14);

            let line = render(&record, sequence.min(LARGEST), now);

            prop_assert_eq!(line.last(), Some(&b'\n'));
            let value: Value = serde_json::from_slice(&line).unwrap();
            let canonical = serde_json_canonicalizer::to_vec(&value).unwrap();
            prop_assert_eq!(&line[..line.len() - 1], canonical.as_slice());
            for (member, expected) in [("subject", record.subject), ("target", record.target), ("reason", record.reason)] {
                prop_assert_eq!(value.get(member).and_then(Value::as_str), expected);
            }
        }
    }

    #[test]
    fn a_line_says_all_that_the_record_knows() {
        let text: Vec<_> = [
            "id-1",
            "corp",
            "ada",
            "tools/call",
            "default",
            "files",
            "write",
            "sha256:00",
            "editor",
            "Argument /path",
            "{\"path\":\"/etc\"}",
        ]
        .map(str::to_owned)
        .into();
        let roles: [Arc<str>; 2] = ["editor".into(), "viewer".into()];

        let now = UNIX_EPOCH + Duration::from_micros(1_800_000_000_000_042);
        let value: Value = serde_json::from_slice(&render(&record(&text, &roles), 7, now)).unwrap();

        let digest = value["arguments_digest"].as_str().unwrap();
        assert!(digest.starts_with("hmac-sha256:") && digest.len() == 76, "{digest}");
        assert_eq!(
            value,
            json!({
                "arguments_digest": digest, "decision": "allow", "duration_us": 1234, "event": "request",
                "gateway_version": env!("CARGO_PKG_VERSION"), "http_status": 200, "issuer": "corp",
                "method": "tools/call", "outcome": "ok", "reason": "Argument /path", "request_id": "id-1",
                "result_bytes": 17, "roles": ["editor", "viewer"], "rule": {"index": 3, "role": "editor"},
                "sequence": 7, "server": "files", "server_namespace": "default", "snapshot": "sha256:00",
                "subject": "ada", "target": "write", "time": "2027-01-15T08:00:00.000042Z",
            })
        );
    }

    #[test]
    fn equal_arguments_have_equal_digests_and_others_do_not() {
        let digest = |arguments| {
            let text: Vec<_> = vec![String::new(); 11];
            let record = Record { arguments: Some(arguments), ..record(&text, &[]) };
            let value: Value = serde_json::from_slice(&render(&record, 1, UNIX_EPOCH)).unwrap();
            value["arguments_digest"].as_str().unwrap().to_owned()
        };
        assert_eq!(digest("{\"a\":1}"), digest("{\"a\":1}"));
        assert_ne!(digest("{\"a\":1}"), digest("{\"a\":2}"));
    }

    #[test]
    fn what_a_caller_sends_cannot_make_a_line_large() {
        let text = vec!["\u{e9}".repeat(1 << 20); 11];
        let roles: Vec<Arc<str>> = (0..10_000).map(|n| format!("role-{n}").into()).collect();
        let line = render(&record(&text, &roles), 1, UNIX_EPOCH);
        assert!(line.len() < 32 << 10, "{}", line.len());
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert!(value["target"].as_str().unwrap().ends_with("\u{e9}…"));
    }
}
