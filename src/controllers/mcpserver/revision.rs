//! PURE. `gatewayUpdate: OnRollout`: the pods stay as they were planned until their McpServer changes them.
//!
//! A new version of the operator plans other pods than the one before: another image of the gateway, other flags for
//! it. An annotation on the Deployment keeps the template that was planned, and a digest of the declaration that it was
//! planned from. While that is the same, the old template stays declared, to the letter, so that nothing rolls and an
//! edit by hand is repaired all the same.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::McpServer;
use crate::controllers::hex;
use crate::controllers::settings::Settings;

/// The annotation.
pub(super) const ANNOTATION: &str = "toolgate.dev/revision";

/// Pods as they were planned.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Revision {
    /// See [`declared`].
    pub(super) declared: String,
    /// The template.
    pub(super) template: PodTemplateSpec,
}

/// Digest of what decides about the pods of a server, but for the gateway's version: what the McpServer says, and whom
/// the gateway trusts. A gateway that trusts the wrong CA cannot be told anything any more, so it does not wait.
pub(super) fn declared(server: &McpServer, settings: &Settings) -> String {
    let sandbox = server.spec.sandbox.as_ref();
    let said = json!({
        "source": server.spec.source,
        "podTemplate": server.spec.pod_template,
        "filesystem": sandbox.map(crate::api::Sandbox::filesystem),
        "runtimeClassName": sandbox.and_then(|sandbox| sandbox.runtime_class_name.as_ref()),
        "policyServer": settings.policy_server.url,
        "ca": settings.ca,
        "verifyKey": settings.verify_key.to_string(),
    });
    // The order of members is the alphabet's: serde_json keeps objects sorted.
    hex(said.to_string().as_bytes(), 16)
}

/// The revision that a Deployment was planned from.
pub(super) fn read(deployment: &Deployment) -> Option<Revision> {
    let text = deployment.metadata.annotations.as_ref()?.get(ANNOTATION)?;
    serde_json::from_str(text).ok()
}

/// Name and value of the annotation.
pub(super) fn annotation(revision: &Revision) -> Option<(String, String)> {
    serde_json::to_string(revision).ok().map(|text| (ANNOTATION.to_owned(), text))
}
