//! The arguments of one call: parsed once, when a rule first reads them, and whether that rule reads them as the server
//! will.
//!
//! A message may hold keys that differ only in case, and halves of surrogate pairs: some clients send them, and servers
//! may do with them as they like. But where a rule reads, a server that ignores case, or mends half a pair, would read
//! another value. So such arguments cannot be judged by a rule that reads the object, or the string, that holds one.

use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::condition::Need;
use crate::json::{fold_alike, is_half, without_halves};

/// The arguments of one call.
pub(super) struct Arguments<'a> {
    text: Option<&'a str>,
    parsed: OnceCell<Parsed>,
}

struct Parsed {
    /// `None` if they are no object.
    object: Option<Value>,
    /// Strings with half a surrogate pair are marked by a character for which `is_half` holds.
    halves: bool,
    /// Something, anywhere, may be read in two ways.
    odd: bool,
}

impl<'a> Arguments<'a> {
    /// Absent arguments are an empty object, as servers read them.
    pub(super) fn new(text: Option<&'a str>) -> Self {
        Self { text, parsed: OnceCell::new() }
    }

    /// The arguments as an object; `None` if they are anything else, which no condition can judge.
    pub(super) fn object(&self) -> Option<&Value> {
        self.parsed().object.as_ref()
    }

    fn parsed(&self) -> &Parsed {
        self.parsed.get_or_init(|| {
            let Some(text) = self.text else {
                return Parsed { object: Some(Value::Object(Map::new())), halves: false, odd: false };
            };
            let (value, halves) = match serde_json::from_str(text) {
                Ok(value) => (Some(value), false),
                // No string of ours can hold half a surrogate pair, so the parser refuses them.
                Err(_) => match without_halves(text) {
                    Some(text) => (serde_json::from_str(&text).ok(), true),
                    None => (None, false),
                },
            };
            let object = value.filter(Value::is_object);
            let odd = halves || object.as_ref().is_some_and(is_odd);
            Parsed { object, halves, odd }
        })
    }

    /// The first place on the way to `pointer` that may be read in two ways, as a JSON pointer.
    pub(super) fn unclear_at(&self, pointer: &str) -> Option<String> {
        let Parsed { object: Some(object), halves, odd: true } = self.parsed() else { return None };
        let (mut value, mut at) = (object, String::new());
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            value = match value {
                Value::Object(members) if is_unclear(members, *halves) => return Some(at),
                Value::Object(members) => members.get(&token)?,
                Value::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                _ => return None,
            };
            push(&mut at, &token);
        }
        value.as_str().is_some_and(|text| *halves && text.contains(is_half)).then_some(at)
    }

    /// The first place that a condition reads and that may be read in two ways, as a JSON pointer.
    pub(super) fn unclear_in(&self, need: &Need) -> Option<String> {
        let Parsed { object: Some(object), halves, odd: true } = self.parsed() else { return None };
        let mut at = String::new();
        unclear_needed(object, need, *halves, &mut at).then_some(at)
    }
}

fn push(at: &mut String, token: &str) {
    at.push('/');
    at.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

/// Whether keys of an object may be taken for each other, or for another one.
fn is_unclear(members: &Map<String, Value>, halves: bool) -> bool {
    (halves && members.keys().any(|key| key.contains(is_half))) || fold_alike(members.keys().map(String::as_str))
}

/// Whether keys of any object may be taken for each other. Every call whose arguments are read pays for this.
fn is_odd(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(is_odd),
        Value::Object(members) => is_unclear(members, false) || members.values().any(is_odd),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Leaves in `at` where that is.
fn unclear_needed(value: &Value, need: &Need, halves: bool, at: &mut String) -> bool {
    match (need, value) {
        (Need::Fields(fields), Value::Object(members)) => {
            is_unclear(members, halves)
                || fields.iter().any(|(field, need)| {
                    members
                        .get(field)
                        .is_some_and(|value| within(field, at, |at| unclear_needed(value, need, halves, at)))
                })
        }
        // Only fields of it are read, and a list has none.
        (Need::Fields(_), Value::Array(_)) => false,
        _ => unclear_below(value, halves, at),
    }
}

/// Whether anything in a value may be read in two ways. No deeper than messages may be nested.
fn unclear_below(value: &Value, halves: bool, at: &mut String) -> bool {
    match value {
        Value::String(text) => halves && text.contains(is_half),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .any(|(index, item)| within(&index.to_string(), at, |at| unclear_below(item, halves, at))),
        Value::Object(members) => {
            is_unclear(members, halves)
                || members.iter().any(|(key, value)| within(key, at, |at| unclear_below(value, halves, at)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Looks into a member; `at` stays there if it is unclear.
fn within(token: &str, at: &mut String, found: impl FnOnce(&mut String) -> bool) -> bool {
    let length = at.len();
    push(at, token);
    let found = found(at);
    if !found {
        at.truncate(length);
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_that_are_no_object_cannot_be_judged() {
        assert!(Arguments::new(Some("[1]")).object().is_none());
        assert!(Arguments::new(Some("{")).object().is_none());
        assert_eq!(Arguments::new(None).object(), Some(&json!({})));
    }

    #[test]
    fn a_pointer_is_unclear_where_a_step_may_lead_elsewhere() {
        let text = r#"{"a":{"b":1,"B":2},"c":{"d":"x"},"h":"\ud800","l":[{"k":1,"K":2},"y"],"~/":{"\udfff":1}}"#;
        let arguments = Arguments::new(Some(text));
        for (pointer, place) in [
            ("/a/b", Some("/a")),
            ("/a/x", Some("/a")),
            ("/a", None),
            ("/c/d", None),
            ("/h", Some("/h")),
            ("/l/0/k", Some("/l/0")),
            ("/l/1", None),
            ("/~0~1/x", Some("/~0~1")),
            ("/gone/x", None),
        ] {
            assert_eq!(arguments.unclear_at(pointer).as_deref(), place, "{pointer}");
        }
        assert_eq!(Arguments::new(Some(r#"{"a":1,"A":2}"#)).unclear_at("/x").as_deref(), Some(""));
        assert_eq!(Arguments::new(Some(r#"{"a":"\ue000"}"#)).unclear_at("/a"), None, "a private character alone");
    }

    #[test]
    fn a_condition_is_unclear_only_in_what_it_reads() {
        let read = |fields: &[&str]| {
            let mut need = Need::default();
            need.add(&fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
            need
        };
        let arguments = Arguments::new(Some(r#"{"a":{"b":1,"B":2},"c":{"d":["\ud800"]}}"#));
        for (fields, place) in [
            (&["a", "b"][..], Some("/a")),
            (&["a"], Some("/a")),
            (&["c", "x"], None),
            (&["c", "d"], Some("/c/d/0")),
            (&["x"], None),
            (&[], Some("/a")),
        ] {
            assert_eq!(arguments.unclear_in(&read(fields)).as_deref(), place, "{fields:?}");
        }
    }
}
