//! The conformance suite finds the same through the gateway, with policy on, as directly at the server.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::injector::Injector;
use crate::support::{Client, Folder, Server, Toolgate, tools};

/// How often a check ended how: (scenario, check, status) -> count.
type Findings = BTreeMap<(String, String, String), usize>;

/// Runs a requirement set against a URL.
async fn run(url: &str, requirements: &str) -> Findings {
    let out = tempfile::TempDir::new().expect("a temporary folder");
    let mut command = Command::new(tools::node());
    command.arg(tools::module("@modelcontextprotocol/conformance/dist/index.js"));
    command.args(["server", "--url", url, "--requirements", requirements, "-o"]).arg(out.path());
    // The exit code says whether scored scenarios passed; the findings say more.
    let output = command.kill_on_drop(true).output().await.expect("node starts");
    assert!(
        out.path().read_dir().is_ok_and(|mut it| it.next().is_some()),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    findings(out.path())
}

fn findings(out: &Path) -> Findings {
    let mut findings = Findings::new();
    for scenario in std::fs::read_dir(out).expect("the suite wrote results").flatten() {
        let name = scenario.file_name().to_string_lossy().into_owned();
        // `server-NAME-2026-11-24T14-31-40-554Z`
        let name = name
            .strip_prefix("server-")
            .and_then(|it| it.get(..it.len().saturating_sub(25)))
            .unwrap_or(&name)
            .to_owned();
        // A scenario that could not even connect has no checks.
        let Ok(text) = std::fs::read(scenario.path().join("checks.json")) else { continue };
        for check in serde_json::from_slice::<Vec<Value>>(&text).expect("checks are JSON") {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            *findings.entry((name.clone(), text("id"), text("status"))).or_default() += 1;
        }
    }
    findings
}

/// Scenarios without a failed check, and all.
fn passed(findings: &Findings) -> (usize, usize) {
    let mut scenarios: BTreeMap<&str, bool> = BTreeMap::new();
    for (scenario, _, status) in findings.keys() {
        *scenarios.entry(scenario).or_insert(true) &= status != "FAILURE" && status != "WARNING";
    }
    (scenarios.values().filter(|passed| **passed).count(), scenarios.len())
}

/// A gateway in front of the server: its tools declared, allowed by a role, its requests permitted.
async fn gateway(server: &Server) -> Toolgate {
    let names = Client::modern(&server.url, None).list("tools").await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let spec = json!({"serverRequests": {"sampling": "Allow", "roots": "Allow", "elicitation": "Form"}});
    Toolgate::start(Folder::new().remote_with("fixture", &server.url, spec).tools("fixture", &names).all_for_ada())
        .await
}

async fn same_through_the_gateway(requirements: &str, scenarios: usize) {
    let server = Server::start("fixture-conformance", &[]);
    let direct = run(&server.url, requirements).await;
    assert_eq!(passed(&direct), (scenarios, scenarios), "{direct:#?}");

    let toolgate = gateway(&server).await;
    let injector = Injector::start(&toolgate.url("fixture"), Some(toolgate.token("ada"))).await;
    let through = run(&injector.url, requirements).await;

    let only = |one: &Findings, other: &Findings| -> Vec<String> {
        let differs = |entry: &(&(String, String, String), &usize)| other.get(entry.0) != Some(entry.1);
        one.iter().filter(differs).map(|entry| format!("{entry:?}")).collect()
    };
    assert!(
        direct == through,
        "only direct: {:#?}\nonly through the gateway: {:#?}",
        only(&direct, &through),
        only(&through, &direct)
    );

    // What the listener itself refuses (a foreign Host) names no endpoint and so has no record; a client may leave
    // before it sees its answer.
    let (sent, statuses) = (injector.sent(), injector.statuses());
    let refused = statuses.get(&403).copied().unwrap_or(0);
    let answered = statuses.values().sum::<usize>() - refused;
    assert!(answered > scenarios, "{statuses:?}");
    let records =
        || toolgate.audit().iter().filter(|it| it["event"] == "request" && it["subject"] == "ada@example.com").count();
    crate::support::until("every request has its record", || (records() >= answered).then_some(())).await;
    assert!(records() <= sent - refused, "{} records of {sent} requests", records());

    // Without the token nothing is let in.
    let injector = Injector::start(&toolgate.url("fixture"), None).await;
    run(&injector.url, requirements).await;
    let statuses = injector.statuses();
    assert!(statuses.keys().all(|status| [401, 403].contains(status)), "{statuses:?}");
    assert!(statuses[&401] >= scenarios, "{statuses:?}");
}

#[tokio::test]
async fn the_2025_11_25_requirements_hold_alike_through_the_gateway() {
    same_through_the_gateway("2025-11-25", 33).await;
}

#[tokio::test]
async fn the_2026_07_28_requirements_hold_alike_through_the_gateway() {
    same_through_the_gateway("2026-07-28", 50).await;
}
