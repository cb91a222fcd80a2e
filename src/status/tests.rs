//! What is said when, and that nothing is said twice.

mod fixture;
mod others;
mod properties;

use serde_json::json;

use self::fixture::{Github, at, finding, offer, refusal, said};
use super::Waiting;
use crate::api::McpServerStatus;
use crate::api::conditions::{
    ACCEPTED, AVAILABLE, DISCOVERED, ISOLATED, PROGRAMMED, READY, RECONCILING, RESOLVED_REFS, STALLED, find, reason,
};
use crate::policy::Severity;
use crate::policy::version::Version;
use crate::policyserver::fleet::{Acked, Offer};

#[test]
fn a_server_that_is_well_says_so_in_every_condition() {
    let status = Github::well().status(at(10));

    let all: Vec<String> = status.conditions.iter().map(|c| format!("{} {}/{}", c.type_, c.status, c.reason)).collect();
    assert_eq!(
        all,
        [
            "Ready True/Ready",
            "Accepted True/Accepted",
            "ResolvedRefs True/Resolved",
            "Available True/Available",
            "Isolated True/Isolated",
            "Discovered True/Discovered",
            "Programmed True/Programmed",
        ]
    );
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(1)));
    assert_eq!((status.observed_generation, status.replicas), (Some(1), Some(2)));
    assert_eq!(status.address.unwrap().url, "https://github.agents.svc:8443/mcp");
    let tools = status.tools.unwrap();
    assert_eq!((tools.declared, tools.discovered), (1, Some(2)));
    assert_eq!(status.undeclared_tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["list"]);
    let enforcement = status.enforcement.unwrap();
    assert_eq!((enforcement.generation, enforcement.snapshot.as_str()), (1, "h1"));
    assert_eq!((enforcement.ready, enforcement.acknowledged), (2, 2));
    assert_eq!(status.server_info.unwrap().protocol_versions, ["2025-06-18", "2025-11-25"]);
}

#[test]
fn nothing_known_yet_is_unknown_and_reconciling() {
    let mut github = Github::well();
    github.judged = None;
    github.published = None;
    github.workload = None;
    github.reports.clear();
    let status = github.status(at(10));

    for kind in [READY, ACCEPTED, RESOLVED_REFS, AVAILABLE, PROGRAMMED] {
        assert_eq!(said(&status.conditions, kind), "Unknown/Pending", "{kind}");
    }
    assert_eq!(said(&status.conditions, ISOLATED), "Unknown/NoGateways");
    assert_eq!(said(&status.conditions, RECONCILING), "True/Pending");
    assert_eq!(status.enforcement, None);
}

#[test]
fn what_policy_found_names_the_field_and_stalls() {
    let mut github = Github::well();
    github.findings = vec![
        finding(Severity::Error, "/spec/podTemplate/spec/hostPID", reason::INVALID_POD_TEMPLATE),
        finding(Severity::Error, "/spec/gatewayRef/name", reason::GATEWAY_NOT_FOUND),
    ];
    let status = github.status(at(10));

    assert_eq!(said(&status.conditions, ACCEPTED), "False/InvalidPodTemplate");
    assert_eq!(said(&status.conditions, RESOLVED_REFS), "False/GatewayNotFound");
    assert_eq!(said(&status.conditions, READY), "False/InvalidPodTemplate");
    assert_eq!(said(&status.conditions, STALLED), "True/InvalidPodTemplate");
    assert_eq!(said(&status.conditions, RECONCILING), "-");
    let accepted = status.conditions.iter().find(|condition| condition.type_ == ACCEPTED).unwrap();
    assert_eq!(accepted.message, "/spec/podTemplate/spec/hostPID: m");

    github.findings = vec![finding(Severity::Warning, "/spec", reason::NO_DESCRIPTION); 5];
    let status = github.status(at(10));
    assert_eq!(said(&status.conditions, READY), "True/Ready", "a warning lowers nothing");
    assert!(status.conditions[1].message.ends_with("and 2 more"), "{}", status.conditions[1].message);
}

#[test]
fn a_policy_that_is_not_published_is_not_accepted_and_not_programmed() {
    let mut github = Github::well();
    github.refusal = Some(refusal(&[]));
    let status = github.status(at(10));

    for kind in [ACCEPTED, PROGRAMMED, READY] {
        assert_eq!(said(&status.conditions, kind), "False/SnapshotTooLarge", "{kind}");
    }
}

#[test]
fn while_a_generation_is_not_judged_the_one_before_keeps_its_word() {
    let mut github = Github::well();
    let before = github.settle(10);
    github.object.metadata.generation = Some(2);
    let status = github.status(at(20));

    for kind in [ACCEPTED, RESOLVED_REFS, PROGRAMMED, READY] {
        assert_eq!(said(&status.conditions, kind), said(&before.conditions, kind), "{kind}");
        let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        assert_eq!(condition.observed_generation, Some(1), "{kind} must not speak of what nobody has judged");
    }
    assert_eq!((status.observed_generation, said(&status.conditions, RECONCILING).as_str()), (Some(1), "True/Pending"));
}

#[test]
fn a_gateway_that_is_not_connected_makes_it_unknown_once_every_replica_told() {
    let mut github = Github::well();
    let before = github.settle(10);
    github.reports.remove(1);
    github.is_fleet_complete = false;
    assert_eq!(github.status(at(20)), before, "a new leader lowers nothing before it heard everybody");
    let heard = std::mem::take(&mut github.reports);
    assert_eq!(github.status(at(20)), before, "nor before it heard anybody");
    github.reports = heard;

    github.is_fleet_complete = true;
    let status = github.status(at(20));
    assert_eq!(said(&status.conditions, PROGRAMMED), "Unknown/GatewayDisconnected");
    assert_eq!(said(&status.conditions, ISOLATED), "Unknown/GatewayDisconnected");
    assert_eq!(said(&status.conditions, READY), "Unknown/GatewayDisconnected");
    let enforcement = status.enforcement.unwrap();
    assert_eq!((enforcement.ready, enforcement.acknowledged), (2, 1));
}

#[test]
fn no_ready_pod_is_no_gateway() {
    let mut github = Github::well();
    github.ready(&[]);

    assert_eq!(github.says(PROGRAMMED), "Unknown/NoGateways");
    assert_eq!(github.says(AVAILABLE), "False/PodsNotReady");
    assert_eq!(github.says(READY), "False/PodsNotReady");
    github.workload.as_mut().unwrap().wanted = 0;
    assert_eq!(github.says(READY), "False/ScaledToZero");
    github.workload.as_mut().unwrap().replicas = 0;
    github.workload.as_mut().unwrap().updated = 0;
    assert_eq!(github.says(RECONCILING), "-", "it is as it was asked for");
}

#[test]
fn a_server_that_takes_no_connection_is_told_in_the_words_of_its_gateway() {
    let mut github = Github::well();
    github.ready(&[]);
    let refused = Offer { error: Some("connection refused".to_owned()), ..Offer::default() };
    github.reports[1].catalogue = Some(refused.into());
    let status = github.status(at(10));

    assert_eq!(said(&status.conditions, DISCOVERED), "False/NoAnswer");
    let message = &status.conditions.iter().find(|condition| condition.type_ == DISCOVERED).unwrap().message;
    assert_eq!(message, "connection refused");
    github.reports.pop();
    assert_eq!(github.says(DISCOVERED), "Unknown/NoGateways", "what is known to answer has no fault");
}

#[test]
fn a_gateway_that_waits_for_a_rollout_is_told_and_holds_nothing_up() {
    let mut github = Github::well();
    let before = github.settle(10);
    github.is_update_waiting = true;
    let status = github.status(at(20));

    let of = |status: &McpServerStatus, kind| find(&status.conditions, kind).unwrap().clone();
    assert!(of(&status, AVAILABLE).message.contains("gatewayUpdate"), "{:?}", of(&status, AVAILABLE));
    assert!(!of(&before, AVAILABLE).message.contains("gatewayUpdate"));
    for kind in [AVAILABLE, READY, PROGRAMMED] {
        assert_eq!(said(&status.conditions, kind), said(&before.conditions, kind));
        assert_eq!(of(&status, kind).last_transition_time, of(&before, kind).last_transition_time);
    }
    assert_eq!(github.says(RECONCILING), "-");
}

#[test]
fn an_acknowledgement_counts_when_it_is_of_the_newest_policy() {
    let mut github = Github::well();
    github.settle(10);
    let mut github = github.edited();
    let waiting = github.status(at(20));
    assert_eq!(said(&waiting.conditions, PROGRAMMED), "True/Programmed");
    let programmed = waiting.conditions.iter().find(|condition| condition.type_ == PROGRAMMED).unwrap();
    assert_eq!(programmed.observed_generation, Some(1), "on its way: it still speaks of the generation before");
    assert_eq!(waiting.enforcement.unwrap().snapshot, "h1");

    github.are_acks_due = true;
    let late = github.status(at(30));
    assert_eq!(said(&late.conditions, PROGRAMMED), "False/NotAcknowledged");
    assert_eq!(late.enforcement.unwrap().acknowledged, 0);

    github.acknowledge("h2");
    let done = github.status(at(40));
    let programmed = done.conditions.iter().find(|condition| condition.type_ == PROGRAMMED).unwrap();
    assert_eq!((programmed.status.as_str(), programmed.observed_generation), ("True", Some(2)));
}

#[test]
fn gateways_that_are_ahead_of_this_replica_are_not_called_late() {
    let seen = |role: u64| Version { epoch: 1, seen: [("McpRole".to_owned(), role)].into() };
    let mut github = Github::well();
    let before = github.settle(10);
    // The others have seen an edit of a role, and told the gateways.
    for report in &mut github.reports {
        report.acked = Some(Acked { version: seen(7), hash: "h2".to_owned() });
    }
    assert_eq!(github.status(at(20)), before);

    // Now it is here as well, with another one that the gateways do not have.
    let published = github.published.as_mut().unwrap();
    (published.version, published.hash) = (seen(8).into(), "h3".to_owned());
    assert_eq!(said(&github.status(at(30)).conditions, PROGRAMMED), "False/NotAcknowledged");
}

#[test]
fn another_policy_of_the_same_generation_writes_once() {
    let mut github = Github::well();
    let before = github.settle(10);
    // A role was edited: the policy changes, the server does not.
    github.published.as_mut().unwrap().hash = "h2".to_owned();
    github.are_acks_due = false;
    assert_eq!(github.status(at(20)), before);

    github.acknowledge("h2");
    let after = github.status(at(21));
    assert_eq!(after.conditions, before.conditions);
    assert_eq!(after.enforcement.unwrap().snapshot, "h2");
}

#[test]
fn a_gateway_that_refuses_is_named() {
    let mut github = Github::well();
    github.reports[1].refused = Some("format 2 is not 1".to_owned());
    let status = github.status(at(10));

    assert_eq!(said(&status.conditions, PROGRAMMED), "False/GatewayRefused");
    let message = &status.conditions.iter().find(|condition| condition.type_ == PROGRAMMED).unwrap().message;
    assert!(message.contains("pod b") && message.contains("format 2 is not 1"), "{message}");
}

#[test]
fn a_server_that_can_be_reached_around_its_gateway_is_not_ready() {
    let mut github = Github::well();
    github.reports[0].is_isolated = Some(false);
    assert_eq!((github.says(ISOLATED), github.says(READY)), both("False/ReachableAroundGateway"));

    github.ready(&["b"]);
    assert_eq!(github.says(ISOLATED), "False/ReachableAroundGateway", "a pod that is not Ready can be reached too");

    github.reports[0].is_isolated = None;
    github.ready(&["a", "b"]);
    assert_eq!((github.says(ISOLATED), github.says(READY)), both("Unknown/NotSeen"));

    github.reports[0].is_isolated = Some(false);
    let github = github.with_spec(&json!({"sandbox": {"isolation": "NetworkPolicy"}}));
    assert_eq!(github.says(ISOLATED), "True/ByNetworkPolicy");
    assert_eq!(github.says(READY), "True/Ready");
}

fn both(said: &str) -> (String, String) {
    (said.to_owned(), said.to_owned())
}

#[test]
fn a_server_elsewhere_is_ready_though_nobody_can_look_there() {
    let mut github = Github::well().with_spec(&json!({"source": {"remote": {"url": "https://a"}}}));
    for report in &mut github.reports {
        report.is_isolated = None;
    }

    assert_eq!((github.says(ISOLATED).as_str(), github.says(READY).as_str()), ("Unknown/NotInThePod", "True/Ready"));
}

#[test]
fn ready_needs_something_to_use() {
    let mut github = Github::well();
    github.declared = vec![("write".to_owned(), true)];
    assert_eq!(github.says(READY), "False/NothingOffered", "the declared tool is not offered");
    github.declared = vec![("read".to_owned(), false)];
    assert_eq!(github.says(READY), "False/NothingOffered", "the declared tool is disabled");
    github.declared = Vec::new();
    assert_eq!(github.says(READY), "True/NoToolsDeclared");

    let prompts = Offer { prompts: 1, ..Offer::clone(&offer(&[])) };
    github.declared = vec![("write".to_owned(), true)];
    for report in &mut github.reports {
        report.catalogue = Some(prompts.clone().into());
    }
    assert_eq!(github.says(READY), "True/Ready", "a prompt is something to use");

    let mut auto = Github::well().with_spec(&json!({"registration": "Auto"}));
    auto.declared = vec![("read".to_owned(), false)];
    assert_eq!(auto.says(READY), "True/Ready", "an undeclared tool can be used");
    auto.declared.push(("list".to_owned(), false));
    assert_eq!(auto.says(READY), "False/NothingOffered", "every offered tool is disabled");
}

#[test]
fn a_server_that_does_not_answer_is_not_ready() {
    let mut github = Github::well();
    for report in &mut github.reports {
        report.catalogue = Some(Offer { error: Some("refused".to_owned()), ..Offer::default() }.into());
    }
    assert_eq!((github.says(DISCOVERED), github.says(READY)), both("False/NoAnswer"));
    github.declared.clear();
    assert_eq!(github.says(READY), "False/NoAnswer", "that no tool is declared does not make it answer");

    for report in &mut github.reports {
        report.catalogue = Some(Offer { error: Some("timeout".to_owned()), ..Offer::clone(&offer(&["read"])) }.into());
    }
    github.declared = vec![("read".to_owned(), true)];
    assert_eq!((github.says(DISCOVERED).as_str(), github.says(READY).as_str()), ("False/Incomplete", "True/Ready"));
}

#[test]
fn what_keeps_pods_from_running_is_told_once() {
    let mut github = Github::well();
    github.ready(&[]);
    github.reports.clear();
    let wait = |github: &mut Github, reason: &str, message: &str, second| {
        let waiting = Waiting { reason: reason.to_owned(), message: message.to_owned() };
        github.workload.as_mut().unwrap().waiting = Some(waiting);
        github.settle(second)
    };
    let first = wait(&mut github, "ErrImagePull", "not found", 10);
    assert_eq!(said(&first.conditions, AVAILABLE), "False/ImagePullFailed");
    assert_eq!(said(&first.conditions, READY), "False/ImagePullFailed");
    let again = wait(&mut github, "ImagePullBackOff", "Back-off pulling image", 20);
    assert_eq!(again, first, "each attempt is worded anew");
    github.workload.as_mut().unwrap().waiting = None;
    assert_eq!(github.settle(30), first, "between two attempts nothing waits");
    let crashed = wait(&mut github, "CrashLoopBackOff", "back-off 10s", 40);
    assert_eq!(said(&crashed.conditions, AVAILABLE), "False/CrashLooping");

    github.object.metadata.generation = Some(2);
    github.judged = Some(2);
    github.workload.as_mut().unwrap().waiting = None;
    assert_eq!(github.says(AVAILABLE), "False/PodsNotReady", "another generation is another try");
}

#[test]
fn what_a_server_says_of_itself_is_cut_and_kept() {
    let mut github = Github::well();
    let names: Vec<String> = (0..100).map(|number| format!("t{number:03}")).collect();
    let mut long = Offer::clone(&offer(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    long.name = "n".repeat(10_000);
    long.protocol_versions = (0..100).map(|number| format!("v{number:03}")).collect();
    for report in &mut github.reports {
        report.catalogue = Some(long.clone().into());
    }
    let status = github.settle(10);
    let info = status.server_info.clone().unwrap();
    assert_eq!((info.name.chars().count(), info.protocol_versions.len()), (256, 16));
    assert_eq!(info.protocol_versions[15], "v099", "the newest");
    assert_eq!(status.undeclared_tools.len(), 64);

    github.reports.clear();
    let gone = github.status(at(20));
    assert_eq!((gone.server_info, gone.undeclared_tools), (status.server_info, status.undeclared_tools));
    assert_eq!(said(&gone.conditions, DISCOVERED), "Unknown/GatewayDisconnected");
}
