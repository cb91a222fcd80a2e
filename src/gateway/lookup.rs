//! Names to addresses: on few threads of their own, one lookup for each name at a time, and never longer for a caller
//! than it is willing to wait.
//!
//! The operating system's resolver blocks, for half a minute where DNS is down, and cannot be interrupted. So nothing
//! else runs on these threads, above all nothing that policy needs; and a caller waits for the answer, not for the
//! thread: whoever goes away, or has waited long enough, is free at once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::limits;

/// Asks the resolver. Blocks.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;
/// What the resolver said; errors are shared as text.
type Answer = Result<Arc<[SocketAddr]>, Arc<str>>;
type Landing = watch::Receiver<Option<Answer>>;

/// Looks names up. Clones share threads and lookups that run.
#[derive(Clone)]
pub(super) struct Lookups(Arc<Shared>);

struct Shared {
    ask: Box<Ask>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Threads that run.
    threads: usize,
    waiting: VecDeque<Flight>,
    /// Lookups that run or wait, by name.
    flights: HashMap<Arc<str>, Landing>,
}

/// One lookup.
struct Flight {
    name: Arc<str>,
    answer: watch::Sender<Option<Answer>>,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// The resolver said so.
    #[error("the name {name} does not resolve: {cause}")]
    Failed { name: Box<str>, cause: Arc<str> },
    /// It did not say anything.
    #[error("the name {name} does not resolve: no answer within {} s", limits::LOOKUP_TIMEOUT.as_secs())]
    Timeout { name: Box<str> },
    /// Other names fill every place.
    #[error("the name {name} is not looked up: {} other names wait for an answer", limits::LOOKUPS_WAITING)]
    Busy { name: Box<str> },
}

/// One for the process: the resolver is the process's too.
static SYSTEM: LazyLock<Lookups> = LazyLock::new(|| {
    // The port is the connector's to set.
    Lookups::new(|name| Ok((name, 0).to_socket_addrs()?.collect()))
});

impl Lookups {
    /// Those of the operating system.
    pub(super) fn system() -> Self {
        SYSTEM.clone()
    }

    /// With another resolver.
    pub(super) fn new(ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { ask: Box::new(ask), table: Mutex::default() }))
    }

    /// The addresses of a name. Whoever asks while the name is being looked up gets that answer.
    pub(super) async fn addresses(&self, name: &str) -> Result<Arc<[SocketAddr]>, LookupError> {
        let mut landing = self.join(name).ok_or_else(|| LookupError::Busy { name: name.into() })?;
        let landed = timeout(limits::LOOKUP_TIMEOUT, landing.wait_for(Option::is_some)).await;
        let answer = match landed {
            Err(_) => return Err(LookupError::Timeout { name: name.into() }),
            Ok(answer) => answer.ok().and_then(|answer| answer.clone()),
        };
        let answer = answer.unwrap_or_else(|| Err("the thread that asked ended".into()));
        answer.map_err(|cause| LookupError::Failed { name: name.into(), cause })
    }

    /// The lookup of a name: the one that runs, or a new one; `None` if there is no place for it.
    fn join(&self, name: &str) -> Option<Landing> {
        let mut table = self.0.table.lock();
        // One whose thread ended without an answer is no lookup any more.
        if let Some(landing) = table.flights.get(name).filter(|landing| landing.has_changed().is_ok()) {
            return Some(landing.clone());
        }
        if table.waiting.len() >= limits::LOOKUPS_WAITING {
            table.forget_abandoned();
        }
        if table.waiting.len() >= limits::LOOKUPS_WAITING {
            return None;
        }
        let (answer, landing) = watch::channel(None);
        let name: Arc<str> = name.into();
        table.flights.insert(name.clone(), landing.clone());
        table.waiting.push_back(Flight { name, answer });
        if table.threads < limits::LOOKUP_THREADS {
            table.threads += 1;
            drop(table);
            let place = Place(self.0.clone());
            // Without a thread the lookup waits for one that runs; where none does, dropping `place` fails it.
            let _ = std::thread::Builder::new().name("lookup".to_owned()).spawn(move || place.work());
        }
        Some(landing)
    }
}

impl Table {
    /// Drops lookups that nobody waits for and that have not begun.
    fn forget_abandoned(&mut self) {
        let Self { waiting, flights, .. } = self;
        waiting.retain(|flight| {
            let is_awaited = flight.answer.receiver_count() > 1; // One of them is the table's own.
            if !is_awaited {
                flights.remove(&flight.name);
            }
            is_awaited
        });
    }
}

/// The place of one thread. It is given back however the thread ends.
struct Place(Arc<Shared>);

impl Place {
    /// Looks names up until none waits.
    fn work(self) {
        loop {
            let mut table = self.0.table.lock();
            table.forget_abandoned();
            let Some(Flight { name, answer }) = table.waiting.pop_front() else { return };
            drop(table);
            let found = (self.0.ask)(&name);
            // From here on whoever asks starts a new lookup: an answer is never kept.
            self.0.table.lock().flights.remove(&name);
            answer.send_replace(Some(found.map(Into::into).map_err(|error| error.to_string().into())));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        table.threads -= 1;
        if table.threads == 0 {
            // Empty, unless the thread could not be started or the resolver panicked: then nobody would come for them.
            for flight in std::mem::take(&mut table.waiting) {
                table.flights.remove(&flight.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// A resolver that answers for as long as somebody lets it, and how often it was asked.
    fn gated() -> (Lookups, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (gate, open) = mpsc::channel::<()>();
        let (open, asked) = (Mutex::new(open), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let lookups = Lookups::new(move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            match name {
                "fast" => Ok(vec![([192, 0, 2, 1], 0).into()]),
                _ => open.lock().recv().map(|()| vec![([192, 0, 2, 2], 0).into()]).map_err(io::Error::other),
            }
        });
        (lookups, gate, asked)
    }

    #[tokio::test]
    async fn many_callers_of_one_name_cause_one_lookup_and_share_its_answer() {
        let (lookups, gate, asked) = gated();
        let callers = futures::future::join_all((0..200).map(|_| lookups.addresses("slow")));
        let mut callers = std::pin::pin!(callers);
        assert!(futures::poll!(&mut callers).is_pending()); // All of them ask.
        gate.send(()).unwrap();

        for found in callers.await {
            assert_eq!(*found.unwrap(), [([192, 0, 2, 2], 0).into()]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // An answer is not kept: where a name leads is asked for each new connection.
        lookups.addresses("fast").await.unwrap();
        lookups.addresses("fast").await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_no_longer_than_the_deadline_for_a_resolver_that_hangs() {
        let (lookups, _gate, _) = gated();
        let begun = tokio::time::Instant::now();

        let error = lookups.addresses("slow").await.unwrap_err().to_string();

        assert_eq!(begun.elapsed(), limits::LOOKUP_TIMEOUT);
        assert_eq!(error, "the name slow does not resolve: no answer within 10 s");
    }

    #[tokio::test]
    async fn names_that_hang_take_their_places_alone_and_those_that_nobody_awaits_give_theirs_up() {
        let (lookups, gate, asked) = gated();
        let names: Vec<String> =
            (0..limits::LOOKUP_THREADS + limits::LOOKUPS_WAITING).map(|index| format!("slow{index}")).collect();
        let all = || names.iter().map(|name| lookups.addresses(name));
        let mut waiting: Vec<_> = all().map(Box::pin).collect();
        for (index, lookup) in waiting.iter_mut().enumerate() {
            assert!(futures::poll!(lookup).is_pending());
            while asked.load(Ordering::SeqCst) < limits::LOOKUP_THREADS.min(index + 1) {
                tokio::task::yield_now().await; // Threads take what waits when they have started.
            }
        }

        let error = lookups.addresses("fast").await.unwrap_err().to_string();
        assert_eq!(error, "the name fast is not looked up: 64 other names wait for an answer");
        drop(waiting);
        let mut fast = Box::pin(lookups.addresses("fast"));
        assert!(futures::poll!(&mut fast).is_pending());
        gate.send(()).unwrap();

        assert_eq!(*fast.await.unwrap(), [([192, 0, 2, 1], 0).into()]);
        assert_eq!(asked.load(Ordering::SeqCst), limits::LOOKUP_THREADS + 1, "nobody waited for the others");
    }

    #[tokio::test]
    async fn a_resolver_that_panics_fails_its_lookup_and_the_next_one_is_served() {
        let lookups = Lookups::new(|name| {
            assert!(name != "bad", "a bug in the resolver");
            Ok(Vec::new())
        });

        assert!(lookups.addresses("bad").await.unwrap_err().to_string().ends_with("the thread that asked ended"));

        assert!(lookups.addresses("good").await.unwrap().is_empty());
        assert!(lookups.addresses("bad").await.is_err());
    }
}
