//! PURE. When to try again: 0.1 s, doubling to 5 s, and half of it by chance, so that a thousand gateways that lost the
//! same policy server do not come back at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Attempts in a row that failed.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
}

impl Pace {
    /// The time to wait after one more failure. `chance` is anything random.
    pub(super) fn failed(&mut self, chance: u8) -> Duration {
        let whole = (FIRST * 2_u32.saturating_pow(self.failures + 1)).min(LONGEST);
        self.failures = (self.failures + 1).min(16);
        (whole / 2 + whole.mul_f64(f64::from(chance) / 510.0)).max(FIRST)
    }

    /// It worked.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_and_stay_within_bounds(chances in proptest::collection::vec(any::<u8>(), 1..40)) {
            let mut pace = Pace::default();
            let waits: Vec<Duration> = chances.iter().map(|chance| pace.failed(*chance)).collect();

            prop_assert!(waits.iter().all(|wait| (FIRST..=LONGEST).contains(wait)), "{waits:?}");
            prop_assert!(waits.len() < 8 || waits[7..].iter().all(|wait| *wait >= LONGEST / 2));
            pace.worked();
            prop_assert!(pace.failed(0) <= FIRST * 2);
        }
    }
}
