//! Finds keys of the gateway's own in `_meta` objects, at every depth, in one pass over the text.
//!
//! The text is JSON, checked by whoever read it. Each byte is looked at once, whatever the nesting.

use std::ops::Range;

use super::json::MAX_DEPTH;
use super::meta::OWN;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Forged {
    /// What to take out: members with the comma that goes with them. In order, without overlap.
    pub(super) cuts: Vec<Range<usize>>,
    /// Bytes that were looked at.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) steps: usize,
}

/// An object or array that is open.
#[derive(Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools)] // Each answers a question of its own.
struct Open {
    is_object: bool,
    /// It is the value of a key `_meta`.
    is_meta: bool,
    /// Up to here its text stays: its bracket, or the end of the last member that stays.
    kept: usize,
    /// A member stays.
    has_kept: bool,
    /// Where the current member begins.
    member: usize,
    /// A key comes next.
    wants_key: bool,
    /// The current member's key is `_meta`.
    meta_key: bool,
    /// The current member's key is one of ours, in a `_meta` object.
    own_key: bool,
}

/// Finds forged members. What lies deeper than [`MAX_DEPTH`] is refused where it comes from a client; from a server no
/// client reads keys there.
pub(super) fn find(text: &str) -> Forged {
    let bytes = text.as_bytes();
    let mut found = Forged::default();
    let mut open: Vec<Open> = Vec::new();
    let mut deeper = 0_usize;
    let mut at = 0;
    // The end of the last value or bracket: white space behind it belongs to nobody.
    let mut end = 0;
    while let Some(&byte) = bytes.get(at) {
        found.steps += 1;
        let start = at;
        at += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b':' => continue,
            b'"' => {
                let (after, steps) = string_end(bytes, at);
                found.steps += steps;
                at = after;
                if deeper == 0
                    && let Some(open) = open.last_mut().filter(|open| open.is_object && open.wants_key)
                {
                    let key = text.get(start..at).unwrap_or_default();
                    open.wants_key = false;
                    open.member = start;
                    open.meta_key = key.len() >= "_meta".len() && is_meta(key);
                    open.own_key = open.is_meta && is_own(key);
                }
            }
            b'{' | b'[' if deeper > 0 || open.len() >= MAX_DEPTH as usize => deeper += 1,
            b'{' | b'[' => {
                let is_object = byte == b'{';
                let is_meta = is_object && open.last().is_some_and(|open| open.is_object && open.meta_key);
                open.push(Open { is_object, is_meta, kept: at, wants_key: is_object, ..Open::default() });
            }
            b'}' | b']' if deeper > 0 => deeper -= 1,
            b'}' | b']' => {
                if let Some(mut object) = open.pop() {
                    close_member(&mut object, end, &mut found.cuts);
                }
            }
            b',' if deeper == 0 => {
                if let Some(open) = open.last_mut() {
                    let was_own = open.own_key;
                    close_member(open, end, &mut found.cuts);
                    if was_own && !open.has_kept {
                        // Nothing stays before it, so its comma goes with it.
                        if let Some(cut) = found.cuts.last_mut() {
                            cut.end = at;
                        }
                    }
                    open.wants_key = open.is_object;
                }
            }
            _ => {} // Of a number, a literal, or a comma deep below.
        }
        if byte != b',' {
            end = at;
        }
    }
    found
}

/// The current member of an object ends at `end`.
fn close_member(object: &mut Open, end: usize, cuts: &mut Vec<Range<usize>>) {
    if !object.is_meta || object.wants_key {
        return; // Nothing goes from other objects; an empty one has no member.
    }
    if std::mem::take(&mut object.own_key) {
        // What was cut within it, or right before it, is a part of this cut.
        let mut start = object.kept;
        while let Some(last) = cuts.last().filter(|last| last.start >= object.kept) {
            start = start.min(last.start);
            cuts.pop();
        }
        cuts.push(start..end);
    } else {
        (object.kept, object.has_kept) = (end, true);
    }
    object.meta_key = false;
}

/// Where a string ends whose opening quote is before `at`, and how many bytes were looked at.
fn string_end(bytes: &[u8], at: usize) -> (usize, usize) {
    let mut from = at;
    while let Some(offset) = bytes.get(from..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        let end = from + offset;
        if bytes.get(end) == Some(&b'"') {
            return (end + 1, end + 1 - at);
        }
        from = end + 2; // An escaped byte ends nothing.
    }
    (bytes.len(), bytes.len().saturating_sub(at))
}

/// Whether a key, with its quotes, is `_meta` to some reader: some ignore case.
fn is_meta(key: &str) -> bool {
    with_decoded(key, |key| key.eq_ignore_ascii_case("_meta"))
}

/// Whether a key, with its quotes, is one of ours.
fn is_own(key: &str) -> bool {
    with_decoded(key, |key| key.starts_with(OWN))
}

fn with_decoded(key: &str, is: impl Fn(&str) -> bool) -> bool {
    if key.contains('\\') {
        serde_json::from_str::<String>(key).is_ok_and(|key| is(&key))
    } else {
        key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).is_some_and(is)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::gateway::protocol::meta::strip_own;

    /// A counter, not a clock: the same on every machine.
    #[test]
    fn work_grows_with_the_text_and_not_with_its_nesting() {
        for depth in [1, 4, 16, 60, 1000, 20_000] {
            let escaped = "\\u0061".repeat(50);
            let text = format!(
                r#"{}{{"_meta":{{"toolgate.dev/x":"{escaped}","k":"{escaped}"}}}}{}"#,
                r#"{"a":["#.repeat(depth),
                "]}".repeat(depth)
            );
            let found = find(&text);

            assert!(found.steps <= text.len(), "{} steps for {} bytes, {depth} deep", found.steps, text.len());
            assert_eq!(found.cuts.len(), usize::from(2 * depth < MAX_DEPTH as usize - 1));
        }
        let nested =
            |depth: usize| format!("{}1{}", r#"{"_meta":{"toolgate.dev/x":"#.repeat(depth), "}}".repeat(depth));
        for depth in [1, 10, 1000] {
            let text = nested(depth);
            assert!(find(&text).steps <= text.len());
            assert_eq!(strip_own(&text).unwrap(), r#"{"_meta":{}}"#);
        }
    }

    /// Independent of the scanner: the same on parsed values.
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    if let (true, Value::Object(meta)) = (key.eq_ignore_ascii_case("_meta"), &mut *value) {
                        meta.retain(|key, _| !key.starts_with(OWN));
                    }
                    strip(value);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("1".to_owned()),
            Just("null".to_owned()),
            Just(r#""a\"},\\""#.to_owned()),
            Just(r#""toolgate.dev/x""#.to_owned()),
            Just("{ }".to_owned()),
            Just("[ ]".to_owned()),
        ];
        let keys = ["_meta", "toolgate.dev/x", "toolgate\\u002edev/y", "\\u005fmeta", "_META", "k", "l", "m"];
        leaf.prop_recursive(5, 64, 5, move |inner| {
            let members = prop::collection::btree_map(0..keys.len(), inner.clone(), 0..5);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
                (members, "[ \n]{0,2}").prop_map(move |(members, space)| {
                    let all: Vec<String> = members
                        .iter()
                        .map(|(key, value)| format!("{space}\"{}\"{space}:{space}{value}{space}", keys[*key]))
                        .collect();
                    format!("{{{}}}", all.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn exactly_the_forged_members_go(text in json()) {
            // A parser keeps one of `_meta` and its escaped spelling; both are in no test.
            prop_assume!(!(text.contains("\"_meta\"") && text.contains("u005f")));
            let mut expected: Value = serde_json::from_str(&text).unwrap();
            strip(&mut expected);

            let clean = strip_own(&text).unwrap_or_else(|| text.clone());
            prop_assert_eq!(serde_json::from_str::<Value>(&clean).unwrap(), expected, "{} -> {}", text, clean);
            prop_assert_eq!(strip_own(&clean), None);
        }
    }
}
