//! The conditions of what is nothing but policy: an McpRole, an McpGateway. It runs nowhere itself; servers enforce it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::enforcing::{Enforcing, Named, of_many};
use super::summary;
use super::verdict::{Verdict, keep_or, pending, seen};
use crate::api::conditions::{ACCEPTED, PROGRAMMED, READY, RESOLVED_REFS, Seen, Status, reason};

/// Every condition now, `Ready` first.
pub(super) fn conditions(
    named: &Named<'_>,
    verdict: Verdict<'_>,
    servers: &[Enforcing<'_>],
    before: &[Condition],
) -> Vec<Seen> {
    let generation = named.generation;
    let mut conditions: Vec<Seen> = verdict.conditions(generation, None, before).into();
    conditions.push(if verdict.is_in(generation) {
        of_many(servers, named, before)
    } else {
        keep_or(PROGRAMMED, before, || pending(PROGRAMMED, generation))
    });
    let ready = summary::ready(&conditions, &[ACCEPTED, RESOLVED_REFS, PROGRAMMED], |generation| {
        seen(READY, Status::True, reason::READY, "", generation)
    });
    conditions.insert(0, ready);
    summary::progress(&mut conditions, generation, false);
    conditions
}
