//! What the policy server and gateways say to each other, and the signed form of a snapshot.
//!
//! Owns `proto/policy.proto` and the envelope. Knows no cluster and no calls: both sides use it.

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // Generated; documented in the proto.
pub mod proto {
    tonic::include_proto!("toolgate.policy.v1");
}
