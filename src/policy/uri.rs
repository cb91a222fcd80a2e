//! Which URIs policy is willing to judge by their text.
//!
//! Globs compare text. A URI that a server may read as another one (RFC 3986 section 6) could slip past a Deny or
//! into an Allow, so it is refused before any rule is asked.

/// Longest URI that is looked at, in bytes.
const URI_BYTES: usize = 8 << 10;

/// Whether the text of a URI is the only way to read it.
///
/// Refused are: dot segments; backslashes and control characters; a percent-encoded `/`, `\`, `%`, control or
/// unreserved character (`.` among them), as well as `%` without two hex digits; a scheme with upper-case letters, or
/// a host with such in `http`, `https` and `file`; empty path segments in `file`.
pub(super) fn is_plain(uri: &str) -> bool {
    uri.len() <= URI_BYTES && !uri.contains(|c: char| c.is_control() || c == '\\') && encoding_is_plain(uri) && {
        let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
        let dotted = rest.split(['/', '?', '#', '&', '=', ';']).any(|segment| segment == "." || segment == "..");
        !dotted && !scheme.contains(|c: char| c.is_ascii_uppercase()) && location_is_plain(scheme, rest)
    }
}

fn encoding_is_plain(uri: &str) -> bool {
    uri.split('%').skip(1).all(|after| {
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        // `from_str_radix` takes "+f"; a sign is no hex digit.
        let hex = after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        byte.is_some_and(|byte| {
            hex && !byte.is_ascii_alphanumeric() && !byte.is_ascii_control() && !b"-._~/\\%".contains(&byte)
        })
    })
}

fn location_is_plain(scheme: &str, rest: &str) -> bool {
    if !matches!(scheme, "http" | "https" | "file") {
        return true; // What other schemes mean is for their servers to say; names such as `repo://Acme` are common.
    }
    let Some(rest) = rest.strip_prefix("//") else { return false };
    let host_and_path = rest.split(['?', '#']).next().unwrap_or(rest);
    let (host, path) = host_and_path.split_once('/').unwrap_or((host_and_path, ""));
    !host.contains(|c: char| c.is_ascii_uppercase())
        && (scheme != "file" || !(path.starts_with('/') || path.contains("//")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_uris_are_plain() {
        for uri in [
            "file:///srv/data/a.txt",
            "repo://Acme/tool/readme",
            "https://example.com/a%20b?q=x%3Dy",
            "ui://widget/..a/b..",
            "mem:note",
            "test://static-text",
            "x://a//b",
            "file:///srv/caf%C3%A9",
        ] {
            assert!(is_plain(uri), "{uri}");
        }
    }

    #[test]
    fn uris_with_a_second_reading_are_refused() {
        for uri in [
            "file:///srv/../etc/passwd",
            "file:///srv/./x",
            "file:///srv/..",
            "mem:..",
            "x://a?p=../b",
            "x://a/..;/b",
            "file:///srv/%2e%2e/etc",
            "file:///srv/%2E/etc",
            "file:///srv%2fx",
            "file:///srv%5Cx",
            "file:///srv/%252e",
            "file:///%65tc/passwd",
            "file:///a\\b",
            "file:///a%00b",
            "file:///a\nb",
            "file:///a%zz",
            "file:///a%+f",
            "file:///a%",
            "FILE:///etc/passwd",
            "https://EXAMPLE.com/",
            "file:////etc/passwd",
            "file:///etc//passwd",
            "file:/etc/passwd",
        ] {
            assert!(!is_plain(uri), "{uri}");
        }
        assert!(!is_plain(&format!("x://{}", "a".repeat(URI_BYTES))));
    }
}
