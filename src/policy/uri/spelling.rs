//! One spelling for every octet of a URI.
//!
//! RFC 3987 section 3.1 and RFC 3986 section 6.2.2 make one form of `é`, `%c3%a9` and `%C3%A9`, of ` ` and `%20`, of `~`
//! and `%7E`. Here that form is the character itself, so that `?` of a glob is one character of what is meant. Escapes
//! are left where decoding would change the meaning: of reserved characters, of `%`, and of octets that are no UTF-8.

use std::fmt::Write as _;

/// Spells text whose escapes are escapes. A `%` that begins none stands for itself. `None` if it holds a control
/// character.
pub(super) fn spell(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut wide = Vec::new(); // Octets beyond ASCII that have not been written yet.
    let mut rest = bytes;
    while let Some((octet, escaped, after)) = next(rest) {
        rest = after;
        if !octet.is_ascii() {
            wide.push(octet);
            continue;
        }
        flush(&mut wide, &mut out)?;
        if octet.is_ascii_control() {
            return None;
        }
        if octet == b'%' || (escaped && is_reserved(octet)) {
            escape(octet, &mut out);
        } else {
            out.push(octet.into());
        }
    }
    flush(&mut wide, &mut out)?;
    Some(out)
}

/// Every escape of a spelled text decoded, once.
pub(super) fn decode(spelled: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(spelled.len());
    let mut rest = spelled.as_bytes();
    while let Some((octet, _, after)) = next(rest) {
        out.push(octet);
        rest = after;
    }
    out
}

/// The first octet, whether it was escaped, and what follows.
fn next(bytes: &[u8]) -> Option<(u8, bool, &[u8])> {
    if let [b'%', high, low, rest @ ..] = bytes
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        return Some(((high << 4) | low, true, rest));
    }
    bytes.split_first().map(|(octet, rest)| (*octet, false, rest))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// gen-delims and sub-delims of RFC 3986 section 2.2.
fn is_reserved(octet: u8) -> bool {
    b":/?#[]@!$&'()*+,;=".contains(&octet)
}

fn escape(octet: u8, out: &mut String) {
    let _ = write!(out, "%{octet:02X}"); // Writing to a String cannot fail.
}

/// Writes octets beyond ASCII: as characters where they are UTF-8.
fn flush(wide: &mut Vec<u8>, out: &mut String) -> Option<()> {
    for chunk in wide.utf8_chunks() {
        if chunk.valid().contains(char::is_control) {
            return None;
        }
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|octet| escape(*octet, out));
    }
    wide.clear();
    Some(())
}
