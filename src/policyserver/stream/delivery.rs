//! PURE. What one gateway is told next.

use std::sync::Arc;

use bytes::Bytes;

use crate::policy::version::Version;
use crate::policyserver::outbox::Parcel;
use crate::wire::Signer;

/// What to say.
#[derive(Debug, PartialEq)]
pub(in crate::policyserver) enum Next {
    /// A sealed snapshot.
    Snapshot(Bytes),
    /// The last one is still true, at this version.
    Still(Arc<Version>),
    /// Nothing.
    Nothing,
    /// Nothing yet: this replica is behind what the gateway has already lived under. It would have to refuse the
    /// snapshot, and waits for one that is newer.
    Behind,
}

/// What one gateway has.
#[derive(Debug)]
pub(in crate::policyserver) enum Delivery {
    /// What it came with: the newest version that it has lived under, if any.
    Floor(Option<Version>),
    /// What it was sent: hash, and the version that it knows of.
    Sent(String, Arc<Version>),
}

impl Delivery {
    /// A gateway that has a snapshot of this version, or none.
    pub(in crate::policyserver) fn new(floor: Option<Version>) -> Self {
        Self::Floor(floor)
    }

    /// What to say, given what is true; it counts as said.
    pub(in crate::policyserver) fn next(&mut self, parcel: &Parcel, signer: &Signer) -> Next {
        match self {
            Self::Sent(hash, version) if *hash == parcel.packed.hash => {
                if parcel.version.goes_back(version) || parcel.version == *version {
                    return Next::Nothing; // It was sent a newer one when it came.
                }
                version.clone_from(&parcel.version);
                Next::Still(parcel.version.clone())
            }
            // The cluster's history went back, and its new epoch is not there yet.
            Self::Sent(_, version) if parcel.version.goes_back(version) => Next::Behind,
            Self::Sent(hash, version) => {
                parcel.packed.hash.clone_into(hash);
                version.clone_from(&parcel.version);
                Next::Snapshot(parcel.sealed(signer))
            }
            Self::Floor(Some(floor)) if parcel.judged.goes_back(floor) => Next::Behind,
            Self::Floor(_) => {
                *self = Self::Sent(parcel.packed.hash.clone(), parcel.judged.clone());
                Next::Snapshot(parcel.sealed_anew(signer))
            }
        }
    }

    /// The newest version that the gateway has lived under, as far as this replica knows.
    pub(in crate::policyserver) fn floor(&self) -> Option<&Version> {
        match self {
            Self::Floor(floor) => floor.as_ref(),
            Self::Sent(_, version) => Some(version.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policyserver::fixture::snapshot;
    use crate::wire::{Packer, open};

    fn version(role: u64) -> Version {
        Version { epoch: 1, seen: BTreeMap::from([("McpRole".to_owned(), role)]) }
    }

    fn signer() -> Signer {
        Signer::from_seed(&[1; 32]).unwrap()
    }

    fn parcel(tool: &str, told: u64, judged: u64) -> Parcel {
        Parcel::new(
            Arc::new(Packer::new().unwrap().pack(&snapshot(tool), &[]).unwrap()),
            Arc::new(version(told)),
            Arc::new(version(judged)),
        )
    }

    fn sent(next: &Next) -> u64 {
        let Next::Snapshot(bytes) = next else { panic!("{next:?}") };
        open(bytes, &signer().verify_key().unwrap()).unwrap().version.seen["McpRole"]
    }

    #[test]
    fn who_comes_gets_the_newest_version_even_of_an_old_snapshot() {
        let mut delivery = Delivery::new(Some(version(70)));

        assert_eq!(sent(&delivery.next(&parcel("a", 50, 80), &signer())), 80);
        assert_eq!(delivery.next(&parcel("a", 50, 81), &signer()), Next::Nothing);
    }

    #[test]
    fn a_replica_that_is_behind_says_nothing_until_it_is_not() {
        let mut delivery = Delivery::new(Some(version(70)));

        assert_eq!(delivery.next(&parcel("a", 50, 69), &signer()), Next::Behind);
        assert_eq!(sent(&delivery.next(&parcel("a", 50, 70), &signer())), 70);
    }

    #[test]
    fn a_version_that_moves_alone_is_told_in_a_few_bytes() {
        let mut delivery = Delivery::new(None);
        delivery.next(&parcel("a", 50, 50), &signer());

        assert_eq!(delivery.next(&parcel("a", 60, 60), &signer()), Next::Still(Arc::new(version(60))));
        assert_eq!(delivery.next(&parcel("a", 60, 65), &signer()), Next::Nothing);
    }

    /// The gateway would refuse it, and then be told that it still holds.
    #[test]
    fn a_new_snapshot_of_an_older_version_waits_for_its_epoch() {
        let mut delivery = Delivery::new(None);
        delivery.next(&parcel("a", 50, 50), &signer());

        assert_eq!(delivery.next(&parcel("b", 3, 3), &signer()), Next::Behind);
        let packed = parcel("b", 3, 3).packed;
        let next_epoch = Arc::new(Version { epoch: 2, ..version(3) });
        let parcel = Parcel::new(packed, next_epoch.clone(), next_epoch);

        assert_eq!(sent(&delivery.next(&parcel, &signer())), 3);
    }

    #[test]
    fn a_new_snapshot_is_sent_once() {
        let mut delivery = Delivery::new(None);
        delivery.next(&parcel("a", 50, 50), &signer());

        assert_eq!(sent(&delivery.next(&parcel("b", 60, 60), &signer())), 60);
        assert_eq!(delivery.next(&parcel("b", 60, 60), &signer()), Next::Nothing);
    }
}
