//! What the installation says, the same for every server.

use crate::api::Egress;
use crate::wire::VerifyKey;

/// Where the policy server listens in its pods, and who may connect there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyServer {
    /// What gateways dial. Example: `https://toolgate-policy.toolgate.svc:9443`.
    pub url: String,
    /// Namespace of its pods.
    pub namespace: String,
    /// Port of its pods, which is not always that of the URL.
    pub port: u16,
}

/// What every plan needs beside the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Image with `toolgate-gateway` and `toolgate-shim`.
    pub gateway_image: String,
    /// Whom gateways get their policy from.
    pub policy_server: PolicyServer,
    /// The CA of policy server and gateways, PEM.
    pub ca: String,
    /// Verifies snapshots.
    pub verify_key: VerifyKey,
    /// Where pods may connect to unless their McpServer says otherwise; `None`: anywhere.
    pub default_egress: Option<Vec<Egress>>,
}
