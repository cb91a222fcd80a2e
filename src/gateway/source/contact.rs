//! When a policy server was connected last, kept on disk: to a gateway that starts again and again, a start is no news.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::sleep;

use crate::gateway::state::State;

/// File with the time, Unix seconds in decimal.
const FILE: &str = "contact";
/// Largest such file, in bytes.
const BYTES: usize = 32;
/// Time between two writes while there is contact: by so much a gateway that ended may deny too early.
const PERIOD: Duration = Duration::from_secs(10);
/// Time between two looks while there is none.
const LOOK: Duration = Duration::from_secs(1);
/// What counts where nobody knows: longer than any policy permits (604,800 s), so that what denies after a time denies.
const UNKNOWN: Duration = Duration::from_hours(8 * 24);

/// For how long there was no contact when this process began. None on a disk that is new: there was nothing before.
pub(in crate::gateway) async fn silence(state: &State) -> Duration {
    let kept = match state.read(FILE, BYTES).await {
        Ok(None) => return Duration::ZERO,
        Ok(Some(bytes)) => std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<i64>().ok()),
        Err(_) => None,
    };
    let Some(at) = kept else {
        tracing::warn!("the time of the last contact cannot be read: the policy server must be heard first");
        return UNKNOWN; // Fail closed.
    };
    // A clock that was set back says nothing about the time since; it counts from now on.
    Duration::from_secs(u64::try_from(Timestamp::now().as_second().saturating_sub(at)).unwrap_or(0))
}

/// Writes down that there is contact, for as long as it is polled and `is_due` says that there is and that it matters.
pub(in crate::gateway) async fn keep(state: &State, is_due: impl Fn() -> bool) {
    loop {
        if is_due() {
            let now = Bytes::from(Timestamp::now().as_second().to_string());
            if let Err(error) = state.write(FILE, now).await {
                tracing::warn!(%error, "the time of the last contact cannot be kept: a restart may deny too early");
            }
            sleep(PERIOD).await;
        } else {
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    async fn kept(folder: &std::path::Path, text: &str) -> Duration {
        let state = State::open(folder).unwrap();
        state.write(FILE, Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
        silence(&state).await
    }

    #[tokio::test]
    async fn silence_is_counted_over_restarts_and_what_is_unreadable_counts_as_long() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(silence(&State::open(folder.path()).unwrap()).await, Duration::ZERO);
        let now = Timestamp::now().as_second();

        let silent = kept(folder.path(), &(now - 100).to_string()).await.as_secs();
        assert!((100..110).contains(&silent), "{silent}");
        assert_eq!(kept(folder.path(), &(now + 3600).to_string()).await, Duration::ZERO);
        for unreadable in ["", "yesterday", "99999999999999999999", &"1".repeat(BYTES + 1)] {
            assert_eq!(kept(folder.path(), unreadable).await, UNKNOWN, "{unreadable}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn contact_is_written_at_once_and_then_at_a_bounded_rate() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let file = folder.path().join(FILE);
        let looks = AtomicUsize::new(0);
        let run = async |time: Duration, is_due: bool| {
            let keeping = keep(&state, || {
                looks.fetch_add(1, Ordering::Relaxed);
                is_due
            });
            let _ = tokio::time::timeout(time, keeping).await;
            looks.swap(0, Ordering::Relaxed)
        };

        assert!(run(Duration::from_mins(1), false).await > 50);
        assert!(!file.exists(), "nobody asked for it");
        assert_eq!(run(PERIOD * 11 / 2, true).await, 6); // Each look that says so is a write.
        assert!(silence(&state).await < PERIOD);
        std::fs::remove_file(&file).unwrap();
        run(LOOK, true).await;
        assert!(file.exists());
    }
}
