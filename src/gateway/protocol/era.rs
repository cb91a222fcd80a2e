//! Revisions of MCP, and the two eras they fall into.

use super::error;

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
/// Revisions that the gateway lets through, newest first.
pub const SUPPORTED: [&str; 4] = [MODERN, "2025-11-25", "2025-06-18", "2025-03-26"];

/// Era of the value of `MCP-Protocol-Version`; absent means 2025-03-26, as the specification says.
pub fn of_header(version: Option<&str>) -> Result<Era, error::Unsupported> {
    match version {
        None => Ok(Era::Legacy),
        Some(MODERN) => Ok(Era::Modern),
        Some(version) if SUPPORTED.contains(&version) => Ok(Era::Legacy),
        Some(version) => Err(error::Unsupported(version.to_owned())),
    }
}
