//! One strict pass over a message of a client: a server behind us must not be able to read another message than we do.
//!
//! Exact repetitions of a key are refused everywhere, escaped or not. What the gateway reads is held to more: there,
//! keys that differ only in case count as repeated, because Go's `encoding/json` takes either for a field, and no string
//! may hold half a surrogate pair. In all that only the server reads, and in `arguments`, both pass as they came; policy
//! refuses them where a rule reads them (`policy::arguments`).

use std::cell::Cell;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::{Key, MAX_DEPTH, MAX_MEMBERS, Malformed};
use crate::json::{Keys, is_half, without_halves};

/// Checks that `text` is one JSON value with at most [`MAX_DEPTH`] levels, and a message that reads in one way.
pub fn check_message(text: &str) -> Result<(), Malformed> {
    check(text, Zone::Message)
}

/// Checks arguments by themselves, as [`check_message`] would within a message.
pub fn check_arguments(text: &str) -> Result<(), Malformed> {
    check(text, Zone::Free)
}

/// Checks that `text` is read in one way wherever one looks.
pub(super) fn check_all(text: &str) -> Result<(), Malformed> {
    check(text, Zone::Read)
}

fn check(text: &str, zone: Zone) -> Result<(), Malformed> {
    let keys = Cell::new(0);
    let strict = Strict { depth: 0, zone, halves: false, keys: &keys };
    let Err(error) = pass(text, strict) else { return Ok(()) };
    keys.set(0);
    // A half of a surrogate pair is an error of the parser, wherever it stands.
    match without_halves(text) {
        Some(text) => pass(&text, Strict { halves: true, ..strict }).map_err(Malformed::from),
        None => Err(Malformed::from(error)),
    }
}

fn pass(text: &str, strict: Strict<'_>) -> Result<(), serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text); // Its own recursion limit, 128, is beyond ours.
    strict.deserialize(&mut parser).and_then(|()| parser.end())
}

/// Parameters that the gateway reads, whatever they hold. One that is read from now on belongs here.
const READ: [&str; 13] = [
    "name",
    "uri",
    "taskId",
    "ref",
    "notifications",
    "task",
    "requestId",
    "progressToken",
    "level",
    "cursor",
    "protocolVersion",
    "capabilities",
    "clientInfo",
];

/// Whose a value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Zone {
    /// The message itself.
    Message,
    /// Its `params`.
    Params,
    /// `_meta` of `params`.
    Meta,
    /// Read here, with all that is in it.
    Read,
    /// The server's alone, or policy's to check.
    Free,
}

impl Zone {
    fn of_member(self, key: &str) -> Self {
        let read = match self {
            Self::Message if key == "params" => return Self::Params,
            Self::Params if key == "_meta" => return Self::Meta,
            Self::Message => !matches!(key, "result" | "error"),
            Self::Params => READ.contains(&key),
            Self::Meta => key == "io.modelcontextprotocol/clientCapabilities",
            Self::Read => true,
            Self::Free => false,
        };
        if read { Self::Read } else { Self::Free }
    }

    /// Whether keys of an object here are read.
    fn is_read(self) -> bool {
        self != Self::Free
    }
}

/// Visits everything once and keeps nothing.
#[derive(Clone, Copy)]
struct Strict<'k> {
    depth: u32,
    zone: Zone,
    /// The text comes from [`without_halves`].
    halves: bool,
    /// Keys of the objects that are open: what is remembered at a time.
    keys: &'k Cell<usize>,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")))
        } else {
            Ok(Self { depth, ..self })
        }
    }

    fn text<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.halves && self.zone.is_read() && text.contains(is_half) {
            return Err(E::custom("half of a surrogate pair stands where the gateway reads"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        // An item is whose the list is; a message is no list.
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let read = self.zone.is_read();
        let mut keys = Keys::new(read);
        let outside = self.keys.get();
        while let Some(Key(key)) = map.next_key()? {
            self.keys.set(self.keys.get() + 1);
            if self.keys.get() > MAX_MEMBERS {
                return Err(A::Error::custom(format_args!(
                    "an object, with those around it, has more than {MAX_MEMBERS} members"
                )));
            }
            self.text(&key)?;
            let zone = self.zone.of_member(&key);
            if let Err(key) = keys.insert(key) {
                let why = if read { " (case does not count here)" } else { "" };
                return Err(A::Error::custom(format_args!("duplicate key {key:?}{why}")));
            }
            map.next_value_seed(Self { zone, ..inner })?;
        }
        self.keys.set(outside);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","arguments":{arguments}}}}}"#)
    }

    #[test]
    fn arguments_pass_as_they_came() {
        for arguments in [
            r#"{"path":1,"Path":2}"#,
            r#"{"a":"\ud800","\udfff":{"x":["\ud83d"]}}"#,
            r#"{"\ud800":1,"\ud801":2}"#,
            r#"[{"x":{"b":1,"B":2}}]"#,
        ] {
            assert!(check_message(&call(arguments)).is_ok(), "{arguments}");
            assert!(check_arguments(arguments).is_ok(), "{arguments}");
            assert!(check_all(arguments).is_err(), "{arguments}");
        }
        for message in [
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":{"Name":1,"name":2}}}"#,
            r#"{"params":{"inputResponses":{"a":{"A":1,"a":2}},"requestState":"\ud800"}}"#,
            r#"{"params":{"_meta":{"com.example/x":{"A":1,"a":2}}}}"#,
        ] {
            assert!(check_message(message).is_ok(), "{message}");
        }
    }

    #[test]
    fn the_keys_that_are_remembered_at_a_time_are_bounded() {
        let object = |keys: usize| {
            let members: Vec<String> = (0..keys).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        let most = MAX_MEMBERS - 10; // The message has members too.
        assert!(check_message(&call(&object(most))).is_ok());
        assert!(check_message(&call(&format!("[{0},{0}]", object(most)))).is_ok(), "one after the other");
        let error = check_message(&call(&object(MAX_MEMBERS))).unwrap_err();
        assert!(error.to_string().contains("more than 65536 members"), "{error}");
        assert!(check_message(&call(&format!(r#"{{"a":{0},"b":{{"c":{0}}}}}"#, object(most)))).is_ok());
        let half = object(MAX_MEMBERS / 2);
        let inner = half.replacen('{', &format!(r#"{{"x":{half},"#), 1);
        assert!(check_message(&call(&inner)).is_ok(), "the inner one is over before the outer one goes on");
        let nested = half.replacen('}', &format!(r#","x":{half}}}"#), 1);
        assert!(check_message(&call(&nested)).is_err(), "one within the other");
    }

    #[test]
    fn exact_duplicates_are_refused_everywhere() {
        let many: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
        for arguments in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"é":1,"\u00e9":2}]}"#,
            r#"{"\ud800":1,"\uD800":2}"#,
            &format!("{{{},\"k39\":0}}", many.join(",")),
        ] {
            assert!(check_message(&call(arguments)).is_err(), "{arguments}");
        }
        assert!(check_message(&call(&format!("{{{},\"K39\":0}}", many.join(",")))).is_ok());
    }

    #[test]
    fn what_the_gateway_reads_has_one_spelling() {
        for message in [
            r#"{"id":1,"ID":2}"#,
            r#"{"method":"a","\u004dethod":"b"}"#,
            r#"{"params":{"name":"x","Name":"y"}}"#,
            r#"{"params":{"arguments":{},"Arguments":{}}}"#,
            r#"{"params":{"_meta":{"a":1,"A":2}}}"#,
            r#"{"params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"extensions":{"a":1,"A":1}}}}}"#,
            r#"{"params":{"ref":{"uri":"a","Uri":"b"}}}"#,
            r#"{"params":{"notifications":{"taskIds":[],"taskids":[]}}}"#,
            r#"{"params":{"name":"\ud800"}}"#,
            r#"{"id":"\udc00"}"#,
            r#"{"params":{"\ud800":1}}"#,
            r#"{"params":{"_meta":{"\ud800":1}}}"#,
            r#"{"x":"\ud800","method":"a"}"#,
        ] {
            assert!(check_message(message).is_err(), "{message}");
        }
    }

    #[test]
    fn depth_is_bounded_also_beside_halves() {
        let nested = |depth: usize| format!("{}\"\\ud800\"{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_arguments(&nested(64)).is_ok());
        assert!(check_arguments(&nested(65)).is_err());
    }
}
