//! Who calls: the result of authentication, and all that policy knows of a caller.

use serde_json::{Map, Value};

/// A verified caller. Two issuers never mix: a subject is the pair of `issuer` and `subject`.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Name of the issuer in the McpGateway's `spec.issuers`, not its URL.
    pub issuer: String,
    /// The value of the claim that the issuer's `subjectClaim` names.
    pub subject: String,
    /// The values of the claim that the issuer's `groupsClaim` names.
    pub groups: Vec<String>,
    /// The OAuth scopes of the token (`scope`, split at spaces, or `scp`).
    pub scopes: Vec<String>,
    /// Every claim of the token, for `when` conditions and subjects of kind `Claim`.
    pub claims: Map<String, Value>,
}
