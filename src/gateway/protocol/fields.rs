//! The members of one object that the gateway reads, found in one pass.
//!
//! JSON permits a key twice, and then readers differ: some take the first, most take the last, and some ignore case
//! (Go's `encoding/json`). Whatever the gateway reads in an object, it reads here, and an object that another reader
//! could read otherwise is [`Unclear`]. Members that nobody asks for are not compared: they are not ours to refuse.
//! A clean object costs no allocation.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Key, same_folded};

/// What was found of an object.
#[derive(Debug)]
pub struct Found<'a, const N: usize> {
    /// Values in the order of the names, `null` included. One that is unclear is absent.
    pub values: [Option<&'a RawValue>; N],
    /// Why the object can be read in two ways, if it can.
    pub unclear: Option<Unclear>,
}

/// Two readers could read different things.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unclear {
    /// The text is no object.
    #[error("it is no object")]
    NoObject,
    /// A member stands there twice.
    #[error("{0:?} stands there twice, so readers could disagree")]
    Repeated(&'static str),
    /// A member differs from a known one only in case.
    #[error("{0:?} differs from a known name only in case, so readers could disagree")]
    Misspelt(String),
    /// The text is not of the kind that it must be.
    #[error("{0}")]
    Other(&'static str),
}

/// Finds `names` in the object `text`, which must hold nothing else. An error says that it is no object at all.
pub fn find<'a, const N: usize>(text: &'a str, names: &[&'static str; N]) -> Result<Found<'a, N>, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let found = parser.deserialize_map(Finder(names))?;
    parser.end().map(|()| found)
}

/// Finds `names` in the object `text`, which no reader may be able to read otherwise.
pub fn read<'a, const N: usize>(
    text: &'a str,
    names: &[&'static str; N],
) -> Result<[Option<&'a RawValue>; N], Unclear> {
    let found = find(text, names).map_err(|_| Unclear::NoObject)?;
    found.unclear.map_or(Ok(found.values), Err)
}

/// The value, unless it is `null`.
pub fn present(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

/// Characters of a key that a message repeats.
const KEY: usize = 64;

struct Finder<'n, const N: usize>(&'n [&'static str; N]);

impl<'de, const N: usize> Visitor<'de> for Finder<'_, N> {
    type Value = Found<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found { values: [None; N], unclear: None };
        let mut seen = [false; N];
        while let Some(Key(key)) = map.next_key()? {
            let raw: &RawValue = map.next_value()?;
            let mut slots = self.0.iter().zip(found.values.iter_mut().zip(&mut seen));
            let Some((name, (value, seen))) = slots.find(|(name, _)| same_folded(name, &key)) else { continue };
            let unclear = if *name != key {
                Some(Unclear::Misspelt(key.chars().take(KEY).collect()))
            } else if *seen {
                Some(Unclear::Repeated(name))
            } else {
                None
            };
            *value = if unclear.is_none() && !*seen { Some(raw) } else { None };
            *seen = true;
            found.unclear = found.unclear.or(unclear);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<[Option<String>; 2], Unclear> {
        read(text, &["mode", "method"]).map(|all| all.map(|raw| raw.map(|raw| raw.get().to_owned())))
    }

    #[test]
    fn members_are_found_however_they_are_spelt() {
        assert_eq!(of(r#"{"m\u006fde":"url","x":1,"x":2}"#), Ok([Some("\"url\"".into()), None]));
        assert_eq!(of(r#" {"method":null} "#), Ok([None, Some("null".into())]));
    }

    #[test]
    fn an_object_that_readers_could_read_otherwise_is_unclear() {
        for text in [
            r#"{"mode":"form","mode":"url"}"#,
            r#"{"mode":"form","m\u006fde":"url"}"#,
            r#"{"mode":"form","mode":"form","mode":"url"}"#,
            r#"{"mode":"form","Mode":"url"}"#,
            r#"{"MODE":"url"}"#,
            "{\"\u{4d}ode\":1}",
            r#"{"method":1,"x":{},"method":1}"#,
        ] {
            assert!(of(text).is_err(), "{text}");
        }
        for text in ["[]", "1", "", "{}{}", "{", r#"["form"]"#] {
            assert_eq!(of(text), Err(Unclear::NoObject), "{text}");
        }
        // U+212A and U+017F fold to letters of ASCII.
        assert!(read("{\"tas\u{212a}\":1}", &["task"]).is_err());
        assert!(read("{\"i\u{17f}Error\":1}", &["isError"]).is_err());
    }

    #[test]
    fn what_is_clear_is_found_beside_what_is_not() {
        let found = find(r#"{"id":7,"result":1,"result":2}"#, &["id", "result"]).unwrap();

        assert_eq!(found.values.map(|raw| raw.map(RawValue::get)), [Some("7"), None]);
        assert_eq!(found.unclear, Some(Unclear::Repeated("result")));
    }
}
