//! When a server that exits may be started again: 250 ms, doubling to 30 s, forgotten after a minute of life.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use super::UpstreamError;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// A process that lived this long did start well.
const HEALTHY: Duration = Duration::from_mins(1);
/// Keys remembered.
const KEYS: usize = 1024;

/// Failed starts by who asked for them, so that a caller whose calls break a server delays nobody else.
#[derive(Debug)]
pub(super) struct Backoff<K> {
    keys: HashMap<K, Failure>,
}

#[derive(Debug)]
struct Failure {
    delay: Duration,
    until: Instant,
    why: String,
}

impl<K: Eq + Hash> Backoff<K> {
    pub(super) fn new() -> Self {
        Self { keys: HashMap::new() }
    }

    /// The process of `key` ended without being asked to, `up` after its start.
    pub(super) fn failed(&mut self, key: K, up: Duration, now: Instant, why: String) {
        let before = self.keys.get(&key).filter(|failure| up < HEALTHY && !failure.is_old(now));
        let delay = before.map_or(FIRST, |failure| (failure.delay * 2).min(LONGEST));
        if self.keys.len() >= KEYS && !self.keys.contains_key(&key) {
            self.keys.retain(|_, failure| failure.until > now);
            if self.keys.len() >= KEYS {
                return; // So many waiting keys: the bound on children limits what this one can do.
            }
        }
        self.keys.insert(key, Failure { delay, until: now + delay, why });
    }

    /// Refuses a start that comes too early, with the reason of the last failure and the time of the next start.
    pub(super) fn check(&self, key: &K, now: Instant) -> Result<(), UpstreamError> {
        match self.keys.get(key) {
            Some(failure) if failure.until > now => {
                let wait = failure.until - now;
                let wait = if wait < Duration::from_secs(1) {
                    format!("{} ms", wait.as_millis().max(1))
                } else {
                    format!("{} s", wait.as_secs_f64().ceil())
                };
                Err(UpstreamError::Unreachable(format!("{}; next start in {wait}", failure.why)))
            }
            _ => Ok(()),
        }
    }
}

impl Failure {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.until) > HEALTHY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(backoff: &Backoff<u8>, now: Instant) -> Option<String> {
        backoff.check(&1, now).err().map(|error| error.to_string())
    }

    #[test]
    fn starts_that_fail_again_wait_twice_as_long_up_to_half_a_minute() {
        let mut backoff = Backoff::new();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            backoff.failed(1, Duration::ZERO, now, "it exited".to_owned());
            let until = backoff.keys[&1].until;
            waits.push((until - now).as_millis());
            assert!(backoff.check(&1, until - Duration::from_millis(1)).is_err());
            now = until;
            assert!(backoff.check(&1, now).is_ok());
        }

        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn the_refusal_says_why_and_until_when() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        for _ in 0..5 {
            backoff.failed(1, Duration::ZERO, now, "the server exited with status 1".to_owned());
        }

        assert_eq!(
            wait(&backoff, now).unwrap(),
            "the server cannot be reached: the server exited with status 1; next start in 4 s"
        );
    }

    #[test]
    fn a_minute_of_life_is_a_fresh_start_and_keys_do_not_mix() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        for up in [0, 0, 0, 60] {
            backoff.failed(1, Duration::from_secs(up), now, String::new());
        }

        assert!(wait(&backoff, now + FIRST).is_none());
        assert!(backoff.check(&2, now).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut backoff, now) = (Backoff::new(), Instant::now());
        for key in 0..5000 {
            backoff.failed(key, Duration::ZERO, now, String::new());
        }

        assert_eq!(backoff.keys.len(), KEYS);
    }
}
