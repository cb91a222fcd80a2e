//! How many lines those without a name may leave. Under a flood some are left out, and the next one says how many.
//!
//! Pure: each HTTP status has a rate of its own, so that a flood of one kind hides no refusal of another.

use std::collections::HashMap;

use tokio::time::Instant;

use super::super::limits;

/// What was admitted lately, by HTTP status; 0 stands for what has none.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    kinds: HashMap<u16, Kind>,
}

#[derive(Debug)]
struct Kind {
    /// The second that is being counted, and the lines in it.
    since: Instant,
    lines: u32,
    /// Left out since the last line.
    left_out: u64,
}

impl Sampler {
    /// Whether a line may be written; then how many of its kind were left out before it.
    pub(super) fn admit(&mut self, status: Option<u16>, now: Instant) -> Option<u64> {
        // The statuses of HTTP are few, and ours are fewer.
        let kind = self.kinds.entry(status.unwrap_or(0)).or_insert(Kind { since: now, lines: 0, left_out: 0 });
        if now.saturating_duration_since(kind.since) >= limits::AUDIT_GUEST_PERIOD {
            (kind.since, kind.lines) = (now, 0);
        }
        if kind.lines >= limits::AUDIT_GUEST_LINES {
            kind.left_out += 1;
            return None;
        }
        kind.lines += 1;
        Some(std::mem::take(&mut kind.left_out))
    }

    /// An admitted line found no place: it counts as left out, and so do those that it would have counted.
    pub(super) fn take_back(&mut self, status: Option<u16>, left_out: u64) {
        if let Some(kind) = self.kinds.get_mut(&status.unwrap_or(0)) {
            kind.left_out += left_out + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_sampled_and_the_next_line_counts_what_was_left_out() {
        let (mut sampler, start) = (Sampler::default(), Instant::now());
        let most = u64::from(limits::AUDIT_GUEST_LINES);
        let written = (0..most + 500).filter(|_| sampler.admit(Some(401), start).is_some()).count();
        assert_eq!(written as u64, most);

        assert_eq!(sampler.admit(Some(403), start), Some(0), "another kind has a rate of its own");
        let later = start + limits::AUDIT_GUEST_PERIOD;
        assert_eq!(sampler.admit(Some(401), later), Some(500));
        assert_eq!(sampler.admit(Some(401), later), Some(0), "each is counted once");
    }

    #[test]
    fn a_line_without_a_place_is_counted_by_the_next_one() {
        let (mut sampler, start) = (Sampler::default(), Instant::now());
        for _ in 0..limits::AUDIT_GUEST_LINES + 3 {
            sampler.admit(None, start);
        }
        let later = start + Duration::from_secs(2);
        let left_out = sampler.admit(None, later).unwrap();
        assert_eq!(left_out, 3);
        sampler.take_back(None, left_out);
        assert_eq!(sampler.admit(None, later), Some(4));
    }
}
