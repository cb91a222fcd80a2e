//! The kinds as users write them: group `toolgate.dev`, version `v1alpha1`.
//!
//! Owns the shape of each object, its schema and what one object can say about itself (CEL rules). What objects say
//! together is judged in `policy::parse`. A field is here only from the day on which it has an effect.
//!
//! The documentation of every field is what `kubectl explain` prints, so it speaks to users: the default, the unit,
//! what happens when the field is unset, and whether it can be changed later.

// `KubeSchema` copies each type, `pub` and all, into the body of a function.
#![allow(unreachable_pub)]
// Several `printcolumn` have the same `type_`.
#![allow(clippy::duplicated_attributes)]

mod common;
pub mod conditions;
mod mcpgateway;
mod mcprole;
mod mcpserver;
mod mcptool;
pub mod pod_template;
mod sandbox;
pub mod schema;
mod source;
pub mod status;
#[cfg(test)]
#[cfg(feature = "cli")] // For the reader and writer of YAML.
mod tests;

pub use common::{ConfigMapKey, Object, Reference, StringOrInteger, ToolAnnotations};
pub use mcpgateway::{Anonymous, AnonymousMode, Issuer, Jwks, McpGateway, McpGatewaySpec, Oidc, ServiceAccounts};
pub use mcprole::{
    Argument, Day, Effect, McpRole, McpRoleSpec, RoleRule, ServerSelector, Subject, SubjectKind, TimeWindow,
    ToolSelector,
};
pub use mcpserver::{
    DisconnectedMode, DisconnectedPolicy, Elicitation, GatewayUpdate, Leave, McpServer, McpServerSpec, OnLoss,
    Registration, ServerRequests,
};
pub use mcptool::{Deprecation, Lifecycle, McpTool, McpToolSpec};
pub use sandbox::{Egress, Filesystem, Isolation, Sandbox};
pub use source::{CaBundle, Container, EnvVar, Remote, Service, Sessions, Source, Transport};
pub use status::{McpGatewayStatus, McpRoleStatus, McpServerStatus, McpToolStatus};

/// API group of all kinds.
pub const GROUP: &str = "toolgate.dev";
/// The one version so far.
pub const VERSION: &str = "v1alpha1";
