//! Tells when a folder of manifests may have changed.
//!
//! Owns the operating system's watch on the folder and its repair. What changed is not its business: whoever is woken
//! reads the folder again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Time to wait for an editor to finish: it writes a new file, renames it, and touches the old one.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Time between two looks for a folder that is gone.
const RETRY: Duration = Duration::from_secs(1);

/// A watch on one folder.
pub struct Watch {
    directory: PathBuf,
    /// Holds at most one wake-up, however many events there were.
    wake: Arc<Notify>,
    /// A wake-up was taken and is not told yet.
    pending: bool,
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches `directory`, not the folders in it. Without a watch (limits of the system, a folder that is gone) it
    /// wakes every second instead.
    pub fn new(directory: &Path) -> Self {
        let wake = Arc::new(Notify::new());
        let mut watch = Self { directory: directory.to_owned(), wake, pending: false, watcher: None };
        watch.attach();
        watch
    }

    /// Waits until the folder may have changed, and then for a moment. Cancel safe: what was not told yet is told by
    /// the next call.
    pub async fn changed(&mut self) {
        if self.watcher.is_none() {
            tokio::time::sleep(RETRY).await;
        } else {
            if !self.pending {
                self.wake.notified().await;
                self.pending = true;
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
        self.pending = false;
        self.attach();
    }

    /// Attaches anew. A watch follows the folder that it was made for, not the path: after `mv` or `git checkout`
    /// another folder may stand there. Nothing is lost in between, because whoever was woken reads afterwards.
    fn attach(&mut self) {
        // A bell of its own: what the old watch still has to say was read by whoever is woken now.
        self.wake = Arc::new(Notify::new());
        let wake = Arc::clone(&self.wake);
        let handler = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !matters(&event)) {
                return;
            }
            wake.notify_one();
        };
        let attached = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match attached {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                self.watcher = None;
                tracing::debug!(%error, "no watch on the folder: reading it every second");
            }
        }
    }
}

/// Whether an event may change what a reader of the folder sees. Reading a file is an event too: without this, every
/// reload would cause the next.
fn matters(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn wakes(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
    }

    async fn stays_quiet(watch: &mut Watch) -> bool {
        tokio::time::timeout(3 * DEBOUNCE, watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn wakes_once_for_a_file_that_is_replaced_by_rename() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("role.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(folder.path());

        let draft = folder.path().join(".role.yaml.tmp");
        std::fs::write(&draft, "b").unwrap();
        std::fs::rename(&draft, &file).unwrap();

        assert!(wakes(&mut watch).await);
        assert!(stays_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn reading_the_folder_does_not_wake() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("role.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(folder.path());

        std::fs::read(&file).unwrap();
        std::fs::read_dir(folder.path()).unwrap().for_each(drop);

        assert!(stays_quiet(&mut watch).await);
        std::fs::write(&file, "b").unwrap();
        assert!(wakes(&mut watch).await);
    }

    #[tokio::test]
    async fn a_wake_up_outlives_a_cancelled_wait() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(folder.path());
        std::fs::write(folder.path().join("role.yaml"), "a").unwrap();

        // Long enough to take the wake-up, too short to tell it.
        let cancelled = tokio::time::timeout(DEBOUNCE / 2, watch.changed()).await;

        assert!(cancelled.is_err());
        assert!(wakes(&mut watch).await);
    }

    #[tokio::test]
    async fn a_folder_that_was_replaced_is_still_watched() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("manifests");
        std::fs::create_dir(&folder).unwrap();
        let mut watch = Watch::new(&folder);

        std::fs::rename(&folder, parent.path().join("old")).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert!(wakes(&mut watch).await, "losing the folder wakes");
        std::fs::write(folder.join("role.yaml"), "a").unwrap();

        assert!(wakes(&mut watch).await);
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_looked_for() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("manifests");
        let mut watch = Watch::new(&folder);

        assert!(wakes(&mut watch).await);
        std::fs::create_dir(&folder).unwrap();
        assert!(wakes(&mut watch).await);
        std::fs::write(folder.join("role.yaml"), "a").unwrap();

        assert!(wakes(&mut watch).await);
    }
}
