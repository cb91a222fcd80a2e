//! Controllers.
pub mod mcpserver;
pub mod settings;
