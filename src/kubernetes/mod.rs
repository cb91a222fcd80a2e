//! The only room that calls the API server.
//!
//! Owns watches and their caches, writes, Events and the Lease. Decides nothing: what to write is the controllers'
//! plan, what policy says is `policy`'s.
//!
//! # Rights
//! Everything that the operator asks of the API server; a chart grants this and no more. "Everywhere" means each
//! watched namespace: a `ClusterRole`, or one Role a namespace with `--watch-namespace`.
//!
//! | where | group | resources | verbs | for |
//! |---|---|---|---|---|
//! | everywhere | `toolgate.dev` | `mcpservers`, `mcptools`, `mcproles`, `mcpgateways` | get, list, watch | caches |
//! | everywhere | `toolgate.dev` | `mcpservers/status`, `mcptools/status`, `mcproles/status`, `mcpgateways/status` | patch | status |
//! | everywhere | `toolgate.dev` | `mcptools` | create, patch, delete | `registration: Auto` |
//! | everywhere | `apps` | `deployments` | get, list, watch, create, patch, delete | pods of servers |
//! | everywhere | (core) | `services`, `serviceaccounts` | get, list, watch, create, patch, delete | endpoint, identity |
//! | everywhere | (core) | `configmaps` | get, list, watch, create, patch, delete | boot snapshot, CA, catalogue; `jwks.configMapRef` |
//! | everywhere | (core) | `pods` | get, list, watch | which gateways there are |
//! | everywhere | `networking.k8s.io` | `networkpolicies` | get, list, watch, create, patch, delete | the barrier |
//! | everywhere | `policy` | `poddisruptionbudgets` | get, list, watch, create, patch, delete | more than one replica |
//! | everywhere | `events.k8s.io` | `events` | create, patch | Events |
//! | own namespace | `coordination.k8s.io` | `leases` | get, create, update | one writer |
//! | own namespace | (core) | `secrets` | get, create, update | root key, named `toolgate-keys` |
//! | own namespace | `discovery.k8s.io` | `endpointslices` | get, list, watch | the other replicas |
//! | cluster | (non-resource) | `/.well-known/openid-configuration`, `/openid/v1/jwks` | get | identity of gateways |
//!
//! Server-side apply needs `create` and `patch`. Children bear owner references without `blockOwnerDeletion`, so no
//! right on `finalizers` is needed. There is no `deletecollection`, no wildcard and no Secret elsewhere.

pub mod apply;
pub mod caches;
mod compare;
pub mod events;
#[cfg(test)]
pub(crate) mod fake;
pub mod issuer;
pub mod labels;
pub mod lease;
pub mod queue;
pub mod secret;
pub mod watch;

/// (namespace, name) of an object.
pub type Key = (String, String);
