//! One budget for the bytes that the process holds for others: bodies while they arrive and are answered, answers while
//! they are buffered and written, lines of stdio servers, lists that are filtered.
//!
//! Whatever counts takes a [`Hold`] *before* its bytes are there, and the hold goes with the bytes to wherever they end
//! ([`Hold::attach`]). Half of the process's memory limit may be held; the rest is for the program, its policy, its
//! connections, and for what passes unheld because it is small. Of what may be held
//!
//! * one caller, or one stdio server, has at most three eighths: beside it the largest message still passes;
//! * the last eighth is for those who hold little, so that ordinary calls go on while others fill the rest;
//! * no single message has more than a quarter, since a copy is made of it where it is filtered.
//!
//! What does not fit waits a moment for others to end, and then is refused.

mod gathered;
mod limit;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::limits;

pub(super) use gathered::Gathered;
pub use limit::{MIN_LIMIT, parse};

/// Whose bytes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Owner {
    /// A caller, by its key; all callers without a token are one.
    Caller(Option<Arc<str>>),
    /// A stdio server: its lines belong to nobody until they are read.
    Server(Arc<str>),
    /// The gateway: copies that live for one step of its own. Without a share, within the whole.
    Gateway,
}

/// There is no room for so many bytes now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the gateway has no memory for this now")]
pub struct NoRoom;

/// What may be held. Clones are one budget.
#[derive(Clone)]
pub(super) struct Budget(Arc<Shared>);

struct Shared {
    /// Bytes that may be held at once.
    total: usize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Default)]
struct Table {
    held: usize,
    /// Only those who hold something.
    owners: HashMap<Owner, usize>,
}

static PROCESS: OnceLock<Budget> = OnceLock::new();

/// Sets the memory limit of the process, in bytes, once and before anything is held. `None`: that of its control group,
/// or [`limits::MEMORY`].
pub(super) fn set_limit(limit: Option<usize>) {
    let budget = PROCESS.get_or_init(|| Budget::new(limit.or_else(limit::of_control_group).unwrap_or(limits::MEMORY)));
    tracing::info!(bytes = budget.0.total, "memory that may be held for callers");
}

/// The budget of this process: there is one, as there is one memory.
pub(super) fn budget() -> &'static Budget {
    PROCESS.get_or_init(|| Budget::new(limit::of_control_group().unwrap_or(limits::MEMORY)))
}

impl Budget {
    /// For a process that may have `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { total: limit / 2, table: Mutex::default(), freed: Notify::new() }))
    }

    /// Largest message from a server, in bytes.
    pub(super) fn largest_message(&self) -> usize {
        limits::MESSAGE_BYTES.min(self.0.total / 4)
    }

    /// Largest request body, in bytes. It counts twice: as it came, and as it goes to the server.
    pub(super) fn largest_body(&self) -> usize {
        limits::BODY_BYTES.min(self.0.total / 8)
    }

    /// Bytes of verified tokens that are kept.
    pub(super) fn tokens(&self) -> usize {
        self.0.total / 16
    }

    /// A hold of nothing yet.
    pub(super) fn hold(&self, owner: Owner) -> Hold {
        Hold { budget: self.clone(), owner, bytes: 0 }
    }

    /// Bytes that are held now.
    pub(super) fn held(&self) -> usize {
        self.0.table.lock().held
    }

    fn take(&self, owner: &Owner, more: usize) -> Result<(), NoRoom> {
        let Shared { total, table, .. } = &*self.0;
        let mut table = table.lock();
        let own = table.owners.get(owner).copied().unwrap_or_default().saturating_add(more);
        let all = table.held.saturating_add(more);
        let within = if own <= limits::MEMORY_SMALL { *total } else { total - total / 8 };
        if all > within || (own > total / 8 * 3 && *owner != Owner::Gateway) {
            return Err(NoRoom);
        }
        table.note(owner, own, all);
        Ok(())
    }

    fn give_back(&self, owner: &Owner, bytes: usize) {
        let mut table = self.0.table.lock();
        let own = table.owners.get(owner).copied().unwrap_or_default().saturating_sub(bytes);
        let all = table.held.saturating_sub(bytes);
        table.note(owner, own, all);
        drop(table);
        self.0.freed.notify_waiters();
    }
}

impl Table {
    fn note(&mut self, owner: &Owner, own: usize, all: usize) {
        self.held = all;
        match self.owners.get_mut(owner) {
            Some(_) if own == 0 => {
                self.owners.remove(owner);
            }
            Some(held) => *held = own,
            None if own == 0 => {}
            None => {
                self.owners.insert(owner.clone(), own);
            }
        }
    }
}

/// Bytes that are held. Dropping it gives them back.
pub(super) struct Hold {
    budget: Budget,
    owner: Owner,
    bytes: usize,
}

impl Hold {
    /// Holds `bytes` in all, and waits a moment where there is no room for what is more than before. Few bytes are not
    /// counted: the connection that they came by costs more. Dropped while it waits, it has changed nothing.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.grow_within(bytes, limits::MEMORY_WAIT).await
    }

    /// [`Self::grow`], for whoever can wait longer.
    pub(super) async fn grow_within(&mut self, bytes: usize, wait: std::time::Duration) -> Result<(), NoRoom> {
        if bytes <= self.bytes.max(limits::MEMORY_FREE) {
            return Ok(());
        }
        let more = bytes - self.bytes;
        if self.budget.take(&self.owner, more).is_err() {
            let end = Instant::now() + wait;
            loop {
                let mut freed = std::pin::pin!(self.budget.0.freed.notified());
                freed.as_mut().enable(); // What is given back from here on is noticed.
                if self.budget.take(&self.owner, more).is_ok() {
                    break;
                }
                timeout_at(end, freed).await.map_err(|_| NoRoom)?;
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Holds `bytes` in all, whether or not there is room: they are there already, and take the place of others that
    /// were counted and go now.
    pub(super) fn take_over(&mut self, bytes: usize) {
        if bytes > self.bytes.max(limits::MEMORY_FREE) {
            let more = bytes - self.bytes;
            let mut table = self.budget.0.table.lock();
            let own = table.owners.get(&self.owner).copied().unwrap_or_default().saturating_add(more);
            let all = table.held.saturating_add(more);
            table.note(&self.owner, own, all);
            self.bytes = bytes;
        }
    }

    /// Holds no more than this.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let bytes = if bytes <= limits::MEMORY_FREE { 0 } else { bytes };
        if bytes < self.bytes {
            self.budget.give_back(&self.owner, self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    /// Bytes that stay held until the last of them is dropped, wherever that is.
    pub(super) fn attach(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 {
            return bytes;
        }
        Bytes::from_owner(Held { bytes, _hold: self })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

struct Held {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
