//! The status of an McpTool.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::enforcing::{Enforcing, Named, of_one};
use super::summary;
use super::verdict::{Verdict, keep_or, pending, seen};
use crate::api::conditions::{ACCEPTED, PROGRAMMED, READY, RESOLVED_REFS, Seen, Status, advance, cut, find, reason};
use crate::api::status::{FOREIGN_CHARACTERS, conditions_of};
use crate::api::{Lifecycle, McpTool, McpToolStatus, Object};
use crate::policyserver::fleet::Offer;

/// One declared tool of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Declared<'a> {
    /// Its name at the server.
    pub name: &'a str,
    /// Whether callers can use it: not `Disabled`, and not past its `sunsetTime`.
    pub is_usable: bool,
}

/// What an McpTool declares. Only for one that policy accepted: of two with one name the loser declares nothing.
pub fn declared(tool: &McpTool, now: Timestamp) -> Declared<'_> {
    Declared { name: &tool.spec.tool_name, is_usable: is_usable(tool, now) }
}

/// Whether the declaration lets the tool exist for callers now.
pub fn is_usable(tool: &McpTool, now: Timestamp) -> bool {
    let sunset = tool.spec.deprecation.as_ref().and_then(|deprecation| deprecation.sunset_time.as_ref());
    tool.spec.lifecycle != Lifecycle::Disabled && sunset.is_none_or(|sunset| now < sunset.0)
}

/// The server of a tool.
#[derive(Clone, Copy)]
pub struct ServerView<'a> {
    /// Its policy and its gateways.
    pub enforcing: Enforcing<'a>,
    /// `status.conditions` of the McpServer.
    pub conditions: &'a [Condition],
}

/// Everything that an McpTool's status is made from.
#[derive(Clone, Copy)]
pub struct ToolFacts<'a> {
    /// The object, with the status that it has.
    pub object: &'a McpTool,
    /// What was found about it.
    pub verdict: Verdict<'a>,
    /// Its server; unset: there is none.
    pub server: Option<ServerView<'a>>,
}

/// The whole status now.
pub fn tool(facts: &ToolFacts<'_>, now: Timestamp) -> McpToolStatus {
    let object = facts.object;
    let empty = McpToolStatus::default();
    let before = object.status.as_ref().unwrap_or(&empty);
    let generation = Object::generation(object);
    let mut conditions: Vec<Seen> = facts.verdict.conditions(generation, None, &before.conditions).into();
    conditions.push(programmed(facts, &conditions, generation, before));
    conditions.insert(0, ready(facts, &conditions, now));
    summary::progress(&mut conditions, generation, false);
    let observed = summary::observed(&conditions);
    McpToolStatus {
        observed_generation: observed,
        conditions: advance(&before.conditions, conditions, now),
        observed_digest: match offer(facts) {
            Some(offer) => digest(offer, &object.spec.tool_name).map(|digest| cut(digest, FOREIGN_CHARACTERS)),
            None => facts.server.and_then(|_| before.observed_digest.clone()),
        },
    }
}

/// What the server offers, if that is all of it.
fn offer<'a>(facts: &ToolFacts<'a>) -> Option<&'a Offer> {
    let offer = facts.server?.enforcing.offer()?;
    offer.error.is_none().then_some(offer.as_ref())
}

fn digest<'a>(offer: &'a Offer, name: &str) -> Option<&'a str> {
    let position = offer.tools.binary_search_by(|tool| tool.name.as_str().cmp(name)).ok()?;
    offer.tools.get(position).map(|tool| tool.digest.as_str())
}

fn programmed(facts: &ToolFacts<'_>, conditions: &[Seen], generation: i64, before: &McpToolStatus) -> Seen {
    if !facts.verdict.is_in(generation) {
        return keep_or(PROGRAMMED, &before.conditions, || pending(PROGRAMMED, generation));
    }
    // Nothing of a tool that is refused reaches a gateway, but that another declaration has its name.
    if let Some(cause) = conditions.iter().find(|seen| seen.status == Status::False) {
        let message = format!("{} is False", cause.kind);
        return seen(PROGRAMMED, Status::False, reason::NOT_ACCEPTED, message, generation);
    }
    match facts.server {
        Some(server) => {
            let named = Named { kind: "McpTool", name: Object::name(facts.object), generation };
            of_one(&server.enforcing, &named, &before.conditions)
        }
        None => pending(PROGRAMMED, generation),
    }
}

fn ready(facts: &ToolFacts<'_>, conditions: &[Seen], now: Timestamp) -> Seen {
    summary::ready(conditions, &[ACCEPTED, RESOLVED_REFS, PROGRAMMED], |generation| {
        let say = |status, reason, message: String| seen(READY, status, reason, message, generation);
        if !is_usable(facts.object, now) {
            return say(Status::False, reason::DISABLED, "the tool does not exist for callers".to_owned());
        }
        let server = &facts.object.spec.server_ref.name;
        match offer(facts) {
            Some(offer) if digest(offer, &facts.object.spec.tool_name).is_none() => {
                let message = format!("McpServer {server} offers no tool `{}`", facts.object.spec.tool_name);
                return say(Status::False, reason::NOT_OFFERED, message);
            }
            Some(_) => {}
            // The server's own conditions tell why nothing is known.
            None => {
                let kept = conditions_of(facts.object);
                let is_early = facts.server.is_some_and(|server| !server.enforcing.is_fleet_complete);
                let otherwise = || {
                    let message =
                        format!("what McpServer {server} offers is not known: look at its condition Discovered");
                    say(Status::Unknown, reason::NOT_SEEN, message)
                };
                return if is_early { keep_or(READY, kept, otherwise) } else { otherwise() };
            }
        }
        let conditions = facts.server.map(|server| server.conditions).unwrap_or_default();
        match find(conditions, READY).filter(|ready| ready.status == "False") {
            Some(ready) => {
                let message = format!("McpServer {server} is not Ready ({}): look there", ready.reason);
                say(Status::False, reason::SERVER_NOT_READY, message)
            }
            None => say(Status::True, reason::READY, String::new()),
        }
    })
}
