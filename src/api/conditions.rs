//! Conditions: their types, their reasons, and how one follows from the one before.
//!
//! A condition is an observation, not a state of a machine. `lastTransitionTime` moves only with `status`, so that an
//! unchanged observation gives an unchanged object, which is not written. Each condition says which generation it
//! speaks of. Reasons are API: scripts and alerts read them. Each says here what to do about it.

pub mod reason;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::status::MESSAGE_CHARACTERS;

/// Callers can use it. The one condition to wait for.
pub const READY: &str = "Ready";
/// It makes sense by itself and beside the other objects.
pub const ACCEPTED: &str = "Accepted";
/// What it refers to exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// At least one pod is Ready.
pub const AVAILABLE: &str = "Available";
/// Nobody can go around the gateway.
pub const ISOLATED: &str = "Isolated";
/// The server said what it offers.
pub const DISCOVERED: &str = "Discovered";
/// Every Ready pod enforces this generation.
pub const PROGRAMMED: &str = "Programmed";
/// kstatus: it is on its way. There only when true.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: it does not go on without you. There only when true.
pub const STALLED: &str = "Stalled";

/// `status` of a condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Not known.
    Unknown,
}

impl Status {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as it is seen now.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// One of the types above.
    pub kind: &'static str,
    /// Whether it is so.
    pub status: Status,
    /// One of [`reason`], or what was kept.
    pub reason: Cow<'static, str>,
    /// What is so and what to do; may be empty where there is nothing to do.
    pub message: String,
    /// The generation of the object that was looked at.
    pub generation: i64,
}

impl Seen {
    /// A condition as it was, because nothing newer is known.
    pub fn kept(kind: &'static str, before: &Condition) -> Self {
        Self {
            kind,
            status: match before.status.as_str() {
                "True" => Status::True,
                "False" => Status::False,
                _ => Status::Unknown,
            },
            reason: before.reason.clone().into(),
            message: before.message.clone(),
            generation: before.observed_generation.unwrap_or_default(),
        }
    }
}

/// The conditions of an object after what was seen now, in the order of `seen`. What is not seen any more is gone.
///
/// Equal observations give equal conditions, times included: comparing the result with `before` tells whether there is
/// anything to write.
pub fn advance(before: &[Condition], seen: Vec<Seen>, now: Timestamp) -> Vec<Condition> {
    let follow = |seen: Seen| {
        let status = seen.status.as_str();
        let same = find(before, seen.kind).filter(|before| before.status == status);
        Condition {
            type_: seen.kind.to_owned(),
            status: status.to_owned(),
            reason: seen.reason.into_owned(),
            message: cut(&seen.message, MESSAGE_CHARACTERS),
            observed_generation: Some(seen.generation),
            last_transition_time: same.map_or_else(|| Time(seconds(now)), |before| before.last_transition_time.clone()),
        }
    };
    seen.into_iter().map(follow).collect()
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is true for this generation or a later one.
pub fn holds(conditions: &[Condition], kind: &str, generation: i64) -> bool {
    find(conditions, kind).is_some_and(|condition| {
        condition.status == "True" && condition.observed_generation.is_some_and(|observed| observed >= generation)
    })
}

/// Kubernetes keeps whole seconds: a fraction would differ from what is read back.
fn seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// The first `characters` of a text, with a sign where something was left out.
pub fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    text.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: Status, reason: &'static str, generation: i64) -> Seen {
        Seen { kind: READY, status, reason: reason.into(), message: "m".to_owned(), generation }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 5_000_000).unwrap()
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let first = advance(&[], vec![seen(Status::False, reason::PENDING, 1)], at(10));
        let other_reason = advance(&first, vec![seen(Status::False, reason::INVALID_GLOB, 2)], at(20));
        let turned = advance(&other_reason, vec![seen(Status::True, reason::READY, 2)], at(30));

        let times = [&first, &other_reason, &turned].map(|conditions| conditions[0].last_transition_time.0.as_second());
        assert_eq!(times, [10, 10, 30]);
        assert_eq!((other_reason[0].reason.as_str(), other_reason[0].observed_generation), ("InvalidGlob", Some(2)));
        assert_eq!(first[0].last_transition_time.0.subsec_nanosecond(), 0);
    }

    #[test]
    fn what_is_seen_again_changes_nothing() {
        let first = advance(&[], vec![seen(Status::True, reason::READY, 1)], at(10));

        assert_eq!(advance(&first, vec![seen(Status::True, reason::READY, 1)], at(99)), first);
    }

    #[test]
    fn what_is_not_seen_any_more_is_gone() {
        let first = advance(&[], vec![seen(Status::True, reason::READY, 1)], at(10));

        assert_eq!(advance(&first, Vec::new(), at(20)), []);
    }

    #[test]
    fn a_condition_of_an_older_generation_does_not_hold() {
        let conditions = advance(&[], vec![seen(Status::True, reason::READY, 3)], at(10));

        assert!(holds(&conditions, READY, 3));
        assert!(!holds(&conditions, READY, 4));
        assert!(!holds(&conditions, PROGRAMMED, 3));
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        let long = Seen { message: "ä".repeat(MESSAGE_CHARACTERS + 1), ..seen(Status::True, reason::READY, 1) };
        assert_eq!(advance(&[], vec![long], at(1))[0].message.chars().count(), MESSAGE_CHARACTERS);
    }

    /// Scripts and people look reasons up there.
    #[test]
    fn every_reason_and_type_is_documented() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
        let docs = read("docs/status.md");
        let source = read("src/api/conditions.rs") + &read("src/api/conditions/reason.rs");
        let words: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";"))
            .collect();
        assert!(words.len() > 60, "{}", words.len());
        for word in words {
            assert!(docs.contains(&format!("`{word}`")), "docs/status.md does not tell what `{word}` means");
        }
    }
}
