//! A thread of its own for blocking work that must not wait behind anybody else's: policy has one, and files have one.
//!
//! The runtime's pool of blocking threads is shared by whoever uses it, its libraries too; a few lookups that hang would
//! delay a revocation there.

use std::sync::LazyLock;

use tokio::sync::{mpsc, oneshot};

/// Work that waits. Whoever hands it in waits as well, so there is little.
const QUEUE: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// A thread. It ends when the last handle to it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Worker(mpsc::Sender<Work>);

/// The thread has ended: it could not be started, or the work panicked.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the thread that does this has ended")]
pub(super) struct Ended;

/// Reads and writes small files. A disk that hangs holds up nothing else.
pub(super) static FILES: LazyLock<Worker> = LazyLock::new(|| Worker::start("files"));

impl Worker {
    /// Starts the thread.
    pub(super) fn start(name: &str) -> Self {
        let (work, mut waiting) = mpsc::channel::<Work>(QUEUE);
        let run = move || {
            while let Some(work) = waiting.blocking_recv() {
                // The next one must not suffer: whoever handed this in is told by its answer, which does not come.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            }
        };
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            tracing::error!(%error, name, "a thread could not be started: what it does will fail");
        }
        Self(work)
    }

    /// Does the work there and gives its result. It is done even if nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Ended> {
        #[cfg(test)]
        let _still = tests::hold_the_clock();
        let (done, result) = oneshot::channel();
        let work = Box::new(move || {
            let _ = done.send(work()); // Nobody may wait any more.
        });
        self.0.send(work).await.map_err(|_| Ended)?;
        result.await.map_err(|_| Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// While this lives a paused clock stands still, as it does for the runtime's own blocking work. Else it would jump
    /// to the next timer while a thread that it does not know of is busy.
    pub(super) fn hold_the_clock() -> std::sync::mpsc::Sender<()> {
        let (held, end) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || end.recv().is_ok());
        held
    }

    #[tokio::test]
    async fn work_that_panics_fails_alone() {
        let worker = Worker::start("test");

        assert!(worker.run(|| panic!("a bug")).await.is_err());

        assert_eq!(worker.run(|| std::thread::current().name().map(ToOwned::to_owned)).await.unwrap().unwrap(), "test");
    }
}
