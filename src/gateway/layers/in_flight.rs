//! Which requests of whom run at an HTTP server, so that a cancellation goes only to one's own.
//!
//! A stdio server has ids of the gateway's own, so there a cancellation that names no call of its sender finds nothing.
//! Over HTTP ids travel as they are, and a server without sessions cannot tell two callers with equal ids apart.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use parking_lot::Mutex;

use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::id::Id;
use crate::gateway::protocol::json::members;
use crate::gateway::upstream::{Content, Event, EventStream, Reply, UpstreamError};

/// Requests of one session whose connection was lost before their answer came, and that may still be cancelled.
const LEFT: usize = 64;

/// Who sent a request: the key of a caller, or of a session.
pub(in crate::gateway) type Sender = Arc<str>;

/// The requests that run in one session, or at one server without any.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct InFlight {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// By id: whoever has such a request, once for each.
    running: HashMap<Id, Vec<Sender>>,
    /// Those that nobody waits for, oldest first.
    left: VecDeque<(Sender, Id)>,
}

/// One request that runs. Dropping it says that nobody waits for it any more.
#[derive(Debug)]
pub(in crate::gateway) struct Running {
    of: InFlight,
    sender: Sender,
    id: Id,
    /// A lost connection is no cancellation: it may still be cancelled.
    outlives: bool,
}

impl InFlight {
    /// A request with this id (JSON text) begins. `outlives`: its sender may still cancel it when its connection was lost.
    pub(in crate::gateway) fn begin(&self, sender: Sender, id: &str, outlives: bool) -> Running {
        let id = Id::of(id);
        self.table.lock().running.entry(id.clone()).or_default().push(sender.clone());
        Running { of: self.clone(), sender, id, outlives }
    }

    /// Whether a cancellation of this sender names a request of its own, and can be taken for no other's.
    pub(in crate::gateway) fn may_cancel(&self, sender: &str, message: &Envelope) -> bool {
        let params = message.params().and_then(members).unwrap_or_default();
        let Some((_, id)) = params.iter().find(|(key, _)| key == "requestId") else { return false };
        let table = self.table.lock();
        let Some(senders) = table.running.get(&Id::of(id.get())) else { return false };
        let is_own = |other: &Sender| **other == *sender;
        senders.iter().all(is_own)
    }
}

impl Table {
    fn end(&mut self, sender: &str, id: &Id) {
        let Some(senders) = self.running.get_mut(id) else { return };
        if let Some(at) = senders.iter().position(|other| **other == *sender) {
            senders.swap_remove(at);
        }
        if senders.is_empty() {
            self.running.remove(id);
        }
    }
}

impl Running {
    /// Its answer has come.
    fn answered(mut self) {
        self.outlives = false;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut table = self.of.table.lock();
        if !self.outlives {
            return table.end(&self.sender, &self.id);
        }
        table.left.push_back((self.sender.clone(), self.id.clone()));
        if table.left.len() > LEFT
            && let Some((sender, id)) = table.left.pop_front()
        {
            table.end(&sender, &id);
        }
    }
}

/// A reply that ends its request when it ends.
pub(in crate::gateway) fn until_answered(reply: Reply, running: Option<Running>) -> Reply {
    let Some(running) = running else { return reply };
    match reply.content {
        Content::Events(events) => {
            let content = Content::Events(Box::pin(Answering { events, running: Some(running) }));
            Reply { content, ..reply }
        }
        content => {
            running.answered();
            Reply { content, ..reply }
        }
    }
}

/// Whether a message is a request, which has an answer to wait for.
pub(in crate::gateway) fn id_of(message: &Envelope) -> Option<&str> {
    message.id().filter(|_| message.kind == Kind::Request)
}

struct Answering {
    events: EventStream,
    running: Option<Running>,
}

impl Stream for Answering {
    type Item = Result<Event, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.as_mut().poll_next(context);
        if matches!(next, Poll::Ready(None))
            && let Some(running) = self.running.take()
        {
            running.answered();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel(id: &str) -> Envelope {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
        Envelope::parse(text.into()).unwrap()
    }

    #[test]
    fn only_ones_own_running_request_can_be_cancelled() {
        let requests = InFlight::default();
        let running = requests.begin("ada".into(), "\"x\"", false);

        assert!(requests.may_cancel("ada", &cancel("\"\\u0078\"")));
        assert!(!requests.may_cancel("ada", &cancel("\"y\"")), "unknown");
        assert!(!requests.may_cancel("eve", &cancel("\"x\"")), "another caller's");

        running.answered();
        assert!(!requests.may_cancel("ada", &cancel("\"x\"")), "it is over");
        assert!(requests.table.lock().running.is_empty());
    }

    #[test]
    fn equal_ids_of_two_callers_cannot_be_cancelled_where_the_server_cannot_tell_them_apart() {
        let requests = InFlight::default();
        let _ada = requests.begin("ada".into(), "1", false);
        let eve = requests.begin("eve".into(), "1", false);

        assert!(!requests.may_cancel("eve", &cancel("1")));
        drop(eve);
        assert!(requests.may_cancel("ada", &cancel("1")));
    }

    #[test]
    fn a_request_of_a_session_outlives_its_connection_within_a_bound() {
        let requests = InFlight::default();
        for id in 0..=LEFT {
            drop(requests.begin("s".into(), &id.to_string(), true));
        }
        assert!(!requests.may_cancel("s", &cancel("0")), "the oldest is forgotten");
        assert!(requests.may_cancel("s", &cancel("1")));
        assert_eq!(requests.table.lock().running.len(), LEFT);
    }
}
