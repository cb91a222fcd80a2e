//! What a server offers, asked by the gateway itself: the source of the registry table and of discovery.

/// The answer of one server to `initialize` (or `server/discover`) and its lists, all pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// `serverInfo.name`.
    pub name: Option<String>,
    /// `serverInfo.version`.
    pub version: Option<String>,
    /// Revision that was agreed.
    pub protocol_version: String,
    /// Tools in the server's order.
    pub tools: Vec<Listed>,
    /// Prompts in the server's order.
    pub prompts: Vec<Listed>,
    /// Resources; `name` is the URI.
    pub resources: Vec<Listed>,
    /// Resource templates; `name` is the template.
    pub templates: Vec<Listed>,
}

/// One entry of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Name, URI or template: what rules match.
    pub name: String,
    /// What agents read.
    pub description: Option<String>,
}
/// tmp
pub async fn ask(_: &super::upstream::Upstream) -> Result<Catalogue, super::upstream::UpstreamError> {
    Err(super::upstream::UpstreamError::Gone)
}
