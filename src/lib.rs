//! Toolgate: declare MCP servers, tools and roles; an enforcing gateway stands beside every server.
//!
//! # The map
//! ```text
//! src/bin/       flags and wiring only
//! src/api/       the kinds McpServer, McpTool, McpRole, McpGateway as users write them
//! src/policy/    PURE  parse, compile, load, decide, explain; Snapshot
//! src/gateway/   the data plane: stack, layers/, protocol/, upstream/, auth/, audit/
//! src/local/     the laptop mode and the offline tools: local, validate, explain
//! src/kubernetes/   the only room that calls the API server: caches, writes, Events, the Lease
//! src/controllers/  a folder a kind: gather, validate, plan, apply, report
//! src/status/    PURE  what is said of each object: conditions and the whole status, from what was gathered
//! src/policyserver/ what policy says now, and what gateways said; the policy stream
//! src/shim/      runs inside a stdio server's container, for the gateway beside it
//! src/wire/      the policy stream's protocol and the signed form of a snapshot
//! src/telemetry/ logs, metrics (every name once), traces
//! src/json.rs    PURE  where two readers of one JSON text may disagree
//! ```
//! `policy::Snapshot` is the one seam between those who declare policy and the gateway that enforces it:
//!
//! ```text
//! manifests -> api -> policy::parse -> World -> policy::compile -> Snapshot      (data, hashed, deterministic)
//!                                                                     |
//! gateway: Policy::load(Snapshot) -> .subject(&Identity) -> SubjectView -> .decide(&Call, now) -> Decision
//! ```
//!
//! # Who may use whom
//! `policy` imports no runtime, no client and no clock; only `policy/parse` imports `api`. `gateway` never
//! imports `api` or `local`. `tests/architecture.rs` holds these edges.
//!
//! # One call
//! listen -> authenticate -> envelope -> route -> authorize => `Permit` -> forward -> deliver, with audit, metrics
//! and the span around it. The order is visible in `gateway/stack.rs`; the upstream takes a `Permit`, whose only
//! constructor is in `gateway/layers/authorize.rs`.

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "operator")]
pub mod controllers;
#[cfg(feature = "gateway")]
pub mod gateway;
pub mod json;
#[cfg(feature = "operator")]
pub mod kubernetes;
#[cfg(feature = "cli")]
pub mod local;
pub mod policy;
#[cfg(feature = "operator")]
pub mod policyserver;
#[cfg(feature = "shim")]
pub mod shim;
#[cfg(feature = "operator")]
pub mod status;
#[cfg(any(feature = "gateway", feature = "operator"))]
pub mod telemetry;
#[cfg(feature = "wire")]
pub mod wire;
