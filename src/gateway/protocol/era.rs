//! Revisions of MCP, and the two eras they fall into.

/// How a message travels: with `initialize` and sessions, or each on its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Era {
    /// 2025-03-26 to 2025-11-25: `initialize`, optional sessions, requests from the server.
    Legacy,
    /// 2026-07-28 and later: no session, `_meta` and header rules on every request.
    Modern,
}

/// First revision of the modern era.
pub const MODERN: &str = "2026-07-28";
/// Revisions of the legacy era, newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// A protocol version that the gateway does not know.
#[derive(Debug, Eq, PartialEq)]
pub struct Unsupported(pub String);

/// Era of the value of `MCP-Protocol-Version`; absent means 2025-03-26, as the specification says.
pub fn of_header(version: Option<&str>) -> Result<Era, Unsupported> {
    match version {
        Some(MODERN) => Ok(Era::Modern),
        Some(version) if !LEGACY.contains(&version) => Err(Unsupported(version.to_owned())),
        _ => Ok(Era::Legacy),
    }
}
