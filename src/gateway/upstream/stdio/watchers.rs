//! Which session of a shared child watches which resource, and what the child has to be told of that.
//!
//! Pure: it counts and says what is owed; sending is the caller's. The server is subscribed by the first session and
//! unsubscribed after the last, so that no caller can silence another.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::gateway::limits;

/// The resources that the sessions of one child watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Watchers {
    watched: HashMap<Arc<str>, Watched>,
    sessions: HashMap<Arc<str>, Own>,
    /// The server watches them, and nobody wants to know any more.
    stale: BTreeSet<Arc<str>>,
}

#[derive(Clone, Debug, Default)]
struct Watched {
    by: HashSet<Arc<str>>,
    /// The server accepted a subscription. Before that every session's request goes to it, so that each gets the
    /// server's own word.
    is_confirmed: bool,
}

/// What one session watches.
#[derive(Clone, Debug, Default)]
struct Own {
    uris: HashSet<Arc<str>>,
    bytes: usize,
}

/// What becomes of a session's request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It goes to the server.
    Send,
    /// The server knows already: the gateway answers.
    Answer,
    /// The session watches as much as it may.
    Full,
}

impl Watchers {
    /// A session subscribes. From now on updates go to it: the server may send one before its answer.
    pub(super) fn subscribe(&mut self, session: &Arc<str>, uri: &str) -> Next {
        let own = self.sessions.entry(session.clone()).or_default();
        if !own.uris.contains(uri) {
            let bytes = own.bytes + uri.len();
            if own.uris.len() >= limits::SUBSCRIPTIONS_PER_SESSION || bytes > limits::SUBSCRIPTION_BYTES {
                return Next::Full;
            }
            own.bytes = bytes;
            own.uris.insert(uri.into());
        }
        let was_stale = self.stale.remove(uri);
        let watched = self.watched.entry(uri.into()).or_default();
        watched.by.insert(session.clone());
        watched.is_confirmed |= was_stale; // The server never learned that nobody watched for a while.
        if watched.is_confirmed { Next::Answer } else { Next::Send }
    }

    /// The server accepted a subscription.
    pub(super) fn accepted(&mut self, uri: &str) {
        match self.watched.get_mut(uri) {
            Some(watched) => watched.is_confirmed = true,
            None => _ = self.stale.insert(uri.into()), // Whoever asked for it has left meanwhile.
        }
    }

    /// The server refused this session's subscription.
    pub(super) fn refused(&mut self, session: &Arc<str>, uri: &str) {
        let was_accepted = self.watched.get(uri).is_some_and(|watched| watched.is_confirmed);
        if self.forget(session, uri) && was_accepted {
            self.stale.insert(uri.into());
        }
    }

    /// A session unsubscribes.
    pub(super) fn unsubscribe(&mut self, session: &Arc<str>, uri: &str) -> Next {
        self.forget(session, uri);
        if self.watched.contains_key(uri) {
            return Next::Answer; // Somebody else still watches.
        }
        self.stale.remove(uri);
        Next::Send
    }

    /// A session is over.
    pub(super) fn leave(&mut self, session: &Arc<str>) {
        let uris = self.sessions.get(session).map(|own| own.uris.clone()).unwrap_or_default();
        for uri in uris {
            // Also where the server has not answered: it may have subscribed.
            if self.forget(session, &uri) {
                self.stale.insert(uri);
            }
        }
    }

    /// Whether an update of this resource is for this session.
    pub(super) fn watches(&self, session: &str, uri: &str) -> bool {
        self.sessions.get(session).is_some_and(|own| own.uris.contains(uri))
    }

    /// The next resource that the server has to be unsubscribed from by the gateway itself; it counts as told.
    pub(super) fn take_owed(&mut self) -> Option<Arc<str>> {
        self.stale.pop_first()
    }

    /// Whether the server has to be told something.
    pub(super) fn is_owing(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Takes one subscription back, and says whether it was the last of its resource.
    fn forget(&mut self, session: &Arc<str>, uri: &str) -> bool {
        if let Some(own) = self.sessions.get_mut(session) {
            if own.uris.remove(uri) {
                own.bytes -= uri.len();
            }
            if own.uris.is_empty() {
                self.sessions.remove(session);
            }
        }
        let Some(watched) = self.watched.get_mut(uri) else { return false };
        let was_last = watched.by.remove(session) && watched.by.is_empty();
        if was_last {
            self.watched.remove(uri);
        }
        was_last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn the_first_subscribes_the_last_unsubscribes_and_nobody_silences_another() {
        let mut watchers = Watchers::default();
        let (a, b) = (id("a"), id("b"));

        assert_eq!(watchers.subscribe(&a, "u"), Next::Send);
        assert_eq!(watchers.subscribe(&b, "u"), Next::Send, "the server has not answered yet");
        watchers.accepted("u");
        assert_eq!(watchers.subscribe(&id("c"), "u"), Next::Answer);
        assert_eq!(watchers.unsubscribe(&a, "u"), Next::Answer);
        assert_eq!(watchers.unsubscribe(&a, "u"), Next::Answer, "it counts once");
        assert!(!watchers.watches("a", "u") && watchers.watches("b", "u") && watchers.watches("c", "u"));
        assert_eq!(watchers.unsubscribe(&id("c"), "u"), Next::Answer);
        assert_eq!(watchers.unsubscribe(&b, "u"), Next::Send);
        assert_eq!(watchers.take_owed(), None);
    }

    #[test]
    fn a_session_that_vanishes_counts_down() {
        let mut watchers = Watchers::default();
        let (a, b) = (id("a"), id("b"));
        for session in [&a, &b] {
            watchers.subscribe(session, "u");
        }
        watchers.accepted("u");
        watchers.subscribe(&a, "v");

        watchers.leave(&a);
        assert_eq!(watchers.take_owed().as_deref(), Some("v"), "though it was not accepted yet");
        assert_eq!(watchers.take_owed(), None);
        watchers.accepted("v");
        assert_eq!(watchers.take_owed().as_deref(), Some("v"), "an acceptance that came late");
        watchers.leave(&b);
        assert_eq!(watchers.subscribe(&a, "u"), Next::Answer, "the server still watches");
        assert!(!watchers.is_owing());
    }

    #[test]
    fn a_refused_subscription_counts_for_nobody() {
        let mut watchers = Watchers::default();
        let a = id("a");
        watchers.subscribe(&a, "u");
        watchers.refused(&a, "u");

        assert!(!watchers.watches("a", "u") && !watchers.is_owing());
        assert!(watchers.sessions.is_empty() && watchers.watched.is_empty());
    }

    #[test]
    fn what_one_session_watches_is_bounded() {
        let mut watchers = Watchers::default();
        let (a, b) = (id("a"), id("b"));
        for at in 0..limits::SUBSCRIPTIONS_PER_SESSION {
            assert_eq!(watchers.subscribe(&a, &at.to_string()), Next::Send);
        }
        assert_eq!(watchers.subscribe(&a, "more"), Next::Full);
        assert_eq!(watchers.subscribe(&b, "more"), Next::Send, "another session has its own bound");
        assert_eq!(watchers.subscribe(&b, &"x".repeat(limits::SUBSCRIPTION_BYTES)), Next::Full);
        watchers.unsubscribe(&a, "0");
        assert_eq!(watchers.subscribe(&a, "more"), Next::Send);
    }

    proptest! {
        /// Against a server that keeps a set and accepts everything at once.
        #[test]
        fn the_server_watches_exactly_what_some_session_watches(
            steps in prop::collection::vec((0u8..4, 0usize..3, 0usize..3), 0..60)
        ) {
            let (sessions, uris) = ([id("a"), id("b"), id("c")], ["u", "v", "w"]);
            let mut watchers = Watchers::default();
            let mut server: HashSet<String> = HashSet::new();
            let mut model: HashSet<(usize, usize)> = HashSet::new();
            for (what, session, uri) in steps {
                let (who, which) = (&sessions[session], uris[uri]);
                match what {
                    0 | 1 => {
                        if watchers.subscribe(who, which) == Next::Send {
                            server.insert(which.to_owned());
                            watchers.accepted(which);
                        }
                        model.insert((session, uri));
                    }
                    2 => {
                        if watchers.unsubscribe(who, which) == Next::Send {
                            server.remove(which);
                        }
                        model.remove(&(session, uri));
                    }
                    _ => {
                        watchers.leave(who);
                        model.retain(|(other, _)| *other != session);
                    }
                }
                for (at, session) in sessions.iter().enumerate() {
                    for (of, uri) in uris.iter().enumerate() {
                        prop_assert_eq!(watchers.watches(session, uri), model.contains(&(at, of)));
                    }
                }
                // What is owed may be told at any time; here after some steps and at the end.
                if what % 2 == 0 {
                    settle(&mut watchers, &mut server);
                    let wanted: HashSet<String> = model.iter().map(|(_, uri)| uris[*uri].to_owned()).collect();
                    prop_assert_eq!(&server, &wanted);
                }
            }
            for session in &sessions {
                watchers.leave(session);
            }
            settle(&mut watchers, &mut server);
            prop_assert!(server.is_empty());
            prop_assert!(watchers.sessions.is_empty() && watchers.watched.is_empty());
        }
    }

    fn settle(watchers: &mut Watchers, server: &mut HashSet<String>) {
        while let Some(uri) = watchers.take_owed() {
            server.remove(&*uri);
        }
    }
}
