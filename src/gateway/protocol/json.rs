//! Bounded JSON: one strict pass over untrusted text, and byte ranges instead of values.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Nesting beyond this is refused, in messages from either side.
pub const MAX_DEPTH: u32 = 64;

/// Why a text is not acceptable JSON.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Checks that `text` is one JSON value with at most [`MAX_DEPTH`] levels and no object with a repeated key, escaped
/// or not: a second parser behind us must not be able to read another value than we judged. Keys that differ only in
/// case count as repeated, because Go's `encoding/json` takes either for a field.
pub fn check(text: &str) -> Result<(), Malformed> {
    let mut parser = serde_json::Deserializer::from_str(text); // Its own recursion limit, 128, is beyond ours.
    Strict { depth: 0 }
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|error| Malformed(error.to_string()))
}

/// Whether two keys are the same to a reader that ignores case.
pub fn same_folded(one: &str, other: &str) -> bool {
    if one.is_ascii() && other.is_ascii() { one.eq_ignore_ascii_case(other) } else { folded(one) == folded(other) }
}

/// Simple case folding by way of upper case, which maps U+017F to `s` and U+212A to `k` as Go does.
fn folded(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Where `part` lies in `whole`. `part` must be a slice of `whole`.
pub fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    start..start.saturating_add(part.len()).min(whole.len())
}

/// The members of an object in order, keys decoded, values raw. `None` if `text` is no object.
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
                found.push((key, map.next_value()?));
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Members).ok()
}

/// The items of an array, raw. `None` if `text` is no array.
pub fn items(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
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

/// Visits everything once and keeps nothing.
#[derive(Clone, Copy)]
struct Strict {
    depth: u32,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")))
        } else {
            Ok(Self { depth })
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
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
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        /// Objects up to this size are searched, larger ones hashed.
        const FEW: usize = 16;
        let inner = self.deeper()?;
        let (mut few, mut many): (Vec<Cow<'de, str>>, HashSet<String>) = (Vec::new(), HashSet::new());
        while let Some(Key(key)) = map.next_key()? {
            let repeated = if many.is_empty() {
                few.iter().any(|known| same_folded(known, &key))
            } else {
                many.contains(&folded(&key))
            };
            if repeated {
                return Err(A::Error::custom(format_args!("duplicate key {key:?} (case does not count)")));
            }
            if few.len() < FEW {
                few.push(key);
            } else {
                if many.is_empty() {
                    many.extend(few.iter().map(|known| folded(known)));
                }
                many.insert(folded(&key));
            }
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
