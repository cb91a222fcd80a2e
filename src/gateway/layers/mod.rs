//! The layers of one exchange, one file each, in the order of `stack.rs`.

pub(super) mod authenticate;
pub(super) mod authorize;
pub(super) mod deliver;
pub(super) mod early;
pub(super) mod expiry;
pub(super) mod forward;
pub(super) mod from_server;
pub(super) mod in_flight;
pub(super) mod input_round;
pub(super) mod lasting;
pub(super) mod list_changes;
pub(super) mod listed;
pub(super) mod listen;
pub(super) mod pending;
pub(super) mod record;
pub(super) mod remembered;
pub(super) mod replay;
pub(super) mod session;
pub(super) mod stream;
