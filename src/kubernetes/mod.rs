//! The only room that calls the API server.
//!
//! Owns watches and their caches, writes, Events and the Lease. Decides nothing: what to write is the controllers'
//! plan, what policy says is `policy`'s.

pub mod issuer;
pub mod secret;
pub mod watch;

/// (namespace, name) of an object.
pub type Key = (String, String);
