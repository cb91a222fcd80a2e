//! Writes what is said of an object: its status, and an Event for what a person should learn of at once.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::object::HasStatus;

use crate::api::conditions::{
    ACCEPTED, AVAILABLE, DISCOVERED, ISOLATED, PROGRAMMED, READY, RESOLVED_REFS, find, reason,
};
use crate::api::status::{Report, conditions_of};
use crate::kubernetes::Key;
use crate::kubernetes::apply::{Error, Object, Writer};
use crate::kubernetes::events::{Events, Told};
use crate::kubernetes::queue::Next;
use crate::kubernetes::watch::Cache;

/// Conditions that are told when they turn false. `Ready` follows from these.
const TOLD: [&str; 6] = [ACCEPTED, RESOLVED_REFS, AVAILABLE, ISOLATED, DISCOVERED, PROGRAMMED];
/// What is so for a while whenever pods start or policies spread.
const USUAL: [&str; 4] = [reason::PODS_NOT_READY, reason::SCALED_TO_ZERO, reason::NOT_ACKNOWLEDGED, reason::PENDING];

/// A cache that does not have our last write yet gets it with the next events.
pub(super) const BEHIND: Duration = Duration::from_millis(500);

/// Speaks for one controller.
pub(super) struct Reporter {
    /// Writes as this controller.
    pub(super) writer: Writer,
    /// Tells as this controller.
    pub(super) events: Events,
}

impl Reporter {
    /// The object to report on, or what comes next where there is none to report on now.
    pub(super) fn object<K: Object>(&self, key: &Key, cache: &Cache<K>) -> Result<Arc<K>, Next> {
        let Some(object) = cache.get(key) else {
            self.writer.forget::<K>(key);
            return Err(Next::Wait);
        };
        if self.writer.is_behind(key, cache) { Err(Next::After(BEHIND)) } else { Ok(object) }
    }

    /// Writes a status if it says something new, and tells what became of it.
    pub(super) async fn report<K: Object + HasStatus<Status: Report>>(
        &self,
        object: &K,
        status: &K::Status,
    ) -> Result<(), Error> {
        if self.writer.status(object, object.status(), status).await? {
            for told in transitions(conditions_of(object), status.conditions()) {
                self.events.tell(&object.object_ref(&()), &told).await;
            }
        }
        Ok(())
    }
}

/// What is worth an Event: a condition that turned false, or false for another reason, and `Ready` that came true of what
/// runs. A declaration that is fine is no news, and ten thousand of them would be a flood.
fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Told> {
    let is_new = |now: &&Condition| {
        find(before, &now.type_).is_none_or(|was| (&was.status, &was.reason) != (&now.status, &now.reason))
    };
    let is_bad = |now: &&Condition| {
        now.status == "False" && TOLD.contains(&now.type_.as_str()) && !USUAL.contains(&now.reason.as_str())
    };
    let warning = |now: &Condition| Told { is_warning: true, reason: now.reason.clone(), note: note(now) };
    let mut told: Vec<Told> = after.iter().filter(is_bad).filter(is_new).map(warning).collect();
    let was_ready = find(before, READY).is_some_and(|was| was.status == "True");
    let ready = find(after, READY).filter(|now| now.status == "True" && !was_ready);
    let ready = ready.filter(|_| find(after, AVAILABLE).is_some());
    told.extend(ready.map(|now| Told { is_warning: false, reason: READY.to_owned(), note: note(now) }));
    told
}

fn note(condition: &Condition) -> String {
    match condition.message.as_str() {
        "" => format!("{} is {}", condition.type_, condition.status),
        message => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        serde_json::from_value(json!({"type": kind, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}))
        .unwrap()
    }

    #[test]
    fn only_transitions_are_told() {
        let bad = [condition(ACCEPTED, "False", "Conflicted"), condition(READY, "False", "Conflicted")];

        let told = transitions(&[], &bad);

        assert_eq!(told, [Told { is_warning: true, reason: "Conflicted".to_owned(), note: "m".to_owned() }]);
        assert_eq!(transitions(&bad, &bad), []);
        let mut good = vec![condition(ACCEPTED, "True", "Accepted"), condition(READY, "True", "Ready")];
        assert_eq!(transitions(&bad, &good), [], "a declaration runs nowhere");
        good.push(condition(AVAILABLE, "True", "Available"));
        assert_eq!(transitions(&bad, &good).iter().map(|told| told.is_warning).collect::<Vec<_>>(), [false]);
        assert_eq!(transitions(&good, &good), []);
    }

    #[test]
    fn what_is_usual_while_pods_start_is_not_told() {
        let starting = [condition(AVAILABLE, "False", "PodsNotReady"), condition(PROGRAMMED, "Unknown", "NoGateways")];

        assert_eq!(transitions(&[], &starting), []);
        assert_eq!(transitions(&starting, &[condition(AVAILABLE, "False", "CrashLooping")]).len(), 1);
    }
}
