//! PURE. What a server offers, in the form of the policy stream.

use crate::gateway::catalogue::Catalogue;
use crate::wire::proto;

/// Tools in one message.
const CHUNK: usize = 256;
/// Longest name of a tool, in bytes. No rule and no McpTool can name a longer one.
const NAME: usize = 256;
/// Longest text that a server says about itself, in characters.
const TEXT: usize = 256;

/// What a server offers, as it was last found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::gateway) struct Offer {
    name: String,
    version: String,
    protocol_versions: Vec<String>,
    /// Sorted by name. A digest is empty where there is none that readers agree on.
    tools: Vec<(String, String)>,
    prompts: usize,
    resources: usize,
    error: String,
}

impl Offer {
    /// From the server's answer.
    pub(in crate::gateway) fn new(catalogue: Catalogue) -> Self {
        let all = catalogue.tools.len();
        let mut tools: Vec<(String, String)> = catalogue
            .tools
            .into_iter()
            .filter(|tool| tool.name.len() <= NAME)
            .map(|tool| (tool.name, tool.digest.unwrap_or_default()))
            .collect();
        let left_out = all - tools.len();
        tools.sort();
        let text = |text: Option<String>| text.unwrap_or_default().chars().take(TEXT).collect();
        Self {
            name: text(catalogue.name),
            version: text(catalogue.version),
            protocol_versions: vec![catalogue.protocol_version],
            tools,
            prompts: catalogue.prompts.len(),
            resources: catalogue.resources.len() + catalogue.templates.len(),
            error: match left_out {
                0 => String::new(),
                count => format!("{count} tools are left out: their names have more than {NAME} bytes"),
            },
        }
    }

    /// What was known before, and why it is not known whether it still holds.
    pub(in crate::gateway) fn stale(before: Option<&Self>, error: &str) -> Self {
        // The time until the next start differs with each attempt, and is no news.
        let error = error.split("; next start in").next().unwrap_or(error);
        Self { error: error.chars().take(TEXT).collect(), ..before.cloned().unwrap_or_default() }
    }

    /// Whether the server has answered, and this is its answer.
    pub(in crate::gateway) fn is_known(&self) -> bool {
        !self.protocol_versions.is_empty()
    }

    /// As messages that belong together by `id`.
    pub(in crate::gateway) fn chunks(&self, id: u64) -> Vec<proto::Offer> {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let tool =
            |(name, digest): &(String, String)| proto::OfferedTool { name: name.clone(), digest: digest.clone() };
        let parts = self.tools.chunks(CHUNK).map(|part| part.iter().map(tool).collect());
        let mut parts: Vec<Vec<proto::OfferedTool>> = parts.collect();
        if parts.is_empty() {
            parts.push(Vec::new()); // Without a tool there is an offer all the same.
        }
        let last = parts.len() - 1;
        let whole = |(index, tools)| proto::Offer {
            id,
            last: index == last,
            name: self.name.clone(),
            version: self.version.clone(),
            protocol_versions: self.protocol_versions.clone(),
            tools,
            prompts: count(self.prompts),
            resources: count(self.resources),
            error: self.error.clone(),
        };
        parts.into_iter().enumerate().map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::catalogue::Listed;

    fn tools(count: usize) -> Vec<Listed> {
        let tool = |index| Listed { name: format!("t{index}"), digest: Some(format!("d{index}")), description: None };
        (0..count).rev().map(tool).collect()
    }

    fn offer(tools: Vec<Listed>) -> Offer {
        let name = Some("x".repeat(1000));
        Offer::new(Catalogue { name, protocol_version: "2025-11-25".to_owned(), tools, ..Catalogue::default() })
    }

    #[test]
    fn chunks_hold_every_tool_once_and_only_the_last_is_last() {
        for count in [0, 1, CHUNK, CHUNK + 1, 5000] {
            let offer = offer(tools(count));
            let chunks = offer.chunks(7);

            let mut all: Vec<(String, String)> = chunks
                .iter()
                .flat_map(|chunk| &chunk.tools)
                .map(|tool| (tool.name.clone(), tool.digest.clone()))
                .collect();
            all.sort();
            assert_eq!(all, offer.tools, "{count}");
            assert!(chunks.iter().all(|chunk| chunk.id == 7 && chunk.tools.len() <= CHUNK && chunk.name.len() == TEXT));
            let last: Vec<bool> = chunks.iter().map(|chunk| chunk.last).collect();
            assert!(last.iter().rev().skip(1).all(|last| !last) && last.last() == Some(&true), "{last:?}");
        }
    }

    #[test]
    fn a_name_that_nothing_can_name_is_left_out_and_counted() {
        let mut all = tools(2);
        all.push(Listed { name: "n".repeat(NAME + 1), ..Listed::default() });

        let offer = offer(all);

        assert_eq!(offer.tools.len(), 2);
        assert!(offer.error.starts_with("1 tools are left out"), "{}", offer.error);
    }

    #[test]
    fn a_server_that_does_not_answer_keeps_what_it_offered_and_the_reason_stays_the_same() {
        let known = offer(tools(3));
        let first = Offer::stale(Some(&known), "the server exited with status 1; next start in 250 ms");

        assert_eq!(first, Offer::stale(Some(&first), "the server exited with status 1; next start in 30 s"));
        assert_eq!((first.tools.len(), first.error.as_str()), (3, "the server exited with status 1"));
        assert!(first.is_known() && !Offer::stale(None, "no").is_known());
    }
}
