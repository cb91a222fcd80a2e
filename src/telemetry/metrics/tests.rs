//! What a scrape shows.

use super::super::series::TOOL_SERIES;
use super::*;
use std::time::Duration;

const MS: Duration = Duration::from_millis(3);

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|found| found == line)
}

fn tool_series(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("mcp_tool_")).count()
}

#[test]
fn a_call_is_counted_with_tool_status_and_role() {
    let metrics = Metrics::new();
    let server = metrics.server("default", "files");
    server.tool("write", Some("editor")).record(Outcome::Ok, MS);
    server.tool("write", Some("editor")).record(Outcome::Ok, MS);
    server.tool("write", None).record(Outcome::Denied, MS);

    let text = metrics.render();
    let labels = "server=\"files\",server_namespace=\"default\"";
    for line in [
        format!("mcp_tool_requests_total{{{labels},status=\"ok\",tool=\"write\",user_role=\"editor\"}} 2"),
        format!("mcp_tool_requests_total{{{labels},status=\"denied\",tool=\"write\",user_role=\"none\"}} 1"),
        format!("mcp_tool_duration_seconds_count{{{labels},tool=\"write\"}} 3"),
        format!("mcp_tool_duration_seconds_bucket{{{labels},tool=\"write\",le=\"0.0025\"}} 0"),
        format!("mcp_tool_duration_seconds_bucket{{{labels},tool=\"write\",le=\"0.005\"}} 3"),
        format!("mcp_active_requests{{{labels}}} 0"),
    ] {
        assert!(has(&text, &line), "{line}\n{text}");
    }
}

#[test]
fn series_of_removed_tools_and_roles_go_and_stay_away() {
    let metrics = Metrics::new();
    let server = metrics.server("default", "files");
    let kept = server.tool("read", Some("viewer"));
    let gone = [server.tool("write", Some("viewer")), server.tool("read", Some("editor"))];
    for tool in gone.iter().chain([&kept]) {
        tool.record(Outcome::Ok, MS);
    }
    let before = metrics.tools.used();

    server.retain(|tool| tool == "read", |role| role == "viewer");
    for tool in &gone {
        tool.record(Outcome::Ok, MS);
        tool.record(Outcome::Error, MS);
    }
    kept.record(Outcome::Error, MS);

    let text = metrics.render();
    assert!(!text.contains("tool=\"write\"") && !text.contains("editor"), "{text}");
    assert!(text.contains("status=\"error\",tool=\"read\",user_role=\"viewer\""), "{text}");
    assert_eq!(metrics.tools.used(), before - 17 - 2 + 1);
}

#[test]
fn a_removed_server_leaves_no_series() {
    let metrics = Metrics::new();
    let server = metrics.server("default", "files");
    server.tool("read", None).record(Outcome::Ok, MS);
    server.upstream_error("timeout");
    server.children_ended(1);
    server.policy_loaded("sha256:1", jiff::Timestamp::UNIX_EPOCH);
    server.policy_failed();
    assert!(metrics.render().contains("files"));

    metrics.remove_server("default", "files");
    let text = metrics.render();
    assert!(!text.contains("files"), "{text}");
}

#[test]
fn tools_beyond_the_budget_are_counted_as_other() {
    let metrics = Metrics::new();
    for n in 0..40 {
        let server = metrics.server("default", &format!("server-{n}"));
        for tool in 0..10 {
            for outcome in Outcome::ALL {
                server.tool(&format!("tool-{tool}"), Some("role")).record(outcome, MS);
            }
        }
    }

    let text = metrics.render();
    let series = tool_series(&text);
    assert!(series <= TOOL_SERIES, "{series}");
    let counted: u64 = text
        .lines()
        .filter(|line| line.starts_with("mcp_tool_requests_total"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(counted, 40 * 10 * 9, "a call was lost");
    assert!(text.contains("server=\"_OTHER\",server_namespace=\"_OTHER\",status=\"ok\",tool=\"_OTHER\""), "{text}");

    for n in 0..40 {
        metrics.remove_server("default", &format!("server-{n}"));
    }
    assert_eq!(tool_series(&metrics.render()), 17 + 9, "only the last resort is left");
    metrics.server("default", "new").tool("t", None).record(Outcome::Ok, MS);
    assert!(metrics.render().contains("server=\"new\""), "the budget came back");
}

#[test]
fn only_the_policy_in_force_is_shown() {
    let metrics = Metrics::new();
    let server = metrics.server("default", "files");
    server.policy_loaded("sha256:1", jiff::Timestamp::UNIX_EPOCH);
    server.policy_loaded("sha256:2", jiff::Timestamp::from_second(7).unwrap());
    let text = metrics.render();
    assert!(!text.contains("sha256:1") && text.contains("snapshot=\"sha256:2\"} 1"), "{text}");
    assert!(text.contains("toolgate_policy_loaded_timestamp_seconds{server=\"files\",server_namespace=\"default\"} 7"));
}

#[test]
fn messages_refusals_and_gauges_show() {
    let metrics = Metrics::new();
    metrics.request(Some(Class::Tool), Outcome::Ok);
    metrics.request(None, Outcome::Invalid);
    metrics.auth_refused("expired");
    let held = metrics.server("default", "files").active.hold();

    let text = metrics.render();
    assert!(has(&text, "toolgate_requests_total{class=\"tool\",outcome=\"ok\"} 1"), "{text}");
    assert!(has(&text, "toolgate_requests_total{class=\"none\",outcome=\"invalid\"} 1"), "{text}");
    assert!(has(&text, "toolgate_auth_refusals_total{reason=\"expired\"} 1"), "{text}");
    assert!(text.contains("mcp_active_requests{server=\"files\",server_namespace=\"default\"} 1"), "{text}");
    drop(held);
    assert!(metrics.render().contains("mcp_active_requests{server=\"files\",server_namespace=\"default\"} 0"));
}

#[tokio::test]
async fn the_audit_log_and_the_process_show() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(&crate::gateway::audit::Sink::File(folder.path().join("a"))).unwrap();
    let metrics = Metrics::new();
    metrics.watch_audit(audit.clone());
    let _slot = audit.reserve().await.unwrap();

    let text = metrics.render();
    assert!(has(&text, "toolgate_audit_slots 1"), "{text}");
    let memory = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
    assert!(memory.parse::<u64>().unwrap() > 1 << 20, "{memory}");
    let files = text.lines().find_map(|line| line.strip_prefix("process_open_fds ")).unwrap();
    assert!(files.parse::<u64>().unwrap() >= 3, "{files}");
}

#[test]
fn every_name_is_in_the_table_above_and_carries_a_prefix() {
    let source = include_str!("../metrics.rs");
    let table: String = source.lines().take_while(|line| line.starts_with("//!")).collect();
    let metrics = Metrics::new();
    let server = metrics.server("n", "s");
    server.tool("t", None).record(Outcome::Ok, MS);
    server.upstream_error("x");
    server.policy_loaded("h", jiff::Timestamp::UNIX_EPOCH);
    metrics.request(None, Outcome::Ok);
    metrics.auth_refused("x");
    for line in metrics.render().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(table.contains(&format!("`{name}`")), "{name} is not documented");
        assert!(["mcp_", "toolgate_", "process_"].iter().any(|prefix| name.starts_with(prefix)), "{name}");
    }
}
