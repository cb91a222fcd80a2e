//! When two request ids are the same.
//!
//! Ids are compared as the most lenient reader on the way would: numbers by value (1, 1.0 and 1e0 are one number to
//! JavaScript), strings decoded, and a string that holds a number is that number, since there are servers that answer
//! `"1"` with `1` and clients that take one for the other. Ids that differ here differ for everybody.

use sha2::{Digest as _, Sha256};

/// What an id is, however it is written.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Id {
    /// A number, as the bits of a double: integers beyond 2^53 that a double does not tell apart are one id.
    Number(u64),
    /// A string.
    Text(Box<str>),
    /// A long string, of which only a digest is kept.
    Long([u8; 32]),
}

/// Longest string that is kept, in bytes.
const KEPT: usize = 64;

impl Id {
    /// Reads an id, JSON text.
    pub fn of(raw: &str) -> Self {
        if !raw.starts_with('"') {
            return Self::number(raw).unwrap_or_else(|| Self::text(raw));
        }
        // Half a surrogate pair cannot be decoded: such an id stays as it is written.
        match serde_json::from_str::<String>(raw) {
            Ok(text) => Self::number(text.trim()).unwrap_or_else(|| Self::text(&text)),
            Err(_) => Self::text(raw),
        }
    }

    fn number(text: &str) -> Option<Self> {
        let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
        Some(Self::Number((number + 0.0).to_bits())) // Adding zero makes -0 the same as 0.
    }

    fn text(text: &str) -> Self {
        if text.len() <= KEPT { Self::Text(text.into()) } else { Self::Long(Sha256::digest(text).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_some_reader_takes_for_one_are_one() {
        for (one, other) in [
            ("1", "1.0"),
            ("1", "1e0"),
            ("100", "1E+2"),
            ("0", "-0"),
            ("1", "\"1\""),
            ("\"a\"", "\"\\u0061\""),
            ("9007199254740993", "9007199254740992"),
        ] {
            assert_eq!(Id::of(one), Id::of(other), "{one} {other}");
        }
        for (one, other) in [("1", "2"), ("\"a\"", "\"A\""), ("\"nan\"", "\"inf\""), ("1", "\"\\u0061\"")] {
            assert_ne!(Id::of(one), Id::of(other), "{one} {other}");
        }
        let long = |last: char| format!("\"{}{last}\"", "x".repeat(100));
        assert_ne!(Id::of(&long('a')), Id::of(&long('b')));
    }
}
