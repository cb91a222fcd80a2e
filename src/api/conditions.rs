//! Conditions: their types, their reasons, and how one follows from the one before.
//!
//! A condition is an observation, not a state of a machine. `lastTransitionTime` moves only with `status`, so that an
//! unchanged observation gives an unchanged object, which is not written. Each condition says which generation it
//! speaks of. Reasons are API: scripts and alerts read them. Each says here what to do about it.

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

/// Why a condition is what it is, in one word, and what to do.
pub mod reason {
    /// Nothing to do.
    pub const READY: &str = "Ready";
    /// Nothing to do.
    pub const ACCEPTED: &str = "Accepted";
    /// Nothing to do.
    pub const RESOLVED: &str = "Resolved";
    /// Nothing to do.
    pub const AVAILABLE: &str = "Available";
    /// Nothing to do.
    pub const ISOLATED: &str = "Isolated";
    /// Nothing to do.
    pub const DISCOVERED: &str = "Discovered";
    /// Nothing to do.
    pub const PROGRAMMED: &str = "Programmed";
    /// Nothing to do: the operator has not judged this generation yet. If it stays, look at the operator's log.
    pub const PENDING: &str = "Pending";

    /// A field has a value that cannot be honoured: the message names it. Correct it.
    pub const INVALID: &str = "Invalid";
    /// Two objects claim the same name. Remove or rename one; until then the older one is in force.
    pub const CONFLICTED: &str = "Conflicted";
    /// A glob, condition or time window of a rule cannot be read, so the rule grants nothing. Correct it.
    pub const INVALID_EXPRESSION: &str = "InvalidExpression";
    /// A subject of a role is not complete, so it means nobody. Add what the message names.
    pub const INVALID_SUBJECT: &str = "InvalidSubject";
    /// A key set cannot be read, so no token of this issuer is accepted. Paste the JWK set as JSON, public keys only.
    pub const INVALID_KEYS: &str = "InvalidKeys";
    /// `podTemplate` touches what belongs to the gateway, or is no pod template. Remove what the message names.
    pub const INVALID_POD_TEMPLATE: &str = "InvalidPodTemplate";
    /// Roles inherit each other in a circle and grant nothing. Remove one of the lines.
    pub const INHERITANCE_CYCLE: &str = "InheritanceCycle";
    /// A subject names no issuer and the namespace has several. Set `issuer`.
    pub const ISSUER_REQUIRED: &str = "IssuerRequired";
    /// The policy of the server is larger than what a gateway can be given; the last good one stays in force. Declare
    /// fewer tools, roles or rules for it, or split the server.
    pub const SNAPSHOT_TOO_LARGE: &str = "SnapshotTooLarge";
    /// The policy of the server cannot be loaded; the last good one stays in force. Correct what the message names.
    pub const SNAPSHOT_REFUSED: &str = "SnapshotRefused";

    /// The McpServer does not exist in this namespace. Create it, or correct the name.
    pub const SERVER_NOT_FOUND: &str = "ServerNotFound";
    /// The McpGateway does not exist in this namespace, so no token is accepted. Create it, or correct the name.
    pub const GATEWAY_NOT_FOUND: &str = "GatewayNotFound";
    /// The McpRole does not exist in this namespace. Create it, or correct the name.
    pub const ROLE_NOT_FOUND: &str = "RoleNotFound";
    /// The McpTool does not exist in this namespace. Create it, or correct the name.
    pub const TOOL_NOT_FOUND: &str = "ToolNotFound";
    /// No McpGateway of this namespace lists the issuer, so the subject means nobody. Add the issuer.
    pub const ISSUER_NOT_FOUND: &str = "IssuerNotFound";
    /// The ConfigMap, or the key in it, does not exist in this namespace. Create it, or correct the name.
    pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
    /// The Service, or its port, does not exist in this namespace. Create it, or correct the name.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// The RuntimeClass does not exist. Install it, or correct the name.
    pub const RUNTIME_CLASS_NOT_FOUND: &str = "RuntimeClassNotFound";

    /// No pod is Ready yet. If it stays, look at the pods and at the quota of the namespace.
    pub const PODS_NOT_READY: &str = "PodsNotReady";
    /// `replicas` is 0, so nothing runs. Scale it up.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// The image cannot be pulled. Correct `image`, or add `imagePullSecrets` in `podTemplate`.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// The server's process ends again and again. Look at its log: `kubectl logs -c server`.
    pub const CRASH_LOOPING: &str = "CrashLooping";
    /// A container cannot be made: the message says why. Correct what it names.
    pub const CONTAINER_FAILED: &str = "ContainerFailed";
    /// Kubernetes refuses the pods, for a quota or a policy. The message says which.
    pub const PODS_REFUSED: &str = "PodsRefused";
    /// No node can take the pods. The message says why.
    pub const UNSCHEDULABLE: &str = "Unschedulable";

    /// The server's port answers on the pod's address, so callers could go around the gateway. Let the server listen on
    /// localhost, or set `sandbox.isolation: NetworkPolicy`.
    pub const REACHABLE_AROUND_GATEWAY: &str = "ReachableAroundGateway";
    /// Nothing to do: a NetworkPolicy is the barrier, as `sandbox.isolation` asks for.
    pub const BY_NETWORK_POLICY: &str = "ByNetworkPolicy";
    /// The server runs where Toolgate cannot look. Admit only the gateway's pods there.
    pub const NOT_IN_THE_POD: &str = "NotInThePod";
    /// No gateway has looked yet. If it stays, look at `Programmed`.
    pub const NOT_SEEN: &str = "NotSeen";

    /// The server did not answer, or not with what MCP asks for: the message says what. Look at its log.
    pub const NO_ANSWER: &str = "NoAnswer";
    /// The server's list is not complete: the message says why.
    pub const INCOMPLETE: &str = "Incomplete";

    /// No pod of the server is Ready, so nothing enforces anything and nothing answers. Look at `Available`.
    pub const NO_GATEWAYS: &str = "NoGateways";
    /// A Ready pod is not connected to the operator. It enforces what it had last. If it stays, look at the log of the
    /// container `toolgate-gateway`.
    pub const GATEWAY_DISCONNECTED: &str = "GatewayDisconnected";
    /// A Ready pod does not enforce the newest policy yet. If it stays, look at the log of its `toolgate-gateway`.
    pub const NOT_ACKNOWLEDGED: &str = "NotAcknowledged";
    /// A gateway refuses the newest policy, and enforces the last good one. Its version is probably older than the
    /// operator's: restart the server's pods, or set `gatewayUpdate: Rolling`.
    pub const GATEWAY_REFUSED: &str = "GatewayRefused";
    /// No McpServer is concerned, so there is nothing to enforce.
    pub const NO_SERVERS: &str = "NoServers";

    /// Ready, but no tool is declared under `registration: Declared`, so callers see none. Add McpTools, which
    /// `status.undeclaredTools` helps to write.
    pub const NO_TOOLS_DECLARED: &str = "NoToolsDeclared";
    /// The server offers nothing that callers could use: no declared tool, no prompt, no resource.
    pub const NOTHING_OFFERED: &str = "NothingOffered";
    /// The server does not offer the tool. Correct `toolName`, or update the server.
    pub const NOT_OFFERED: &str = "NotOffered";
    /// `lifecycle` is `Disabled`, or `sunsetTime` has passed: to callers the tool does not exist.
    pub const DISABLED: &str = "Disabled";
    /// The server of the tool is not Ready. Look at the McpServer.
    pub const SERVER_NOT_READY: &str = "ServerNotReady";
}

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
    /// One of [`reason`].
    pub reason: &'static str,
    /// What is so and what to do; may be empty where there is nothing to do.
    pub message: String,
    /// The generation of the object that was looked at.
    pub generation: i64,
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
            reason: seen.reason.to_owned(),
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
        Seen { kind: READY, status, reason, message: "m".to_owned(), generation }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 5_000_000).unwrap()
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        let first = advance(&[], vec![seen(Status::False, reason::PENDING, 1)], at(10));
        let other_reason = advance(&first, vec![seen(Status::False, reason::INVALID, 2)], at(20));
        let turned = advance(&other_reason, vec![seen(Status::True, reason::READY, 2)], at(30));

        let times = [&first, &other_reason, &turned].map(|conditions| conditions[0].last_transition_time.0.as_second());
        assert_eq!(times, [10, 10, 30]);
        assert_eq!((other_reason[0].reason.as_str(), other_reason[0].observed_generation), ("Invalid", Some(2)));
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
}
