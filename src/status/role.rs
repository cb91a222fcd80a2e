//! The status of an McpRole.

use jiff::Timestamp;

use super::enforced;
use super::enforcing::{Enforcing, Named, count};
use super::summary;
use super::verdict::Verdict;
use crate::api::conditions::advance;
use crate::api::status::Effective;
use crate::api::{McpRole, McpRoleStatus, Object};
use crate::policyserver::index::Reach;

/// Everything that an McpRole's status is made from.
#[derive(Clone, Copy)]
pub struct RoleFacts<'a> {
    /// The object, with the status that it has.
    pub object: &'a McpRole,
    /// What was found about it.
    pub verdict: Verdict<'a>,
    /// Every McpServer of its namespace that has a policy.
    pub servers: &'a [Enforcing<'a>],
    /// What it comes to; unset: not known yet.
    pub reach: Option<Reach>,
}

/// The whole status now.
pub fn role(facts: &RoleFacts<'_>, now: Timestamp) -> McpRoleStatus {
    let object = facts.object;
    let empty = McpRoleStatus::default();
    let before = object.status.as_ref().unwrap_or(&empty);
    let named = Named { kind: "McpRole", name: Object::name(object), generation: Object::generation(object) };
    let conditions = enforced::conditions(&named, facts.verdict, facts.servers, &before.conditions);
    let observed = summary::observed(&conditions);
    let effective = |reach: Reach| Effective { tools: count(reach.tools), servers: count(reach.servers) };
    McpRoleStatus {
        observed_generation: observed,
        conditions: advance(&before.conditions, conditions, now),
        effective: facts.reach.map(effective).or(before.effective),
    }
}
