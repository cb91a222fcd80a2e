//! The messages of one call to a child, from its first to its last, and what becomes of the call when nobody waits for
//! them any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::child::{Child, Out, cancelled};
use super::queue::Source;
use super::{Event, EventStream, UpstreamError};
use crate::gateway::protocol::era::Era;

/// Holds the place of a call. Dropping it early abandons the call; in the modern era that cancels it at the child,
/// in the legacy era a lost connection is no cancellation.
pub(super) struct Ticket {
    pub(super) child: Arc<Child>,
    pub(super) own: u64,
    pub(super) over: bool,
}

impl Ticket {
    /// Gives the call up, and says so to the child.
    pub(super) fn cancel(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.child.state.lock().calls.abandon(self.own, Instant::now());
            self.child.push(cancelled(self.own, "nobody waits for the answer any more"));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        match self.child.era {
            _ if self.over => {}
            Era::Modern => self.cancel(),
            Era::Legacy => self.child.state.lock().calls.abandon(self.own, Instant::now()),
        }
    }
}

/// The messages of a call, from its first to its last.
pub(super) fn answers(first: Bytes, source: Source<Out>, ticket: Ticket, idle: Option<Duration>) -> EventStream {
    let rest = futures::stream::unfold(Some((source, ticket)), move |state| async move {
        let (mut source, mut ticket) = state?;
        let next = match idle {
            None => source.next().await,
            Some(idle) => {
                let Ok(next) = timeout(idle, source.next()).await else {
                    ticket.cancel();
                    return Some((Err(UpstreamError::Timeout), None));
                };
                next
            }
        };
        match next {
            Some(Out::Note(message)) => Some((Ok(Event::message(message)), Some((source, ticket)))),
            Some(Out::Last(message)) => {
                ticket.over = true;
                Some((Ok(Event::message(message)), None))
            }
            Some(Out::Cancelled) => {
                ticket.over = true;
                None
            }
            Some(Out::Failed(failure)) => {
                let error = ticket.child.error(failure);
                Some((Err(error), None))
            }
            None => Some((Err(UpstreamError::Gone), None)),
        }
    });
    Box::pin(futures::stream::once(async { Ok(Event::message(first)) }).chain(rest))
}
