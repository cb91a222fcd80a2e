//! What the policy server and gateways say to each other, and the signed form of a snapshot.
//!
//! Owns `proto/policy.proto`, the [`envelope`], and what both sides read of certificates. Knows no cluster and no
//! calls.
//!
//! # The signed form
//! The same bytes travel on the stream, lie in the boot ConfigMap and on a gateway's disk: whoever can write to those
//! can bring back nothing but what was once true, and [`Version`](crate::policy::version::Version) refuses that.

mod codec;
pub mod envelope;
pub mod keys;
mod validity;
mod version;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // Generated; documented in the proto.
pub mod proto {
    tonic::include_proto!("toolgate.policy.v1");
}

pub use envelope::{OpenError, Opened, Packed, Packer, SealError, open, seal};
pub use keys::{KeyError, Signer, VerifyKey};
pub use validity::validity;
pub use version::VersionError;

/// Audience of the ServiceAccount tokens with which gateways show who they are.
pub const AUDIENCE: &str = "toolgate-policy";

/// Names for [`Opened::requires`] that a gateway of this build can enforce.
pub const UNDERSTOOD: &[&str] = &[crate::policy::snapshot::DISCONNECTED_DENY];
