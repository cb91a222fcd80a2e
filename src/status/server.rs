//! The status of an McpServer.

use jiff::Timestamp;

use super::enforcing::{Enforcing, Named, count, of_one};
use super::tool::Declared;
use super::verdict::{Verdict, keep_or, pending, seen};
use super::workload::{Workload, available, is_rolling};
use super::{endpoint, summary};
use crate::api::conditions::{
    ACCEPTED, AVAILABLE, DISCOVERED, ISOLATED, PROGRAMMED, READY, RESOLVED_REFS, Seen, Status, advance, cut, reason,
};
use crate::api::status::{
    Address, FOREIGN_CHARACTERS, PROTOCOL_VERSIONS, ServerInfo, ToolCounts, UNDECLARED_TOOLS, UndeclaredTool,
};
use crate::api::{Isolation, McpServer, McpServerStatus, Object, Registration};
use crate::policyserver::fleet::Offer;

/// Everything that an McpServer's status is made from.
#[derive(Clone, Copy)]
pub struct ServerFacts<'a> {
    /// The object, with the status that it has.
    pub object: &'a McpServer,
    /// What was found about it.
    pub verdict: Verdict<'a>,
    /// Its pods; unset: there is no Deployment yet.
    pub workload: Option<&'a Workload>,
    /// They keep the gateway that they have, and there is another one for them: `gatewayUpdate: OnRollout`.
    pub is_update_waiting: bool,
    /// Its policy and its gateways; `enforcing.ready` is `workload.ready`.
    pub enforcing: Enforcing<'a>,
    /// The McpTools of it that are in force; see [`super::declared`].
    pub declared: &'a [Declared<'a>],
    /// Label selector of its pods.
    pub selector: &'a str,
}

/// The whole status now.
pub fn server(facts: &ServerFacts<'_>, now: Timestamp) -> McpServerStatus {
    let object = facts.object;
    let empty = McpServerStatus::default();
    let before = object.status.as_ref().unwrap_or(&empty);
    let generation = Object::generation(object);
    let refusal = facts.enforcing.refusal.map(|refusal| (refusal.reason, refusal.message.as_str()));
    let mut conditions: Vec<Seen> = facts.verdict.conditions(generation, refusal, &before.conditions).into();
    conditions.push(available(facts.workload, facts.is_update_waiting, generation, &before.conditions));
    conditions.push(isolated(facts, generation, before));
    conditions.push(discovered(facts, generation, before));
    conditions.push(if facts.verdict.is_in(generation) {
        let named = Named { kind: "McpServer", name: Object::name(object), generation };
        of_one(&facts.enforcing, &named, &before.conditions)
    } else {
        keep_or(PROGRAMMED, &before.conditions, || pending(PROGRAMMED, generation))
    });
    conditions.insert(0, ready(facts, &conditions, before));
    summary::progress(&mut conditions, generation, facts.workload.is_some_and(is_rolling));

    let offer = facts.enforcing.offer().filter(|offer| is_answer(offer));
    let observed = summary::observed(&conditions);
    McpServerStatus {
        observed_generation: observed,
        conditions: advance(&before.conditions, conditions, now),
        replicas: Some(facts.workload.map_or(0, |workload| workload.replicas)),
        selector: Some(facts.selector.to_owned()),
        address: Some(Address { url: endpoint(object.namespace(), Object::name(object)) }),
        server_info: offer.map(|offer| server_info(offer)).or_else(|| before.server_info.clone()),
        tools: Some(ToolCounts {
            declared: count(facts.declared.len()),
            discovered: match offer {
                Some(offer) => Some(count(offer.tools.len())),
                None => before.tools.and_then(|tools| tools.discovered),
            },
        }),
        undeclared_tools: match offer {
            Some(offer) => undeclared(offer, facts.declared),
            None => before.undeclared_tools.clone(),
        },
        enforcement: facts.enforcing.enforcement(Object::name(object), before.enforcement.as_ref()),
    }
}

/// Whether the server said anything of itself.
fn is_answer(offer: &Offer) -> bool {
    offer.error.is_none() || !offer.protocol_versions.is_empty()
}

fn server_info(offer: &Offer) -> ServerInfo {
    let newest = offer.protocol_versions.iter().rev().take(PROTOCOL_VERSIONS);
    ServerInfo {
        name: cut(&offer.name, FOREIGN_CHARACTERS),
        version: cut(&offer.version, FOREIGN_CHARACTERS),
        protocol_versions: newest.rev().map(|version| cut(version, FOREIGN_CHARACTERS)).collect(),
    }
}

fn undeclared(offer: &Offer, declared: &[Declared<'_>]) -> Vec<UndeclaredTool> {
    let declared: std::collections::BTreeSet<&str> = declared.iter().map(|tool| tool.name).collect();
    let undeclared = offer.tools.iter().filter(|tool| !declared.contains(tool.name.as_str()));
    let tell = |tool: &crate::policyserver::fleet::OfferedTool| UndeclaredTool {
        name: cut(&tool.name, FOREIGN_CHARACTERS),
        definition_digest: cut(&tool.digest, FOREIGN_CHARACTERS),
    };
    undeclared.take(UNDECLARED_TOOLS).map(tell).collect()
}

fn isolated(facts: &ServerFacts<'_>, generation: i64, before: &McpServerStatus) -> Seen {
    let say = |status, reason, message: &str| seen(ISOLATED, status, reason, message, generation);
    let spec = &facts.object.spec;
    if spec.source.container.is_none() {
        let message = "the server runs elsewhere, where Toolgate cannot look: admit only the gateway's pods there";
        return say(Status::Unknown, reason::NOT_IN_THE_POD, message);
    }
    if spec.sandbox.as_ref().is_some_and(|sandbox| sandbox.isolation() == Isolation::NetworkPolicy) {
        return say(Status::True, reason::BY_NETWORK_POLICY, "a NetworkPolicy admits the gateway's port alone");
    }
    let enforcing = &facts.enforcing;
    // A pod need not be Ready to be found open.
    if enforcing.reports.iter().any(|report| report.is_isolated == Some(false)) {
        let message = "the server answers on the pod's address, so callers could go around the gateway: let it listen \
                       on localhost alone";
        return say(Status::False, reason::REACHABLE_AROUND_GATEWAY, message);
    }
    if enforcing.ready.is_empty() {
        return say(Status::Unknown, reason::NO_GATEWAYS, "no pod is Ready");
    }
    if enforcing.of_ready().filter(|report| report.is_isolated == Some(true)).count() == enforcing.ready.len() {
        return say(Status::True, reason::ISOLATED, "the server listens on localhost alone");
    }
    unheard(facts, ISOLATED, generation, before)
}

/// Nothing is known because a gateway did not speak, or not yet.
fn unheard(facts: &ServerFacts<'_>, kind: &'static str, generation: i64, before: &McpServerStatus) -> Seen {
    let silent = facts.enforcing.silent();
    let otherwise = || {
        let (reason, message) = if silent.is_empty() {
            (reason::NOT_SEEN, "a gateway has not looked yet")
        } else {
            (reason::GATEWAY_DISCONNECTED, "a gateway is not connected")
        };
        seen(kind, Status::Unknown, reason, message, generation)
    };
    if facts.enforcing.is_fleet_complete || silent.is_empty() {
        otherwise()
    } else {
        keep_or(kind, &before.conditions, otherwise)
    }
}

fn discovered(facts: &ServerFacts<'_>, generation: i64, before: &McpServerStatus) -> Seen {
    let say = |status, reason, message: String| seen(DISCOVERED, status, reason, message, generation);
    let Some(offer) = facts.enforcing.offer() else {
        if facts.enforcing.ready.is_empty() {
            // A pod is not Ready before its server takes connections, and its gateway knows why that does not.
            return match facts.enforcing.silence() {
                Some(error) => say(Status::False, reason::NO_ANSWER, cut(error, FOREIGN_CHARACTERS)),
                None => say(Status::Unknown, reason::NO_GATEWAYS, "no pod is Ready".to_owned()),
            };
        }
        return unheard(facts, DISCOVERED, generation, before);
    };
    let offered = format!("{} tools, {} prompts, {} resources", offer.tools.len(), offer.prompts, offer.resources);
    match &offer.error {
        None => say(Status::True, reason::DISCOVERED, offered),
        Some(error) if is_answer(offer) => {
            say(Status::False, reason::INCOMPLETE, format!("{offered}, and then: {}", cut(error, FOREIGN_CHARACTERS)))
        }
        Some(error) => say(Status::False, reason::NO_ANSWER, cut(error, FOREIGN_CHARACTERS)),
    }
}

fn ready(facts: &ServerFacts<'_>, conditions: &[Seen], before: &McpServerStatus) -> Seen {
    let is_inside = facts.object.spec.source.container.is_some();
    let kinds: &[&str] = if is_inside {
        &[ACCEPTED, RESOLVED_REFS, AVAILABLE, ISOLATED, PROGRAMMED]
    } else {
        &[ACCEPTED, RESOLVED_REFS, AVAILABLE, PROGRAMMED]
    };
    summary::ready(conditions, kinds, |generation| {
        let offer = facts.enforcing.offer();
        if offer.is_some_and(|offer| usable(facts, offer) > 0) {
            return seen(READY, Status::True, reason::READY, "", generation);
        }
        summary::ready(conditions, &[DISCOVERED], |_| {
            if facts.object.spec.registration == Registration::Declared && facts.declared.is_empty() {
                let message = "no McpTool declares a tool of this server, so callers see none";
                return seen(READY, Status::True, reason::NO_TOOLS_DECLARED, message, generation);
            }
            let nothing = || {
                let message = "the server offers no tool that callers may see, no prompt and no resource";
                seen(READY, Status::False, reason::NOTHING_OFFERED, message, generation)
            };
            // `Discovered` without an offer is what an earlier leader saw: so is what could be used.
            if offer.is_some() { nothing() } else { keep_or(READY, &before.conditions, nothing) }
        })
    })
}

/// Tools, prompts and resources that callers could use now.
fn usable(facts: &ServerFacts<'_>, offer: &Offer) -> usize {
    let is_offered = |tool: &&Declared<'_>| offer.tools.binary_search_by(|o| o.name.as_str().cmp(tool.name)).is_ok();
    let declared = facts.declared.iter().filter(is_offered);
    let tools = match facts.object.spec.registration {
        Registration::Declared => declared.filter(|tool| tool.is_usable).count(),
        Registration::Auto => offer.tools.len().saturating_sub(declared.filter(|tool| !tool.is_usable).count()),
    };
    tools + offer.prompts + offer.resources
}
