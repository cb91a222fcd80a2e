//! The status of an McpRole.

use jiff::Timestamp;

use super::enforcing::{Enforcing, Named, count, of_many};
use super::summary;
use super::verdict::{Verdict, keep_or, pending, seen};
use crate::api::conditions::{ACCEPTED, PROGRAMMED, READY, RESOLVED_REFS, Seen, Status, advance, reason};
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
    let generation = Object::generation(object);
    let mut conditions: Vec<Seen> = facts.verdict.conditions(generation, None, &before.conditions).into();
    conditions.push(if facts.verdict.is_in(generation) {
        let named = Named { kind: "McpRole", name: Object::name(object), generation };
        of_many(facts.servers, &named, &before.conditions)
    } else {
        keep_or(PROGRAMMED, &before.conditions, || pending(PROGRAMMED, generation))
    });
    let ready = summary::ready(&conditions, &[ACCEPTED, RESOLVED_REFS, PROGRAMMED], |generation| {
        seen(READY, Status::True, reason::READY, "", generation)
    });
    conditions.insert(0, ready);
    summary::progress(&mut conditions, generation, false);
    let observed = conditions.iter().find(|seen| seen.kind == ACCEPTED).map(|seen| seen.generation);
    let effective = |reach: Reach| Effective { tools: count(reach.tools), servers: count(reach.servers) };
    McpRoleStatus {
        observed_generation: observed,
        conditions: advance(&before.conditions, conditions, now),
        effective: facts.reach.map(effective).or(before.effective),
    }
}
