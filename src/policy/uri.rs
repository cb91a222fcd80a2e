//! What a URI names: its canonical form, and every other way in which a server may read it.
//!
//! Globs compare text, and one thing has many spellings. So rules are asked about the canonical form, never about the
//! text as it came: of the special schemes (`http`, `https`, `ws`, `wss`, `ftp`, `file`) that of the WHATWG URL standard,
//! without the dot at the end of a host; of all others that of RFC 3986 section 6.2.2, after RFC 3987 section 3.1, but
//! with the case of the authority kept (`repo://Acme` is a common name). A server may decode what is still encoded, once
//! or more often, so each round of decoding is one more reading. Rules must allow all of them; one that a Deny rule
//! names is enough to deny.
//!
//! The URI itself reaches the server byte for byte. What only this module does with it:
//! - `spelling`: one spelling for every octet.
//! - `segments`: dot segments.
//! - `pattern`: the same form for globs and templates.

mod pattern;
mod segments;
mod spelling;

pub(super) use pattern::{canonical as canonical_pattern, canonical_template};
use segments::Reader;

/// Longest URI that is looked at, in bytes.
const URI_BYTES: usize = 8 << 10;
/// Most rounds of decoding. What is not stable after them is refused.
const ROUNDS: usize = 3;

/// The schemes whose URIs the WHATWG URL standard defines.
const SPECIAL: [&str; 6] = ["http", "https", "ws", "wss", "ftp", "file"];

/// The components of a URI (RFC 3986 section 3), each in its one spelling.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Parts {
    /// In lower case; empty for a reference without one.
    scheme: String,
    authority: Option<String>,
    path: String,
    query: Option<String>,
    fragment: Option<String>,
}

/// Every way to read a URI, the canonical form first. `None` if it has none: it is too long, holds a control character
/// (encoded or not), breaks the WHATWG URL standard, has a dot segment for its authority, or still holds another URI
/// after three rounds of decoding.
pub(super) fn readings(uri: &str) -> Option<Vec<String>> {
    let mut parts = Parts::canonical(uri)?;
    let mut readings = Vec::with_capacity(1);
    for _ in 0..=ROUNDS {
        if parts.authority.as_deref().is_some_and(segments::has_dots) {
            return None; // No standard resolves these, and a server that takes all for a path would climb out of it.
        }
        readings.push(parts.text());
        let next = parts.decoded()?;
        if next == parts {
            return Some(readings);
        }
        parts = next;
    }
    None
}

impl Parts {
    /// The canonical form.
    fn canonical(uri: &str) -> Option<Self> {
        if uri.len() > URI_BYTES || uri.contains(char::is_control) {
            return None;
        }
        let trimmed = uri.trim_matches(' '); // The WHATWG URL standard ignores spaces at both ends.
        match scheme(trimmed) {
            Some((scheme, _)) if is_special(scheme) => Self::split(&whatwg(trimmed)?),
            _ => Self::split(uri)?.without_dot_segments(),
        }
    }

    /// Splits as RFC 3986 appendix B does, and gives every octet its one spelling.
    fn split(text: &str) -> Option<Self> {
        let (scheme, rest) = scheme(text).unwrap_or(("", text));
        let (rest, fragment) = cut(rest, '#');
        let (rest, query) = cut(rest, '?');
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                (Some(authority), path)
            }
            None => (None, rest),
        };
        let spell = |text: &str| spelling::spell(text.as_bytes());
        let spell_option = |text: Option<&str>| match text {
            Some(text) => spell(text).map(Some),
            None => Some(None),
        };
        let scheme = scheme.to_ascii_lowercase();
        let mut query = spell_option(query)?;
        if is_special(&scheme) {
            // The standard writes an apostrophe of a query as an escape, and only there.
            query = query.map(|query| query.replace("%27", "'"));
        }
        let fragment = spell_option(fragment)?;
        Some(Self { scheme, authority: spell_option(authority)?, path: spell(path)?, query, fragment })
    }

    /// RFC 3986 section 6.2.2.3. `None` if the rest would read as another URI.
    fn without_dot_segments(mut self) -> Option<Self> {
        self.path = Reader::PLAIN.resolve(&self.path);
        if self.authority.is_none() && self.path.starts_with("//") {
            self.path.insert_str(0, "/."); // As the WHATWG URL standard does: `//` would begin an authority.
        }
        (!self.scheme.is_empty() || scheme(&self.path).is_none()).then_some(self)
    }

    /// What a server reads that decodes once more: every escape decoded, a backslash for a slash, and dot segments
    /// resolved wherever they then stand. `None` if a control character comes to light.
    fn decoded(&self) -> Option<Self> {
        let decode = |text: &String| {
            let slashed: Vec<u8> =
                spelling::decode(text).into_iter().map(|byte| if byte == b'\\' { b'/' } else { byte }).collect();
            spelling::spell(&slashed)
        };
        let decode_option = |text: &Option<String>| match text {
            Some(text) => decode(text).map(Some),
            None => Some(None),
        };
        // A file system takes `//` for `/`; elsewhere an empty segment may be a name.
        let reader = if self.scheme == "file" { Reader::FILES } else { Reader::LENIENT };
        Some(Self {
            scheme: self.scheme.clone(),
            authority: decode_option(&self.authority)?,
            path: reader.resolve(&decode(&self.path)?),
            query: decode_option(&self.query)?.map(|query| Reader::LENIENT.resolve_values(&query)),
            fragment: decode_option(&self.fragment)?.map(|fragment| Reader::LENIENT.resolve_values(&fragment)),
        })
    }

    /// The text that globs compare.
    fn text(&self) -> String {
        let Self { scheme, authority, path, query, fragment } = self;
        let colon = if scheme.is_empty() { "" } else { ":" };
        let part = |prefix: &str, part: &Option<String>| part.as_ref().map(|part| format!("{prefix}{part}"));
        let (authority, query, fragment) = (part("//", authority), part("?", query), part("#", fragment));
        let [authority, query, fragment] = [authority, query, fragment].map(Option::unwrap_or_default);
        format!("{scheme}{colon}{authority}{path}{query}{fragment}")
    }
}

/// The scheme and what follows its colon (RFC 3986 section 3.1).
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let letters = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    (letters && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))).then_some((scheme, rest))
}

fn is_special(scheme: &str) -> bool {
    SPECIAL.iter().any(|special| special.eq_ignore_ascii_case(scheme))
}

/// The serialization of the WHATWG URL standard, without the dot that ends a host.
fn whatwg(text: &str) -> Option<String> {
    let mut url = url::Url::parse(text).ok()?;
    let bare = match url.host() {
        Some(url::Host::Domain(host)) => host.strip_suffix('.').map(|host| host.trim_end_matches('.').to_owned()),
        _ => None,
    };
    if let [b'/', letter, b'|', rest @ ..] = url.path().as_bytes()
        && url.scheme() == "file"
        && letter.is_ascii_alphabetic()
        && matches!(rest, [] | [b'/', ..])
    {
        let path = url.path().replacen('|', ":", 1); // A drive; the crate leaves it as it is.
        url.set_path(&path);
    }
    let Some(host) = bare else { return Some(url.into()) };
    if host.is_empty() {
        return None;
    }
    url.set_host(Some(&host)).ok()?;
    // Parsed again, because what is left may be an address, or `localhost` of a file.
    url::Url::parse(url.as_str()).ok().map(Into::into)
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
pub(super) mod tests;
