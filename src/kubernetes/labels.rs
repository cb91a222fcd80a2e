//! Labels and annotations on what the operator owns. Users may not write them.

use std::collections::BTreeMap;

/// Who made an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const TOOLGATE: &str = "toolgate";
/// The McpServer that an object is for, as the label that selectors of workloads use.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// The McpServer that an object is for.
pub const SERVER: &str = "toolgate.dev/server";
/// Who registered an McpTool; `discovery` where that was us.
pub const REGISTERED_BY: &str = "toolgate.dev/registered-by";
/// Value of [`REGISTERED_BY`].
pub const DISCOVERY: &str = "discovery";
/// Selects the ConfigMaps of users that are read: key sets of issuers, certificates of remote servers.
pub const KEY_SETS: &str = "toolgate.dev/jwks=true";
/// Annotation: digest of the declaration that an object was last applied from. A field that is not declared any more
/// shows in it alone.
pub const APPLIED: &str = "toolgate.dev/applied";

/// Selects everything that the operator owns.
pub fn owned() -> String {
    format!("{MANAGED_BY}={TOOLGATE}")
}

/// The labels of everything that is owned for one server.
pub fn of_server(name: &str) -> BTreeMap<String, String> {
    [(MANAGED_BY, TOOLGATE), (INSTANCE, name), (SERVER, name)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
