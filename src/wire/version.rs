//! [`Version`] as it travels.

use super::proto;
use crate::policy::version::Version;

/// Most kinds of a version; there are fewer than ten.
const KINDS: usize = 32;
/// Longest name of a kind, in bytes.
const KIND_BYTES: usize = 64;

/// A version that nobody wrote in good faith.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the version names more than {KINDS} kinds, or one with a name of more than {KIND_BYTES} bytes")]
pub struct VersionError;

impl From<&Version> for proto::Version {
    fn from(Version { epoch, seen }: &Version) -> Self {
        Self { epoch: *epoch, seen: seen.clone() }
    }
}

impl TryFrom<proto::Version> for Version {
    type Error = VersionError;

    fn try_from(proto::Version { epoch, seen }: proto::Version) -> Result<Self, VersionError> {
        if seen.len() > KINDS || seen.keys().any(|kind| kind.len() > KIND_BYTES) {
            return Err(VersionError);
        }
        Ok(Self { epoch, seen })
    }
}
