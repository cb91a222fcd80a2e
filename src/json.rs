//! PURE. Where two readers of one JSON text may disagree: keys that repeat, keys that differ only in case, and halves of
//! surrogate pairs. For the gateway, which refuses such messages, and for policy, which must not read them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

/// Whether two keys are the same to a reader that ignores case.
pub fn same_folded(one: &str, other: &str) -> bool {
    // Almost all keys differ in their first letter.
    if let (Some(first), Some(second)) = (one.bytes().next(), other.bytes().next())
        && first.is_ascii()
        && second.is_ascii()
        && !first.eq_ignore_ascii_case(&second)
    {
        return false;
    }
    if one.is_ascii() && other.is_ascii() { one.eq_ignore_ascii_case(other) } else { folded(one) == folded(other) }
}

/// Simple case folding by way of upper case, which maps U+017F to `s` and U+212A to `k` as Go does.
pub fn folded(key: &str) -> String {
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Objects up to this size are searched, larger ones hashed.
const FEW: usize = 16;

/// Whether two of the keys of an object differ only in case. They are given in order, each once.
pub fn fold_alike<'a>(keys: impl ExactSizeIterator<Item = &'a str> + Clone) -> bool {
    if keys.len() <= FEW {
        let earlier = keys.clone();
        return keys.enumerate().any(|(at, key)| earlier.clone().take(at).any(|met| same_folded(met, key)));
    }
    let mut met = HashSet::with_capacity(keys.len());
    keys.into_iter().any(|key| !met.insert(folded(key)))
}

/// The keys of one object, as they are met.
#[derive(Debug)]
pub struct Keys<'a> {
    /// Keys that differ only in case are one.
    folds: bool,
    few: Vec<Cow<'a, str>>,
    many: HashSet<String>,
}

impl<'a> Keys<'a> {
    /// Of an object for whose keys case counts, or does not.
    pub fn new(folds: bool) -> Self {
        Self { folds, few: Vec::new(), many: HashSet::new() }
    }

    /// Takes the next key, or gives it back if it was met before.
    pub fn insert(&mut self, key: Cow<'a, str>) -> Result<(), Cow<'a, str>> {
        let known = |key: &str| if self.folds { folded(key) } else { key.to_owned() };
        if self.few.len() < FEW {
            let same = |met: &Cow<'_, str>| if self.folds { same_folded(met, &key) } else { *met == key };
            if self.few.iter().any(same) {
                return Err(key);
            }
            self.few.push(key);
            return Ok(());
        }
        if self.many.is_empty() {
            self.many.extend(self.few.iter().map(|key| known(key)));
        }
        if self.many.insert(known(&key)) { Ok(()) } else { Err(key) }
    }
}

/// JSON text of the same length, in which each half of a surrogate pair that stands alone is a character for which
/// [`is_half`] holds; different halves stay different. `None` if there is none. No string of Rust can hold such a half,
/// but JSON's grammar allows it (RFC 8259 section 8.2), and some programs cut texts in the middle of a pair.
pub fn without_halves(text: &str) -> Option<String> {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        at += match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(half @ 0xD800..=0xDFFF) => {
                out.push_str(text.get(copied..at).unwrap_or_default());
                let _ = write!(out, "\\u{:04x}", half + (0xE000 - 0xD800)); // Writing to a String cannot fail.
                copied = at + 6;
                6
            }
            Some(_) => 6,
            None => 2, // Every other escape has one character, which may be the second of `\\`.
        };
    }
    if copied == 0 {
        return None;
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    Some(out)
}

/// Whether a string of a text from [`without_halves`] holds half a surrogate pair. A private-use character that stood
/// there before counts as one: such a message is refused where somebody would read it.
pub fn is_half(c: char) -> bool {
    ('\u{E000}'..='\u{E7FF}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_halves_that_stand_alone_are_replaced() {
        for (text, replaced) in [
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ue000"}"#),
            (r#"{"\uDFFFx":"\ud83d\ude00\uD83D"}"#, r#"{"\ue7ffx":"\ud83d\ude00\ue03d"}"#),
            (r#""\ud800\ud83d\ude00""#, r#""\ue000\ud83d\ude00""#),
            (r#""\\\ud800""#, r#""\\\ue000""#),
        ] {
            assert_eq!(without_halves(text).as_deref(), Some(replaced));
            assert_eq!(text.len(), replaced.len());
        }
        for text in
            [r#""\\ud800""#, r#""\ud83d\ude00""#, r#""é\n""#, "\"\\", "\"\\u", "\"\\ud8é0\"", "{}", r#""\ue000""#]
        {
            assert_eq!(without_halves(text), None, "{text}");
        }
    }

    #[test]
    fn keys_are_met_once_whatever_their_number() {
        for folds in [false, true] {
            let mut keys = Keys::new(folds);
            for number in 0..40 {
                assert_eq!(keys.insert(format!("k{number}").into()), Ok(()));
            }
            assert!(keys.insert("k0".into()).is_err() && keys.insert("k39".into()).is_err());
            assert_eq!(keys.insert("K20".into()).is_ok(), !folds);
        }
        let numbered: Vec<String> = (0..40).map(|number| format!("k{number}")).chain(["K7".to_owned()]).collect();
        let alike = |keys: &[String]| fold_alike(keys.iter().map(String::as_str));
        assert!(
            alike(&numbered)
                && !alike(&numbered[..40])
                && !alike(&numbered[..9])
                && alike(&numbered[34..].iter().chain(&numbered[7..8]).cloned().collect::<Vec<_>>())
        );
        let mut keys = Keys::new(true);
        assert!(keys.insert("params".into()).is_ok() && keys.insert("param\u{17f}".into()).is_err());
    }
}
