//! A catalogue in chunks, put together within bounds.

use crate::policyserver::fleet::{Offer, OfferedTool};
use crate::wire::proto;

/// Most tools of one server.
pub(in crate::policyserver) const TOOLS: usize = 5_000;
/// Longest name, version or digest, in bytes.
const TEXT: usize = 256;
/// Most protocol versions of one server.
const PROTOCOL_VERSIONS: usize = 16;
/// Longest error, in bytes.
const ERROR: usize = 1 << 10;

/// Chunks of one catalogue, until the last has come.
#[derive(Debug, Default)]
pub(in crate::policyserver) struct Chunks {
    id: u64,
    offer: Offer,
    has_too_many: bool,
}

impl Chunks {
    /// Takes a chunk; the whole catalogue once it was the last. A chunk of another catalogue begins that one: what was
    /// half told is forgotten.
    pub(in crate::policyserver) fn take(&mut self, chunk: proto::Offer) -> Option<Offer> {
        let proto::Offer { id, last, name, version, protocol_versions, tools, prompts, resources, error } = chunk;
        if id != self.id {
            *self = Self { id, ..Self::default() };
        }
        let room = TOOLS.saturating_sub(self.offer.tools.len());
        self.has_too_many |= tools.len() > room;
        self.offer.tools.extend(
            tools
                .into_iter()
                .take(room)
                .map(|tool| OfferedTool { name: cut(tool.name, TEXT), digest: cut(tool.digest, TEXT) }),
        );
        if !last {
            return None;
        }
        let Self { mut offer, has_too_many, .. } = std::mem::take(self);
        offer.tools.sort_by(|a, b| a.name.cmp(&b.name));
        offer.tools.dedup_by(|a, b| a.name == b.name);
        offer.name = cut(name, TEXT);
        offer.version = cut(version, TEXT);
        offer.protocol_versions =
            protocol_versions.into_iter().take(PROTOCOL_VERSIONS).map(|version| cut(version, TEXT)).collect();
        offer.protocol_versions.sort();
        offer.protocol_versions.dedup();
        offer.prompts = usize::try_from(prompts).unwrap_or(usize::MAX);
        offer.resources = usize::try_from(resources).unwrap_or(usize::MAX);
        offer.error = Some(cut(error, ERROR)).filter(|error| !error.is_empty());
        if has_too_many {
            offer
                .error
                .get_or_insert_with(|| format!("the server lists more than {TOOLS} tools; the rest is not shown"));
        }
        Some(offer)
    }
}

/// A catalogue in one piece.
pub(in crate::policyserver) fn whole(offer: proto::Offer) -> Option<Offer> {
    Chunks::default().take(proto::Offer { last: true, ..offer })
}

/// The text, or as much of it as may be.
pub(in crate::policyserver) fn cut(mut text: String, limit: usize) -> String {
    text.truncate(text.floor_char_boundary(limit));
    text
}

impl From<&Offer> for proto::Offer {
    fn from(offer: &Offer) -> Self {
        let Offer { name, version, protocol_versions, tools, prompts, resources, error } = offer;
        let tool = |OfferedTool { name, digest }: &OfferedTool| proto::OfferedTool {
            name: name.clone(),
            digest: digest.clone(),
        };
        Self {
            id: 0,
            last: true,
            name: name.clone(),
            version: version.clone(),
            protocol_versions: protocol_versions.clone(),
            tools: tools.iter().map(tool).collect(),
            prompts: u32::try_from(*prompts).unwrap_or(u32::MAX),
            resources: u32::try_from(*resources).unwrap_or(u32::MAX),
            error: error.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(id: u64, names: std::ops::Range<usize>, last: bool) -> proto::Offer {
        let tool = |n| proto::OfferedTool { name: format!("t{n:05}"), digest: "sha256:d".to_owned() };
        proto::Offer { id, last, tools: names.map(tool).collect(), ..proto::Offer::default() }
    }

    #[test]
    fn chunks_of_one_catalogue_come_together_sorted() {
        let mut chunks = Chunks::default();

        assert_eq!(chunks.take(chunk(1, 2..4, false)), None);
        let offer = chunks.take(chunk(1, 0..3, true)).unwrap();

        let names: Vec<&str> = offer.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["t00000", "t00001", "t00002", "t00003"]);
        assert_eq!(offer.error, None);
    }

    #[test]
    fn a_new_catalogue_forgets_what_was_half_told() {
        let mut chunks = Chunks::default();

        chunks.take(chunk(1, 0..3, false));
        let offer = chunks.take(chunk(2, 7..8, true)).unwrap();

        assert_eq!(offer.tools.len(), 1);
    }

    #[test]
    fn five_thousand_tools_are_whole_and_more_are_told() {
        let mut chunks = Chunks::default();
        chunks.take(chunk(1, 0..3_000, false));
        let whole = chunks.take(chunk(1, 3_000..5_000, true)).unwrap();
        chunks.take(chunk(2, 0..3_000, false));
        let cut_short = chunks.take(chunk(2, 3_000..5_001, true)).unwrap();

        assert_eq!((whole.tools.len(), whole.error), (TOOLS, None));
        assert_eq!(cut_short.tools.len(), TOOLS);
        assert!(cut_short.error.unwrap().contains("more than 5000 tools"));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("äöü".to_owned(), 3), "ä");
        assert_eq!(cut("abc".to_owned(), 3), "abc");
    }
}
