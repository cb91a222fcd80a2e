//! McpServer.
mod catalogue;
mod names;
pub mod network;
pub mod plan;
mod pods;
mod registration;
mod revision;
mod template;
