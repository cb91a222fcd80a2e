//! Which requests of a session have no answer yet, and what their answers are for.
//!
//! An answer is matched by its id alone, and it may come on another stream than that of its request: a stream that
//! broke off is resumed on a new one. So an id stands for one request at a time, and one that stood for requests of
//! several kinds stands for none where the answer does not come on its own stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::deliver::Purpose;
use super::session::Session;
use crate::gateway::limits::{LATE_ANSWERS, UNANSWERED};
use crate::gateway::protocol::error::{REQUEST, Reject};
use crate::gateway::protocol::id::Id;

/// Requests of one session.
#[derive(Debug)]
pub(super) struct Pending<P> {
    /// Without an answer.
    open: HashMap<Id, Open<P>>,
    /// The latest that were answered; `None`: with several purposes.
    past: VecDeque<(Id, Option<P>)>,
    /// Of those without an answer, how many have lost their stream.
    cut: usize,
    next: u64,
}

#[derive(Debug)]
struct Open<P> {
    /// What an answer on another stream is for; `None`: nobody can tell.
    purpose: Option<P>,
    ticket: u64,
    cut: bool,
}

/// Why a request cannot begin.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// Its id stands for a request without an answer.
    InUse,
    /// Too many have no answer.
    Full,
}

impl<P> Default for Pending<P> {
    fn default() -> Self {
        Self { open: HashMap::new(), past: VecDeque::new(), cut: 0, next: 0 }
    }
}

impl<P: Clone + PartialEq> Pending<P> {
    /// A request begins. The ticket tells it from a later one with the same id.
    fn begin(&mut self, id: Id, purpose: P) -> Result<u64, Refused> {
        if self.open.contains_key(&id) {
            return Err(Refused::InUse);
        }
        if self.open.len() >= UNANSWERED {
            return Err(Refused::Full);
        }
        // A server may send the answer to the earlier request again.
        let was_other = self.past.iter().any(|(past, other)| *past == id && other.as_ref() != Some(&purpose));
        let ticket = self.next;
        self.next += 1;
        self.open.insert(id, Open { purpose: (!was_other).then_some(purpose), ticket, cut: false });
        Ok(ticket)
    }

    /// The request was answered.
    fn answered(&mut self, id: &Id, ticket: u64) {
        if self.open.get(id).is_some_and(|open| open.ticket == ticket) {
            self.close(id);
        }
    }

    /// The request's stream is over, without an answer: that may come on another stream. Of those the oldest is
    /// forgotten when there are too many; then nobody waits for its answer.
    fn cut(&mut self, id: &Id, ticket: u64) {
        let Some(open) = self.open.get_mut(id).filter(|open| open.ticket == ticket && !open.cut) else { return };
        open.cut = true;
        self.cut += 1;
        if self.cut > LATE_ANSWERS {
            let oldest = self.open.iter().filter(|(_, open)| open.cut).min_by_key(|(_, open)| open.ticket);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.close(&oldest);
            }
        }
    }

    /// What an answer on another stream is for: `None` if nobody waits for it, or if nobody can tell. It is answered
    /// with that.
    pub(super) fn take(&mut self, id: &Id) -> Option<P> {
        self.close(id)
    }

    /// Nobody will answer requests whose stream is over: their ids are free again.
    pub(super) fn close_cut(&mut self) {
        let cut: Vec<Id> = self.open.iter().filter(|(_, open)| open.cut).map(|(id, _)| id.clone()).collect();
        for id in &cut {
            self.close(id);
        }
    }

    fn close(&mut self, id: &Id) -> Option<P> {
        let (id, open) = self.open.remove_entry(id)?;
        self.cut -= usize::from(open.cut);
        self.past.retain(|(past, _)| *past != id);
        if self.past.len() >= LATE_ANSWERS {
            self.past.pop_front();
        }
        self.past.push_back((id, open.purpose.clone()));
        open.purpose
    }
}

/// A request of the client that waits for its answer. Dropped without [`Awaited::answered`], the answer may still come
/// on another stream.
pub(in crate::gateway) struct Awaited {
    session: Arc<Session>,
    id: Id,
    ticket: u64,
}

impl Awaited {
    /// Refuses an id that is still unanswered (MCP forbids to use one twice in a session), and more requests than one
    /// session may have without an answer. `id` is JSON text.
    pub(in crate::gateway) fn begin(session: &Arc<Session>, id: &str, purpose: Purpose) -> Result<Self, Reject> {
        let key = Id::of(id);
        match session.pending.lock().begin(key.clone(), purpose) {
            Ok(ticket) => Ok(Self { session: session.clone(), id: key, ticket }),
            Err(Refused::InUse) => Err(Reject::malformed(
                REQUEST,
                "this id is still unanswered in its session: give each request an id of its own",
            )),
            Err(Refused::Full) => {
                Err(Reject::limited(format!("at most {UNANSWERED} requests of one session without an answer")))
            }
        }
    }

    /// The client has its answer, be it an error.
    pub(in crate::gateway) fn answered(&self) {
        self.session.pending.lock().answered(&self.id, self.ticket);
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.session.pending.lock().cut(&self.id, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> Id {
        Id::of(&number.to_string())
    }

    #[test]
    fn an_unanswered_id_is_refused_however_it_is_written() {
        let mut pending = Pending::default();
        let ticket = pending.begin(Id::of("1"), 'a').unwrap();

        for again in ["1", "1.0", "\"1\"", "1e0"] {
            assert_eq!(pending.begin(Id::of(again), 'b'), Err(Refused::InUse), "{again}");
        }
        pending.cut(&Id::of("1"), ticket);
        assert_eq!(pending.begin(Id::of("1"), 'b'), Err(Refused::InUse), "its answer may still come");
        pending.answered(&Id::of("1"), ticket);
        assert!(pending.begin(Id::of("1"), 'b').is_ok());
    }

    #[test]
    fn an_id_with_several_purposes_has_none_on_other_streams() {
        let mut pending = Pending::default();
        let list = pending.begin(id(1), "list").unwrap();
        pending.answered(&id(1), list);
        // The server sends the list again, on a stream that is resumed.
        pending.begin(id(1), "ping").unwrap();
        assert_eq!(pending.take(&id(1)), None);
        pending.begin(id(1), "list").unwrap();
        assert_eq!(pending.take(&id(1)), None, "nor later");

        let call = pending.begin(id(2), "call").unwrap();
        pending.answered(&id(2), call);
        pending.begin(id(2), "call").unwrap();
        assert_eq!(pending.take(&id(2)), Some("call"), "one purpose, twice");
    }

    #[test]
    fn of_streams_that_broke_off_the_oldest_is_forgotten_and_its_answer_dropped() {
        let mut pending = Pending::default();
        for number in 0..=LATE_ANSWERS as u64 {
            let ticket = pending.begin(id(number), ()).unwrap();
            pending.cut(&id(number), ticket);
        }

        assert_eq!(pending.take(&id(0)), None);
        assert_eq!(pending.take(&id(1)), Some(()));
        assert_eq!(pending.take(&id(1)), None, "once");
    }

    #[test]
    fn requests_without_an_answer_are_bounded() {
        let mut pending = Pending::default();
        for number in 0..UNANSWERED as u64 {
            pending.begin(id(number), ()).unwrap();
        }

        assert_eq!(pending.begin(id(UNANSWERED as u64), ()), Err(Refused::Full));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin(u64, u8),
        Answered(usize),
        Cut(usize),
        Take(u64),
    }

    proptest! {
        /// An answer on another stream is for the purpose of the one request that waits under its id, and of no other
        /// that was remembered with it.
        #[test]
        fn an_answer_never_gets_the_purpose_of_another_request(steps in prop::collection::vec(prop_oneof![
            (0u64..6, 0u8..3).prop_map(|(id, purpose)| Step::Begin(id, purpose)),
            (0usize..60).prop_map(Step::Answered),
            (0usize..60).prop_map(Step::Cut),
            (0u64..6).prop_map(Step::Take),
        ], 0..60)) {
            let mut pending = Pending::default();
            let mut begun: Vec<(u64, u64, u8)> = Vec::new(); // (id, ticket, purpose)
            let mut waiting: HashMap<u64, u64> = HashMap::new(); // id to ticket
            for step in steps {
                match step {
                    Step::Begin(number, purpose) => match pending.begin(id(number), purpose) {
                        Ok(ticket) => {
                            prop_assert!(waiting.insert(number, ticket).is_none());
                            begun.push((number, ticket, purpose));
                        }
                        Err(_) => prop_assert!(waiting.contains_key(&number)),
                    },
                    Step::Answered(at) => if let Some((number, ticket, _)) = begun.get(at) {
                        pending.answered(&id(*number), *ticket);
                        if waiting.get(number) == Some(ticket) { waiting.remove(number); }
                    },
                    Step::Cut(at) => if let Some((number, ticket, _)) = begun.get(at) {
                        pending.cut(&id(*number), *ticket);
                    },
                    Step::Take(number) => {
                        let taken = pending.take(&id(number));
                        let was = waiting.remove(&number);
                        if let Some(purpose) = taken {
                            prop_assert!(was.is_some());
                            prop_assert!(begun.iter().filter(|(other, _, _)| *other == number).all(|(_, _, other)| *other == purpose));
                        }
                    }
                }
                prop_assert_eq!(pending.open.len(), waiting.len());
                prop_assert_eq!(pending.cut, pending.open.values().filter(|open| open.cut).count());
            }
        }
    }
}
