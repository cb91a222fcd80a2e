//! Servers that have only a new policy to tell of, and when each does.
//!
//! Each tells in a status and in a boot ConfigMap. Among a thousand servers that is two thousand writes for one edit, of
//! which nobody waits for any: gateways hear of policy on their streams, and who made the edit looks at its own object.
//! So they wait until policy has come to rest, and then go one after the other: the API server has others to serve.
//! Until its turn a server keeps what it told before, whoever looks at it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::kubernetes::Key;

/// More servers than this take turns.
pub(super) const AT_ONCE: usize = 40;
/// Between two turns.
const TURN: Duration = Duration::from_millis(50);
/// Turns begin once policy has not changed for this long.
const CALM: Duration = Duration::from_secs(2);
/// They begin after this time whether policy changes or not.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// When the turn of each is; unset: turns have not begun since it came.
    servers: HashMap<Key, Option<Instant>>,
    /// When the first and the last of those came whose turn is not set.
    since: Option<(Instant, Instant)>,
}

impl Turns {
    /// A server has a new policy to tell of. If its turn is set, it tells then.
    pub(super) fn wait(&self, server: Key, now: Instant) {
        let mut waiting = self.0.lock();
        let turn = waiting.servers.entry(server).or_default();
        if turn.is_some_and(|turn| turn > now) {
            return;
        }
        *turn = None;
        waiting.since = Some((waiting.since.map_or(now, |(first, _)| first), now));
    }

    /// A server has more to tell, and does not wait any more.
    pub(super) fn leave(&self, server: &Key) {
        self.0.lock().servers.remove(server);
    }

    /// Whether the turn of a server is still to come.
    pub(super) fn is_waiting(&self, server: &Key, now: Instant) -> bool {
        self.0.lock().servers.get(server).is_some_and(|turn| turn.is_none_or(|turn| turn > now))
    }

    /// When turns begin; never, where nobody waits for that.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.0.lock().since.map(|(first, last)| (last + CALM).min(first + PATIENCE))
    }

    /// Sets the turns of all that have none, after those that are set. Who, and how long from now each still waits.
    pub(super) fn set(&self, now: Instant) -> Vec<(Key, Duration)> {
        let mut waiting = self.0.lock();
        waiting.since = None;
        waiting.servers.retain(|_, turn| turn.is_none_or(|turn| turn > now));
        let mut next = waiting.servers.values().flatten().max().map_or(now, |last| *last + TURN);
        let mut set = Vec::new();
        for (server, turn) in waiting.servers.iter_mut().filter(|(_, turn)| turn.is_none()) {
            *turn = Some(next);
            set.push((server.clone(), next - now));
            next += TURN;
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: u32) -> Key {
        ("n".to_owned(), name.to_string())
    }

    fn waits(turns: &Turns, now: Instant) -> Vec<Duration> {
        let mut waits: Vec<Duration> = turns.set(now).into_iter().map(|(_, wait)| wait).collect();
        waits.sort();
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn turns_begin_when_policy_is_calm_and_lie_apart() {
        let (turns, now) = (Turns::default(), Instant::now());
        assert_eq!(turns.begin(), None);

        (0..4).for_each(|name| turns.wait(server(name), now));
        turns.wait(server(0), now + CALM / 2);
        turns.leave(&server(3));
        assert_eq!(turns.begin(), Some(now + CALM / 2 + CALM));

        assert_eq!(waits(&turns, now), [Duration::ZERO, TURN, TURN * 2]);
        assert_eq!(turns.begin(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_waits_until_its_turn_and_keeps_it() {
        let (turns, now) = (Turns::default(), Instant::now());
        (0..2).for_each(|name| turns.wait(server(name), now));
        let set = turns.set(now);
        let (second, _) = set.iter().find(|(_, wait)| *wait == TURN).unwrap();
        assert!(turns.is_waiting(second, now + TURN / 2) && !turns.is_waiting(second, now + TURN));

        turns.wait(second.clone(), now + TURN / 2);
        turns.wait(server(9), now + TURN / 2);

        assert_eq!(turns.set(now + TURN / 2), [(server(9), TURN * 3 / 2)], "after those that are set");
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_never_rests_is_told_of_all_the_same() {
        let (turns, now) = (Turns::default(), Instant::now());

        (0..60).for_each(|second| turns.wait(server(0), now + Duration::from_secs(second)));

        assert_eq!(turns.begin(), Some(now + PATIENCE));
    }
}
