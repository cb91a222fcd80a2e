//! The stream of a session, which outlives its server's process: when the session is begun anew, the client hears of
//! it, and of what the new process says, on the stream that it has.
//!
//! What passes here is what the server says, or the gateway for it; who may hear it is decided behind.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt as _;
use http::HeaderMap;
use tokio::sync::watch;

use super::replay::{self, Anew};
use crate::gateway::protocol::era::Era;
use crate::gateway::upstream::{Content, Event, EventStream, Loss, Outbound, UpstreamError, Verb};

struct State {
    anew: Anew,
    /// The headers of the request that opened the stream.
    headers: HeaderMap,
    /// The server's stream, and its id of the session; absent while it has none.
    server: Option<EventStream>,
    upstream: Arc<str>,
    renewals: watch::Receiver<u64>,
    /// What the gateway has to say before anything else.
    notices: VecDeque<Event>,
}

/// The session's stream. `server` is what the server opened for `upstream`, its id of the session.
pub(in crate::gateway) fn lasting(
    anew: Anew,
    headers: HeaderMap,
    upstream: Arc<str>,
    server: EventStream,
) -> EventStream {
    let mut renewals = anew.session.life.renewals();
    renewals.mark_unchanged();
    let mut state = State { anew, headers, server: Some(server), upstream, renewals, notices: VecDeque::new() };
    state.hear(); // It may have been begun anew while nobody listened.
    Box::pin(futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await? {
            Ok(event) => Some((Ok(event), Some(state))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

impl State {
    async fn next(&mut self) -> Option<Result<Event, UpstreamError>> {
        loop {
            if let Some(event) = self.notices.pop_front() {
                return Some(Ok(event));
            }
            let session = self.anew.session.clone();
            if self.upstream != session.life.upstream() {
                self.reopen().await;
            }
            let server = async {
                match &mut self.server {
                    Some(server) => server.next().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                () = session.life.ended() => return None,
                changed = self.renewals.changed() => {
                    changed.ok()?;
                    self.hear();
                    continue;
                }
                event = server => event?,
            };
            match event {
                Err(UpstreamError::Lost(loss)) => {
                    self.server = None;
                    if !replay::is_on(&self.anew.endpoint) {
                        return None; // The client's next request learns of it.
                    }
                    // Who listens waits for what happens: a process that ended by itself is started again. One that
                    // made room for others stays away until there is something to do.
                    if loss == Loss::Ended
                        && let Err(reject) = self.anew.clone().begin(self.upstream.clone(), loss).await
                    {
                        tracing::debug!(server = %self.anew.endpoint.name, error = reject.message, "a stream waits for its server");
                    }
                }
                other => return Some(other),
            }
        }
    }

    /// Queues what the client must hear.
    fn hear(&mut self) {
        let event = |text: String| Event::message(text.into());
        self.notices.extend(self.anew.session.life.notices().into_iter().map(event));
    }

    /// Opens the stream of the session that took the place of the lost one. Without it the client hears the gateway.
    async fn reopen(&mut self) {
        self.upstream = self.anew.session.life.upstream();
        let (caller, session) = (self.anew.caller.key().cloned(), Some(self.upstream.clone()));
        let outbound = Outbound { verb: Verb::Get, era: Era::Legacy, caller, session, headers: self.headers.clone() };
        self.server = match self.anew.endpoint.upstream.send(outbound).await {
            Ok(reply) if reply.status.is_success() => match reply.content {
                Content::Events(events) => Some(events),
                Content::Empty | Content::Json(_) | Content::Opaque(_) => None,
            },
            Ok(_) | Err(_) => None,
        };
    }
}
