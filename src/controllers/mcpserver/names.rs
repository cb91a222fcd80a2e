//! Names, ports and paths that operator, gateway and users agree on. Deployment and Service of a server bear its name.

pub(super) use crate::api::pod_template::SERVER_CONTAINER;

/// The gateway's container.
pub(super) const GATEWAY_CONTAINER: &str = "toolgate-gateway";
/// The init container that brings the shim into a pod.
pub(super) const SHIM_CONTAINER: &str = "toolgate-shim";
/// ConfigMap of a namespace with the CA of its endpoints.
pub(in crate::controllers) const CA_MAP: &str = "toolgate-ca";
/// Key in [`CA_MAP`].
pub(super) const CA_KEY: &str = "ca.crt";
/// Key of the snapshot in the boot ConfigMap.
pub(super) const BOOT_KEY: &str = "snapshot";
/// Key of the catalogue in its ConfigMap.
pub(super) const CATALOGUE_KEY: &str = "catalogue.json";
/// Where the gateway serves MCP.
pub(super) const MCP_PORT: i32 = 8443;
/// Where the gateway answers probes.
pub(super) const ADMIN_PORT: i32 = 9901;

/// `ServiceAccount`, `NetworkPolicy` and `PodDisruptionBudget` of a server.
pub(in crate::controllers) fn companion(server: &str) -> String {
    format!("{server}-toolgate")
}

/// ConfigMap with the snapshot that the gateway of a server starts from.
pub(super) fn boot_map(server: &str) -> String {
    format!("{server}-toolgate-boot")
}

/// ConfigMap with everything that a server offers.
pub(super) fn catalogue_map(server: &str) -> String {
    format!("{server}-toolgate-catalogue")
}

/// The server that a child of this name belongs to, if it is one: what a deletion leaves to know.
pub(in crate::controllers) fn server_of_child(child: &str) -> &str {
    ["-toolgate-boot", "-toolgate-catalogue", "-toolgate"]
        .into_iter()
        .find_map(|suffix| child.strip_suffix(suffix))
        .unwrap_or(child)
}
