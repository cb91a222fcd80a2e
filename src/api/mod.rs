//! The kinds as users write them.

/// Placeholder until the kind is written.
pub struct McpServer;
