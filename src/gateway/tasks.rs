//! Tasks: who created which, and with which tool. A task that is not in here is unknown to everybody.
//!
//! Owns the right to a task, not the task: that is the server's. A task outlives the call that made it, so the right to
//! the tool is asked again whenever its creator asks for the task.

use std::sync::Arc;

use jiff::Timestamp;

use super::endpoint::{Caller, Force};
use super::limits;
use crate::policy::Item;

/// The tasks of one server. Bounded: the one that was idle for the longest time is forgotten, and so refused.
pub(super) struct Tasks {
    known: moka::sync::Cache<String, Task>,
}

#[derive(Clone)]
struct Task {
    /// [`Caller::key`] of its creator.
    creator: Option<Arc<str>>,
    /// The server's own name of the tool that was called.
    tool: Arc<str>,
}

impl Default for Tasks {
    fn default() -> Self {
        let known = moka::sync::Cache::builder().max_capacity(limits::TASKS).time_to_idle(limits::TASK_IDLE).build();
        Self { known }
    }
}

impl Tasks {
    /// Remembers who created a task, by a call of which tool. A server that began anew may use an id again: it is then
    /// the latest creator's, and no result of theirs reaches the one before.
    pub(super) fn record(&self, task: String, caller: &Caller, tool: &Arc<str>) {
        self.known.insert(task, Task { creator: caller.key().cloned(), tool: tool.clone() });
    }

    /// Whether the caller created the task: enough to cancel it, whatever policy says by now.
    pub(super) fn belongs_to(&self, task: &str, caller: &Caller) -> bool {
        self.known.get(task).is_some_and(|task| task.creator.as_ref() == caller.key())
    }

    /// Whether the caller created the task and may still use the tool that made it, as lists ask: without arguments. A
    /// time window that has closed hides no result.
    pub(super) fn serves(&self, task: &str, caller: &Caller, force: &Force, now: Timestamp) -> bool {
        self.known.get(task).is_some_and(|task| {
            task.creator.as_ref() == caller.key() && force.policy.retains(&caller.view, Item::Tool(&task.tool), now)
        })
    }
}
