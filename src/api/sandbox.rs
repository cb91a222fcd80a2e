//! What the pods of an McpServer may do and reach.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the pods of a server may do and reach. The pods always meet the pod security standard *restricted*.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct Sandbox {
    /// See [`Filesystem`], whose documentation takes the place of this one in the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<Filesystem>,
    /// A RuntimeClass of the cluster for the server's pods, for example one that runs gVisor. Unset: the cluster's
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub runtime_class_name: Option<String>,
    /// See [`Isolation`], whose documentation takes the place of this one in the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// Where the pods may connect to, besides what the gateway itself needs: DNS, the operator, the issuers' keys. `[]`
    /// means nowhere else. Unset: what the installation's default says. It is a NetworkPolicy, which your cluster must
    /// enforce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub egress: Option<Vec<Egress>>,
}

impl Sandbox {
    /// `filesystem`, or what unset means.
    pub fn filesystem(&self) -> Filesystem {
        self.filesystem.unwrap_or_default()
    }

    /// `isolation`, or what unset means.
    pub fn isolation(&self) -> Isolation {
        self.isolation.unwrap_or_default()
    }
}

/// Where the server's container may write. `ReadOnly` (the default): nowhere but in volumes that `podTemplate` mounts.
/// `Scratch`: besides in an empty `/tmp` of at most 1 GiB that ends with the pod. Only with `source.container`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Filesystem {
    /// Nowhere.
    #[default]
    ReadOnly,
    /// In `/tmp`.
    Scratch,
}

/// What keeps callers from going around the gateway. `Process` (the default): the server listens on localhost alone; if
/// its port answers on the pod's address, the McpServer is not Ready. `NetworkPolicy`: the server may listen on any
/// address, and the pods' NetworkPolicy, which your cluster must enforce, admits the gateway's port alone. Only with
/// `source.container`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Isolation {
    /// The server listens on localhost alone.
    #[default]
    Process,
    /// The network.
    NetworkPolicy,
}

/// Where pods may connect to.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
pub struct Egress {
    /// Addresses, as an IPv4 or IPv6 prefix. Example: `140.82.112.0/20`.
    #[schemars(length(min = 3, max = 49))]
    #[x_kube(validation = Rule::new("isCIDR(self)").message("must be an IPv4 or IPv6 prefix such as 140.82.112.0/20"))]
    pub cidr: String,
    /// The TCP port. Unset: every port and protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}
