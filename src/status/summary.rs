//! What follows from the other conditions: `Ready`, the generation observed, and what kstatus asks for: `Reconciling` and
//! `Stalled`, which are there only when true.

use crate::api::conditions::{
    ACCEPTED, AVAILABLE, PROGRAMMED, READY, RECONCILING, RESOLVED_REFS, STALLED, Seen, Status, reason,
};

use super::verdict::seen;

/// The first of these conditions that is not true decides about `Ready`; if all are true, `last` does. `Ready` speaks
/// of the oldest generation that one of them speaks of.
pub(super) fn ready(conditions: &[Seen], kinds: &[&str], last: impl FnOnce(i64) -> Seen) -> Seen {
    let of = |kind: &&str| conditions.iter().find(|condition| condition.kind == *kind);
    let concerned: Vec<&Seen> = kinds.iter().filter_map(of).collect();
    let generation = concerned.iter().map(|condition| condition.generation).min().unwrap_or_default();
    match concerned.into_iter().find(|condition| condition.status != Status::True) {
        Some(missing) => Seen {
            kind: READY,
            status: missing.status,
            reason: missing.reason.clone(),
            message: match missing.message.as_str() {
                "" => format!("{} is not True", missing.kind),
                message => format!("{}: {message}", missing.kind),
            },
            generation,
        },
        None => last(generation),
    }
}

/// The generation that the status speaks of: the one that was accepted, or not.
pub(super) fn observed(conditions: &[Seen]) -> Option<i64> {
    conditions.iter().find(|seen| seen.kind == ACCEPTED).map(|seen| seen.generation)
}

/// Adds `Reconciling` or `Stalled`. Stalled is what waits for a person: a spec that makes no sense, or refers to what
/// does not exist.
pub(super) fn progress(conditions: &mut Vec<Seen>, generation: i64, is_rolling: bool) {
    let find = |kind| conditions.iter().find(|condition: &&Seen| condition.kind == kind);
    let stalled = [ACCEPTED, RESOLVED_REFS].into_iter().filter_map(find).find(|seen| seen.status == Status::False);
    let added = if let Some(cause) = stalled {
        Some(Seen { kind: STALLED, status: Status::True, ..cause.clone() })
    } else {
        let waits = |kind| find(kind).filter(|seen: &&Seen| seen.status != Status::True && !is_at_rest(seen));
        match [ACCEPTED, AVAILABLE, PROGRAMMED].into_iter().find_map(waits) {
            Some(cause) => Some(Seen { kind: RECONCILING, status: Status::True, generation, ..cause.clone() }),
            None if conditions.iter().any(|seen| seen.generation < generation) => {
                let message = format!("generation {generation} is not in force yet");
                Some(seen(RECONCILING, Status::True, reason::PENDING, message, generation))
            }
            None if is_rolling => {
                let message = "pods are being replaced or added";
                Some(seen(RECONCILING, Status::True, reason::ROLLING_OUT, message, generation))
            }
            None => None,
        }
    };
    conditions.extend(added);
}

/// Nothing is on its way: it is as it was asked for.
fn is_at_rest(seen: &Seen) -> bool {
    [reason::SCALED_TO_ZERO, reason::NO_GATEWAYS].contains(&seen.reason.as_ref())
}
