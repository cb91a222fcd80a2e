//! Names, ports and paths that operator, gateway and users agree on.

/// The Deployment, the Service, and everything else of a server bear its name or one that begins with it.
pub const SERVER_CONTAINER: &str = "server";
/// The gateway's container.
pub const GATEWAY_CONTAINER: &str = "toolgate-gateway";
/// The init container that brings the shim into a pod.
pub const SHIM_CONTAINER: &str = "toolgate-shim";
/// Containers and volumes whose name begins so are the operator's.
pub const RESERVED: &str = "toolgate-";
/// ConfigMap of a namespace with the CA of its endpoints.
pub const CA_MAP: &str = "toolgate-ca";
/// Key in [`CA_MAP`].
pub const CA_KEY: &str = "ca.crt";
/// Key of the snapshot in the boot ConfigMap.
pub const BOOT_KEY: &str = "snapshot";
/// Key of the catalogue in its ConfigMap.
pub const CATALOGUE_KEY: &str = "catalogue.json";
/// Audience of the tokens with which gateways show who they are.
pub const AUDIENCE: &str = "toolgate-policy";
/// Where the gateway serves MCP.
pub const MCP_PORT: i32 = 8443;
/// Where the gateway answers probes.
pub const ADMIN_PORT: i32 = 9901;

/// ServiceAccount, NetworkPolicy and PodDisruptionBudget of a server.
pub fn companion(server: &str) -> String {
    format!("{server}-toolgate")
}

/// ConfigMap with the snapshot that the gateway of a server starts from.
pub fn boot_map(server: &str) -> String {
    format!("{server}-toolgate-boot")
}

/// ConfigMap with everything that a server offers.
pub fn catalogue_map(server: &str) -> String {
    format!("{server}-toolgate-catalogue")
}
