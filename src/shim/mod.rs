//! The helper in a stdio server's own container: it listens on a unix socket and gives each connection a process of
//! its own.
//!
//! The gateway cannot start programs of another image, so this one program is copied into that image's container and
//! starts them there. Owns processes and bytes, and knows nothing of MCP: what a message means, who may send it and
//! when to start again is the gateway's to say.
//!
//! ```text
//! connection opens  -> one process; the bytes of the socket are its standard input and output
//! connection closes -> its standard input closes; after a grace SIGTERM, then SIGKILL, to its whole group
//! process exits     -> what it had written is delivered, what is left of its group ends, the connection closes
//! ```
//! Standard error and the environment are the helper's own, which are the container's. It is the first process of its
//! container, so it also reaps what others leave behind.
//!
//! Uses `std`, `rustix` and `signal-hook` alone: it must run inside any image, so it is built as one static file.

// It has no runtime whose clock and locks could be used, and must stay small.
#![allow(clippy::disallowed_types)]

pub mod install;
mod reaper;
mod relay;
pub mod serve;
