//! The status of an McpGateway.

use jiff::Timestamp;

use super::enforced;
use super::enforcing::{Enforcing, Named, count};
use super::summary;
use super::verdict::Verdict;
use crate::api::conditions::advance;
use crate::api::status::ServerCounts;
use crate::api::{McpGateway, McpGatewayStatus, Object};

/// Everything that an McpGateway's status is made from.
#[derive(Clone, Copy)]
pub struct GatewayFacts<'a> {
    /// The object, with the status that it has.
    pub object: &'a McpGateway,
    /// What was found about it.
    pub verdict: Verdict<'a>,
    /// Every McpServer of its namespace that has a policy.
    pub servers: &'a [Enforcing<'a>],
    /// How many McpServers name it as their `gatewayRef`.
    pub referring: usize,
}

/// The whole status now.
pub fn gateway(facts: &GatewayFacts<'_>, now: Timestamp) -> McpGatewayStatus {
    let object = facts.object;
    let empty = McpGatewayStatus::default();
    let before = object.status.as_ref().unwrap_or(&empty);
    let named = Named { kind: "McpGateway", name: Object::name(object), generation: Object::generation(object) };
    let conditions = enforced::conditions(&named, facts.verdict, facts.servers, &before.conditions);
    let observed = summary::observed(&conditions);
    McpGatewayStatus {
        observed_generation: observed,
        conditions: advance(&before.conditions, conditions, now),
        servers: Some(ServerCounts { referring: count(facts.referring) }),
    }
}
