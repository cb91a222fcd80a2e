//! Bounded JSON: one strict pass over untrusted text, and byte ranges instead of values.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use crate::json::same_folded;

/// Nesting beyond this is refused, in messages from either side.
pub const MAX_DEPTH: u32 = 64;

/// Most members of an object, and most items of an array, that are looked at one by one: what is beyond is refused. Such a
/// table costs many times the text that it is made of.
pub const MAX_MEMBERS: usize = 1 << 16;

/// Why a text is not acceptable JSON.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Checks that `text` is one JSON value with at most [`MAX_DEPTH`] levels and no object with a repeated key, escaped
/// or not: a second parser behind us must not be able to read another value than we judged. Keys that differ only in
/// case count as repeated, because Go's `encoding/json` takes either for a field.
pub fn check(text: &str) -> Result<(), Malformed> {
    super::strict::check_all(text)
}

/// Where `part` lies in `whole`. `part` must be a slice of `whole`.
pub fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start.saturating_add(part.len()).min(whole.len())
}

/// The members of an object in order, keys decoded, values raw. `None` if `text` is no object, or one of more than
/// [`MAX_MEMBERS`].
pub fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(Key(key)) = map.next_key()? {
                if found.len() >= MAX_MEMBERS {
                    return Err(A::Error::custom("too many members"));
                }
                found.push((key, map.next_value()?));
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Members).ok()
}

/// The items of an array, raw. `None` if `text` is no array, or one of more than [`MAX_MEMBERS`].
pub fn items(text: &str) -> Option<Vec<&RawValue>> {
    struct Items;
    impl<'de> Visitor<'de> for Items {
        type Value = Vec<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(item) = seq.next_element()? {
                if found.len() >= MAX_MEMBERS {
                    return Err(A::Error::custom("too many items"));
                }
                found.push(item);
            }
            Ok(found)
        }
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    let items = parser.deserialize_seq(Items).ok()?;
    parser.end().ok().map(|()| items)
}

/// `text` as a JSON string.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `text` with the bytes of each range replaced. Ranges are in order and do not overlap.
pub fn splice(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let extra: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut out = String::with_capacity(text.len() + extra);
    let mut from = 0;
    for (range, new) in edits {
        out.push_str(text.get(from..range.start).unwrap_or_default());
        out.push_str(new);
        from = range.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// A key that borrows when it holds no escape; `Cow`'s own implementation never borrows.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_members_and_items_are_bounded() {
        let list = |items: usize| format!("[{}]", vec!["0"; items].join(","));
        let object = |keys: usize| format!("{{{}}}", vec![r#""":0"#; keys].join(","));

        assert_eq!(items(&list(MAX_MEMBERS)).map(|all| all.len()), Some(MAX_MEMBERS));
        assert!(items(&list(MAX_MEMBERS + 1)).is_none() && items("[1] 2").is_none() && items("{}").is_none());
        assert!(members(&object(MAX_MEMBERS)).is_some() && members(&object(MAX_MEMBERS + 1)).is_none());
    }

    #[test]
    fn a_repeated_key_is_refused_in_every_spelling() {
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"path":1,"Path":2}"#,
            "{\"params\":1,\"param\u{17f}\":2}",
            "{\"key\":1,\"\u{212a}ey\":2}",
            r#"[{"x":{"b":1,"B":2}}]"#,
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        let many: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
        assert!(check(&format!("{{{}}}", many.join(","))).is_ok());
        assert!(check(&format!("{{{},\"K39\":0}}", many.join(","))).is_err());
        assert!(check(&format!("{{{},\"K0\":0}}", many.join(","))).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));

        assert!(check(&nested(64)).is_ok());
        assert!(check(&nested(65)).is_err());
        assert!(check(&nested(100_000)).is_err());
    }
}
