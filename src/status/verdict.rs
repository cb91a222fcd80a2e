//! `Accepted` and `ResolvedRefs`: what policy, and the plan of the workload, found about one object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::conditions::{ACCEPTED, RESOLVED_REFS, Seen, Status, find, reason};
use crate::policy::{Finding, Severity};

/// Findings told in one message; how many more there are is told too.
const TOLD: usize = 3;
/// Findings that are about something that does not exist.
const UNRESOLVED: &[&str] = &[
    reason::SERVER_NOT_FOUND,
    reason::GATEWAY_NOT_FOUND,
    reason::ROLE_NOT_FOUND,
    reason::TOOL_NOT_FOUND,
    reason::ISSUER_NOT_FOUND,
    reason::CONFIG_MAP_NOT_FOUND,
    reason::SERVICE_NOT_FOUND,
];

/// What was found about one object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict<'a> {
    /// The generation that was judged; unset: none yet.
    pub judged: Option<i64>,
    /// Findings about the object: policy's, and those of the plan of its workload.
    pub findings: &'a [Finding],
}

impl Verdict<'_> {
    /// Whether this generation has been judged.
    pub(super) fn is_in(&self, generation: i64) -> bool {
        self.judged.is_some_and(|judged| judged >= generation)
    }

    /// The generation that these findings are about.
    fn generation(&self, generation: i64) -> i64 {
        self.judged.map_or(generation, |judged| judged.max(generation))
    }

    /// `Accepted`, then `ResolvedRefs`. `refusal` is why the policy as a whole is not published, where that is so.
    pub(super) fn conditions(
        &self,
        generation: i64,
        refusal: Option<(&'static str, &str)>,
        before: &[Condition],
    ) -> [Seen; 2] {
        if !self.is_in(generation) {
            return [ACCEPTED, RESOLVED_REFS].map(|kind| keep_or(kind, before, || pending(kind, generation)));
        }
        let errors = |unresolved: bool| -> Vec<&Finding> {
            let of = |finding: &&Finding| UNRESOLVED.contains(&finding.reason) == unresolved;
            self.findings.iter().filter(|finding| finding.severity == Severity::Error).filter(of).collect()
        };
        let generation = self.generation(generation);
        let judge = |kind, good: &'static str, errors: &[&Finding], warnings: &[&Finding]| match errors.first() {
            Some(first) => seen(kind, Status::False, first.reason, tell(errors), generation),
            None => seen(kind, Status::True, good, tell(warnings), generation),
        };
        let warnings: Vec<&Finding> = self.findings.iter().filter(|f| f.severity == Severity::Warning).collect();
        let mut accepted = judge(ACCEPTED, reason::ACCEPTED, &errors(false), &warnings);
        if accepted.status == Status::True
            && let Some((reason, message)) = refusal
        {
            accepted = seen(ACCEPTED, Status::False, reason, message.to_owned(), generation);
        }
        [accepted, judge(RESOLVED_REFS, reason::RESOLVED, &errors(true), &[])]
    }
}

/// `field: what is wrong`, a line each.
fn tell(findings: &[&Finding]) -> String {
    let line = |finding: &&Finding| match finding.pointer.as_str() {
        "" => finding.message.clone(),
        pointer => format!("{pointer}: {}", finding.message),
    };
    let mut lines: Vec<String> = findings.iter().take(TOLD).map(line).collect();
    if findings.len() > TOLD {
        lines.push(format!("and {} more", findings.len() - TOLD));
    }
    lines.join("\n")
}

pub(super) fn seen(
    kind: &'static str,
    status: Status,
    reason: &'static str,
    message: impl Into<String>,
    generation: i64,
) -> Seen {
    Seen { kind, status, reason: reason.into(), message: message.into(), generation }
}

/// Nothing is known yet.
pub(super) fn pending(kind: &'static str, generation: i64) -> Seen {
    seen(kind, Status::Unknown, reason::PENDING, "this generation has not been looked at yet", generation)
}

/// The condition as it was, else another.
pub(super) fn keep_or(kind: &'static str, before: &[Condition], otherwise: impl FnOnce() -> Seen) -> Seen {
    find(before, kind).map_or_else(otherwise, |before| Seen::kept(kind, before))
}
