//! McpServer.
mod names;
mod pods;
mod template;
