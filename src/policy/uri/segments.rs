//! Dot segments (RFC 3986 section 5.2.4), and what servers take for such.

/// How a path is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// `..;x` is `..`: some servers cut parameters off before they resolve.
    parameters: bool,
    /// An empty segment is none.
    merges: bool,
}

impl Reader {
    /// As RFC 3986 says.
    pub(super) const PLAIN: Self = Self { parameters: false, merges: false };
    /// As a server may that takes everything for a path.
    pub(super) const LENIENT: Self = Self { parameters: true, merges: false };
    /// As a file system does.
    pub(super) const FILES: Self = Self { parameters: true, merges: true };

    /// The path without dot segments. One that does not begin with a slash does not begin with one afterwards.
    pub(super) fn resolve(self, path: &str) -> String {
        let (root, body) = path.strip_prefix('/').map_or(("", path), |body| ("/", body));
        let mut kept = Vec::new();
        let mut ends_open = false; // Whether the last segment was resolved, and left a slash behind.
        for segment in body.split('/') {
            let name = if self.parameters { segment.split(';').next().unwrap_or(segment) } else { segment };
            ends_open = true;
            match name {
                "." => {}
                ".." => drop(kept.pop()),
                "" if self.merges && segment.is_empty() => {}
                _ => {
                    kept.push(segment);
                    ends_open = false;
                }
            }
        }
        if ends_open && !kept.is_empty() {
            kept.push("");
        }
        format!("{root}{}", kept.join("/"))
    }

    /// Every value of a query or fragment, resolved as a path of its own: `p=public/../secret` may be read as
    /// `p=secret`.
    pub(super) fn resolve_values(self, text: &str) -> String {
        let pieces = text.split_inclusive(['?', '&', '=', '#', ',']);
        pieces
            .map(|piece| match piece.char_indices().next_back().filter(|(_, last)| "?&=#,".contains(*last)) {
                Some((at, last)) => self.resolve(piece.get(..at).unwrap_or(piece)) + last.encode_utf8(&mut [0; 4]),
                None => self.resolve(piece),
            })
            .collect()
    }
}

/// Whether a segment is a dot segment, also with parameters.
pub(super) fn has_dots(text: &str) -> bool {
    text.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_resolve_as_in_rfc_3986() {
        for (path, resolved) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a//../b", "/a/b"),
            ("/", "/"),
            ("", ""),
            ("/a/..b/.c", "/a/..b/.c"),
            ("..", ""),
            ("a/../b", "b"),
            ("a/..", ""),
            ("//a", "//a"),
            ("/..;/a", "/..;/a"),
        ] {
            assert_eq!(Reader::PLAIN.resolve(path), resolved, "{path}");
        }
    }

    #[test]
    fn lenient_readers_cut_parameters_and_file_systems_merge_slashes() {
        assert_eq!(Reader::LENIENT.resolve("/a/..;x=1/b//c"), "/b//c");
        assert_eq!(Reader::FILES.resolve("//a///b//"), "/a/b/");
        assert_eq!(Reader::FILES.resolve("//"), "/");
        assert_eq!(Reader::FILES.resolve("/a//../b"), "/b");
    }

    #[test]
    fn values_of_a_query_resolve_by_themselves() {
        assert_eq!(Reader::LENIENT.resolve_values("p=public/../secret&q=/a/./b"), "p=secret&q=/a/b");
        assert_eq!(Reader::LENIENT.resolve_values("x"), "x");
    }
}
