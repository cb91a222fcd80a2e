//! McpTools, McpRoles and McpGateways.

use std::collections::BTreeSet;

use serde_json::json;

use super::fixture::{Github, at, finding, offer, published, refusal, report, role, said, tool};
use crate::api::conditions::{ACCEPTED, PROGRAMMED, READY, STALLED, reason};
use crate::api::{McpGateway, McpRoleStatus, McpTool, McpToolStatus};
use crate::policy::{Finding, Severity};
use crate::policyserver::index::Reach;
use crate::status::{GatewayFacts, RoleFacts, ServerView, ToolFacts, Verdict};

fn status_of(tool: &McpTool, github: &mut Github, findings: &[Finding]) -> McpToolStatus {
    let conditions = github.settle(10).conditions;
    github.enforcing(|enforcing| {
        let server = Some(ServerView { enforcing, conditions: &conditions });
        let facts = ToolFacts { object: tool, verdict: Verdict { judged: Some(1), findings }, server };
        crate::status::tool(&facts, at(10))
    })
}

#[test]
fn a_tool_that_is_offered_and_enforced_is_ready() {
    let status = status_of(&tool(&json!({})), &mut Github::well(), &[]);

    assert_eq!(said(&status.conditions, READY), "True/Ready");
    assert_eq!(said(&status.conditions, PROGRAMMED), "True/Programmed");
    assert_eq!(status.observed_digest.as_deref(), Some("sha256:read"));
}

#[test]
fn a_tool_tells_what_it_lacks() {
    let well = Github::well;
    let read = tool(&json!({}));
    let ready = |tool: &McpTool, github: &mut Github, findings: &[Finding]| {
        said(&status_of(tool, github, findings).conditions, READY)
    };
    let missing = tool(&json!({"toolName": "write"}));
    assert_eq!(ready(&missing, &mut well(), &[]), "False/NotOffered");
    assert_eq!(ready(&tool(&json!({"lifecycle": "Disabled"})), &mut well(), &[]), "False/Disabled");
    let sunset = |time: &str| tool(&json!({"lifecycle": "Deprecated", "deprecation": {"sunsetTime": time}}));
    assert_eq!(ready(&sunset("1970-01-01T00:00:05Z"), &mut well(), &[]), "False/Disabled");
    assert_eq!(ready(&sunset("1970-01-01T00:00:50Z"), &mut well(), &[]), "True/Ready");

    let mut open = well();
    open.reports[0].is_isolated = Some(false);
    assert_eq!(ready(&read, &mut open, &[]), "False/ServerNotReady");

    let mut silent = well();
    for report in &mut silent.reports {
        report.catalogue = None;
    }
    assert_eq!(ready(&read, &mut silent, &[]), "Unknown/NotSeen");

    let mut elsewhere = well();
    elsewhere.published = Some(published("github", "h1", &[("McpServer", "github", 1)]));
    assert_eq!(ready(&read, &mut elsewhere, &[]), "Unknown/Pending", "no policy holds the tool yet");

    let conflict = [finding(Severity::Error, "/spec/toolName", reason::CONFLICTED)];
    let status = status_of(&read, &mut well(), &conflict);
    assert_eq!(said(&status.conditions, ACCEPTED), "False/Conflicted");
    assert_eq!(said(&status.conditions, PROGRAMMED), "False/NotAccepted");
    assert_eq!(said(&status.conditions, STALLED), "True/Conflicted");
}

#[test]
fn a_tool_without_server_names_it() {
    let findings = [finding(Severity::Error, "/spec/serverRef/name", reason::SERVER_NOT_FOUND)];
    let verdict = Verdict { judged: Some(1), findings: &findings };
    let status = crate::status::tool(&ToolFacts { object: &tool(&json!({})), verdict, server: None }, at(10));

    assert_eq!(said(&status.conditions, READY), "False/ServerNotFound");
    assert_eq!(status.observed_digest, None);
}

#[test]
fn the_digest_stays_while_nothing_is_known_and_goes_when_the_tool_is_gone() {
    let mut read = tool(&json!({}));
    let mut github = Github::well();
    read.status = Some(status_of(&read, &mut github, &[]));
    for report in &mut github.reports {
        report.catalogue = None;
    }
    assert_eq!(status_of(&read, &mut github, &[]).observed_digest.as_deref(), Some("sha256:read"));
    for report in &mut github.reports {
        report.catalogue = Some(offer(&["list"]));
    }
    assert_eq!(status_of(&read, &mut github, &[]).observed_digest, None);
}

/// A server that is about the role `viewer` and the gateway `default` in this generation.
fn with_role(generation: i64) -> Github {
    let inputs = [("McpServer", "github", 1), ("McpRole", "viewer", generation), ("McpGateway", "default", generation)];
    let mut github = Github::well();
    github.published = Some(published("github", "h1", &inputs));
    github
}

fn role_status(servers: &[&Github], before: Option<McpRoleStatus>, generation: i64) -> McpRoleStatus {
    let mut viewer = role();
    viewer.metadata.generation = Some(generation);
    viewer.status = before;
    let none = BTreeSet::new();
    let reports: Vec<Vec<_>> =
        servers.iter().map(|server| server.reports.iter().cloned().map(std::sync::Arc::new).collect()).collect();
    let enforcing: Vec<_> = servers
        .iter()
        .zip(&reports)
        .map(|(server, reports)| crate::status::Enforcing {
            published: server.published.as_ref(),
            refusal: server.refusal.as_ref(),
            ready: server.workload.as_ref().map_or(&none, |workload| &workload.ready),
            reports,
            is_fleet_complete: server.is_fleet_complete,
            are_acks_due: server.are_acks_due,
        })
        .collect();
    let facts = RoleFacts {
        object: &viewer,
        verdict: Verdict { judged: Some(generation), findings: &[] },
        servers: &enforcing,
        reach: Some(Reach { tools: 3, servers: servers.len() }),
    };
    crate::status::role(&facts, at(10))
}

#[test]
fn a_role_is_programmed_when_every_server_that_it_is_about_enforces_it() {
    let (one, two) = (with_role(1), with_role(1));
    let status = role_status(&[&one, &two], None, 1);
    assert_eq!(said(&status.conditions, READY), "True/Ready");
    assert_eq!(status.effective.map(|effective| (effective.tools, effective.servers)), Some((3, 2)));

    let mut late = with_role(1);
    late.reports[0] = report("a", "h0");
    assert_eq!(said(&role_status(&[&one, &late], None, 1).conditions, PROGRAMMED), "False/NotAcknowledged");
    let mut silent = with_role(1);
    silent.reports.pop();
    assert_eq!(said(&role_status(&[&one, &silent], None, 1).conditions, PROGRAMMED), "Unknown/GatewayDisconnected");
    let mut refused = with_role(1);
    refused.reports[0].refused = Some("no".to_owned());
    assert_eq!(said(&role_status(&[&silent, &refused], None, 1).conditions, PROGRAMMED), "False/GatewayRefused");
    let mut stopped = with_role(1);
    stopped.ready(&[]);
    assert_eq!(said(&role_status(&[&one, &stopped], None, 1).conditions, PROGRAMMED), "True/Programmed");
    assert_eq!(said(&role_status(&[&stopped], None, 1).conditions, PROGRAMMED), "Unknown/NoGateways");
    assert_eq!(said(&role_status(&[&Github::well()], None, 1).conditions, PROGRAMMED), "True/NoServers");
}

#[test]
fn the_order_of_servers_changes_nothing_in_what_a_role_says() {
    let (mut one, mut two) = (with_role(1), with_role(1));
    one.reports[0].refused = Some("x".to_owned());
    two.reports[1].refused = Some("y".to_owned());
    assert_eq!(role_status(&[&one, &two], None, 1), role_status(&[&two, &one], None, 1));
    one.reports.clear();
    two.reports.clear();
    assert_eq!(role_status(&[&one, &two], None, 1), role_status(&[&two, &one], None, 1));
}

#[test]
fn a_right_that_was_taken_away_is_not_done_before_it_is_acknowledged() {
    let before = role_status(&[&with_role(1)], None, 1);
    // The role is no longer about the server, whose gateways still enforce the policy before.
    let mut github = Github::well();
    github.published = Some(published("github", "h2", &[("McpServer", "github", 1)]));
    github.are_acks_due = false;
    let waiting = role_status(&[&github], Some(before.clone()), 2);
    let programmed = waiting.conditions.iter().find(|condition| condition.type_ == PROGRAMMED).unwrap();
    assert_eq!(programmed.observed_generation, Some(1));

    github.acknowledge("h2");
    let done = role_status(&[&github], Some(before), 2);
    assert_eq!(said(&done.conditions, PROGRAMMED), "True/NoServers");
}

#[test]
fn an_older_generation_in_force_is_not_this_one() {
    let mut refused = with_role(1);
    refused.refusal = Some(refusal(&[]));
    assert_eq!(said(&role_status(&[&refused], None, 2).conditions, PROGRAMMED), "False/SnapshotTooLarge");
    assert_eq!(said(&role_status(&[&with_role(1)], None, 2).conditions, PROGRAMMED), "Unknown/Pending");
}

/// A new role is in no policy in force: only the one that was refused tells what it is about.
#[test]
fn a_new_role_is_not_programmed_where_the_policy_with_it_is_refused() {
    let mut refused = Github::well();
    refused.refusal = Some(refusal(&[("McpRole", "viewer", 1), ("McpServer", "github", 1)]));
    let status = role_status(&[&with_role(1), &refused], None, 1);
    assert_eq!(said(&status.conditions, PROGRAMMED), "False/SnapshotTooLarge");

    refused.refusal = Some(refusal(&[("McpServer", "github", 1)]));
    let status = role_status(&[&with_role(1), &refused], None, 1);
    assert_eq!(said(&status.conditions, PROGRAMMED), "True/Programmed", "it is about other servers");
}

#[test]
fn a_gateway_counts_who_trusts_it() {
    let mut object = McpGateway::new("default", serde_json::from_value(json!({})).unwrap());
    object.metadata.generation = Some(1);
    let github = with_role(1);
    let status = github.enforcing(|enforcing| {
        let verdict = Verdict { judged: Some(1), findings: &[] };
        crate::status::gateway(&GatewayFacts { object: &object, verdict, servers: &[enforcing], referring: 1 }, at(10))
    });

    assert_eq!(said(&status.conditions, READY), "True/Ready");
    assert_eq!(status.servers.unwrap().referring, 1);
}
