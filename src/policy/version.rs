//! PURE. How new a snapshot is: an epoch, and a `resourceVersion` for each kind that it was compiled from.
//!
//! A version is no part of the hashed content: else every write of a status would make a new snapshot. Within an
//! epoch no component may go back, so a policy server that lags behind can never bring back a rule that was revoked.
//! An epoch begins when the cluster's own history went back, as after a restore of etcd.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// When a snapshot was true.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Rises when versions begin anew.
    pub epoch: u64,
    /// Kind to the `resourceVersion` that was seen of it. A kind that is not in here was not read.
    pub seen: BTreeMap<String, u64>,
}

impl Version {
    /// Whether going from `before` to `self` loses something that was seen: an older epoch, or within one epoch a
    /// component that goes back or is gone.
    pub fn goes_back(&self, before: &Self) -> bool {
        match self.epoch.cmp(&before.epoch) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => {
                before.seen.iter().any(|(kind, was)| self.seen.get(kind).is_none_or(|now| now < was))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(epoch: u64, seen: &[(&str, u64)]) -> Version {
        Version { epoch, seen: seen.iter().map(|(kind, seen)| ((*kind).to_owned(), *seen)).collect() }
    }

    #[test]
    fn a_component_that_goes_back_or_is_gone_goes_back() {
        let before = version(1, &[("McpRole", 7), ("McpTool", 3)]);

        assert!(!version(1, &[("McpRole", 7), ("McpTool", 4)]).goes_back(&before));
        assert!(!version(1, &[("McpGateway", 1), ("McpRole", 7), ("McpTool", 3)]).goes_back(&before));
        assert!(version(1, &[("McpRole", 6), ("McpTool", 900)]).goes_back(&before));
        assert!(version(1, &[("McpRole", 8)]).goes_back(&before));
    }

    #[test]
    fn only_a_newer_epoch_begins_anew() {
        let before = version(2, &[("McpRole", 7)]);

        assert!(!version(3, &[("McpRole", 1)]).goes_back(&before));
        assert!(version(1, &[("McpRole", 900)]).goes_back(&before));
    }

    proptest! {
        #[test]
        fn nothing_goes_back_to_itself_and_order_is_kept(
            a in arbitrary(), b in arbitrary(), c in arbitrary(),
        ) {
            prop_assert!(!a.goes_back(&a));
            if !b.goes_back(&a) && !c.goes_back(&b) {
                prop_assert!(!c.goes_back(&a));
            }
        }
    }

    fn arbitrary() -> impl Strategy<Value = Version> {
        let seen = proptest::collection::btree_map("[ab]", 0_u64..3, 0..3);
        (0_u64..2, seen).prop_map(|(epoch, seen)| Version { epoch, seen })
    }
}
