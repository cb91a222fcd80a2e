//! PURE. Which snapshot is taken: whether one may replace what is in force, and which of those at hand comes first.

use crate::policy::snapshot::{FORMAT, Target};
use crate::policy::version::Version;
use crate::wire::{Opened, UNDERSTOOD};

/// What a snapshot must not fall behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The newest version that was in force, or could have been: of the snapshots on disk too, before one is in force.
    pub(super) floor: Option<Version>,
    /// `Snapshot::hash` of what is in force.
    pub(super) hash: Option<String>,
}

/// What to do with a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It says what is in force already, at another version.
    Known,
    /// It replaces what is in force.
    Replaces,
}

/// Why a snapshot is refused. What was in force stays so.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    /// It is another server's: whoever sent it is confused, or worse.
    #[error("the snapshot is for {}/{}", .0.namespace, .0.server)]
    Foreign(Target),
    /// Another shape than this build reads.
    #[error("the snapshot has format {0}, and this gateway reads {FORMAT}: update the gateway or the operator")]
    Format(u32),
    /// It restricts in a way that this build does not know.
    #[error("the snapshot requires {0:?}, which this gateway does not know: update the gateway")]
    Requires(String),
    /// It is older than what is known: it may bring back what was revoked.
    #[error("the snapshot is older than the one that is known")]
    GoesBack,
}

/// Judges a snapshot whose signature holds.
pub(super) fn judge(offered: &Opened, own: &Target, known: &Known) -> Result<Verdict, Refusal> {
    understands(offered, own)?;
    if known.floor.as_ref().is_some_and(|floor| offered.version.goes_back(floor)) {
        return Err(Refusal::GoesBack);
    }
    Ok(if known.hash.as_ref() == Some(&offered.hash) { Verdict::Known } else { Verdict::Replaces })
}

/// Whether a snapshot is one that this gateway could enforce.
pub(super) fn understands(offered: &Opened, own: &Target) -> Result<(), Refusal> {
    if offered.target != *own {
        return Err(Refusal::Foreign(offered.target.clone()));
    }
    if offered.format != FORMAT {
        return Err(Refusal::Format(offered.format));
    }
    match offered.requires.iter().find(|required| !UNDERSTOOD.contains(&required.as_str())) {
        Some(unknown) => Err(Refusal::Requires(unknown.clone())),
        None => Ok(()),
    }
}

/// Where a snapshot lies when no policy server answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// What this gateway itself had in force last.
    LastKnownGood,
    /// What the operator left for pods that start.
    BootFile,
}

/// The order in which to try what lies at hand: the newer first. The boot file comes first only where it loses nothing
/// that the gateway had in force.
pub(super) fn order(last: Option<&Version>, boot: Option<&Version>) -> Vec<Place> {
    match (last, boot) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![Place::LastKnownGood],
        (None, Some(_)) => vec![Place::BootFile],
        (Some(last), Some(boot)) if boot.goes_back(last) => vec![Place::LastKnownGood, Place::BootFile],
        (Some(_), Some(_)) => vec![Place::BootFile, Place::LastKnownGood],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target() -> Target {
        Target { namespace: "agents".to_owned(), server: "github".to_owned() }
    }

    fn opened(version: Version, hash: &str) -> Opened {
        Opened {
            target: target(),
            version,
            format: FORMAT,
            requires: Vec::new(),
            snapshot: Vec::new(),
            hash: hash.to_owned(),
        }
    }

    fn known(floor: &Version, hash: &str) -> Known {
        Known { floor: Some(floor.clone()), hash: Some(hash.to_owned()) }
    }

    #[test]
    fn what_is_not_understood_is_refused_whatever_its_version() {
        let fine = opened(Version::default(), "a");
        let judged = |offered: &Opened| judge(offered, &target(), &Known::default());
        let other = Target { server: "gitlab".to_owned(), ..target() };

        assert_eq!(judged(&fine), Ok(Verdict::Replaces));
        assert_eq!(judged(&Opened { target: other.clone(), ..fine.clone() }), Err(Refusal::Foreign(other)));
        assert_eq!(judged(&Opened { format: FORMAT + 1, ..fine.clone() }), Err(Refusal::Format(FORMAT + 1)));
        let requires = vec![UNDERSTOOD[0].to_owned(), "obey".to_owned()];
        assert_eq!(judged(&Opened { requires, ..fine.clone() }), Err(Refusal::Requires("obey".to_owned())));
        assert_eq!(judged(&Opened { requires: vec![UNDERSTOOD[0].to_owned()], ..fine }), Ok(Verdict::Replaces));
    }

    proptest! {
        #[test]
        fn nothing_that_goes_back_is_taken_and_nothing_else_is_refused(
            floor in version(), offered in version(), hashes in ("[ab]", "[ab]"),
        ) {
            let judged = judge(&opened(offered.clone(), &hashes.1), &target(), &known(&floor, &hashes.0));
            match judged {
                Err(Refusal::GoesBack) => prop_assert!(offered.goes_back(&floor)),
                Ok(Verdict::Known) => prop_assert!(!offered.goes_back(&floor) && hashes.0 == hashes.1),
                Ok(Verdict::Replaces) => prop_assert!(!offered.goes_back(&floor) && hashes.0 != hashes.1),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        /// However replicas and disks hand snapshots in, what is in force never loses what was in force before.
        #[test]
        fn a_sequence_of_offers_never_goes_back(offers in proptest::collection::vec(version(), 0..20)) {
            let (mut now, mut taken) = (Known::default(), Vec::<Version>::new());
            for version in offers {
                if judge(&opened(version.clone(), "x"), &target(), &now).is_ok() {
                    now.floor = Some(version.clone());
                    taken.push(version);
                }
            }
            for (index, later) in taken.iter().enumerate() {
                prop_assert!(taken[..index].iter().all(|earlier| !later.goes_back(earlier)));
            }
        }

        #[test]
        fn the_first_place_never_loses_what_was_in_force(
            last in proptest::option::of(version()), boot in proptest::option::of(version()),
        ) {
            let order = order(last.as_ref(), boot.as_ref());

            prop_assert_eq!(order.len(), usize::from(last.is_some()) + usize::from(boot.is_some()));
            if let (Some(last), Some(boot)) = (&last, &boot) {
                let newer = match order[0] { Place::LastKnownGood => last, Place::BootFile => boot };
                prop_assert!(!newer.goes_back(last));
                // The boot file is not passed over where it is newer.
                prop_assert!(order[0] == Place::BootFile || boot.goes_back(last));
            }
        }
    }

    fn version() -> impl Strategy<Value = Version> {
        let seen = proptest::collection::btree_map("[abc]", 0_u64..4, 0..3);
        (0_u64..3, seen).prop_map(|(epoch, seen)| Version { epoch, seen })
    }
}
