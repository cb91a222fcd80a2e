//! A server with its policy, pods and gateways, in the state that each test wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::api::conditions::{find, reason};
use crate::api::{McpRole, McpServer, McpServerStatus, McpTool};
use crate::policy::snapshot::{Input, Target};
use crate::policy::version::Version;
use crate::policy::{Finding, ObjectRef, Severity};
use crate::policyserver::fleet::{Acked, Offer, OfferedTool, Report};
use crate::policyserver::index::{Published, Refusal};
use crate::status::{Declared, Enforcing, ServerFacts, Verdict, Workload, server};

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `True/Ready`, or `-` where there is none.
pub(super) fn said(conditions: &[Condition], kind: &str) -> String {
    find(conditions, kind).map_or_else(|| "-".to_owned(), |found| format!("{}/{}", found.status, found.reason))
}

pub(super) fn finding(severity: Severity, pointer: &str, reason: &'static str) -> Finding {
    let object = ObjectRef { kind: "McpServer".to_owned(), namespace: "agents".to_owned(), name: "github".to_owned() };
    Finding { object, pointer: pointer.to_owned(), severity, reason, message: "m".to_owned() }
}

pub(super) fn offer(tools: &[&str]) -> Arc<Offer> {
    let tool = |name: &&str| OfferedTool { name: (*name).to_owned(), digest: format!("sha256:{name}") };
    Arc::new(Offer {
        name: "github".to_owned(),
        version: "1".to_owned(),
        protocol_versions: vec!["2025-06-18".to_owned(), "2025-11-25".to_owned()],
        tools: tools.iter().map(tool).collect(),
        ..Offer::default()
    })
}

pub(super) fn report(pod: &str, hash: &str) -> Report {
    Report {
        pod: pod.to_owned(),
        acked: Some(Acked { version: Version::default(), hash: hash.to_owned() }),
        catalogue: Some(offer(&["list", "read"])),
        is_isolated: Some(true),
        ..Report::default()
    }
}

/// The policy with this hash of a server, made with these objects.
/// A policy that is too large, made from these objects: kind, name and generation.
pub(super) fn refusal(inputs: &[(&str, &str, i64)]) -> Refusal {
    let inputs = published("github", "", inputs).inputs.into();
    Refusal { reason: reason::SNAPSHOT_TOO_LARGE, message: "too large".to_owned(), inputs }
}

pub(super) fn published(server: &str, hash: &str, inputs: &[(&str, &str, i64)]) -> Published {
    let input = |(kind, name, generation): &(&str, &str, i64)| Input {
        kind: (*kind).to_owned(),
        name: (*name).to_owned(),
        uid: String::new(),
        generation: *generation,
    };
    let mut inputs: Vec<Input> = inputs.iter().map(input).collect();
    inputs.sort();
    Published {
        target: Target { namespace: "agents".to_owned(), server: server.to_owned() },
        version: Arc::default(),
        hash: hash.to_owned(),
        inputs,
        bytes: Bytes::new(),
    }
}

/// The server `github` with two pods `a` and `b`: everything about it is well.
#[derive(Clone, Debug)]
pub(super) struct Github {
    pub(super) object: McpServer,
    pub(super) judged: Option<i64>,
    pub(super) findings: Vec<Finding>,
    pub(super) published: Option<Published>,
    pub(super) refusal: Option<Refusal>,
    pub(super) workload: Option<Workload>,
    pub(super) is_update_waiting: bool,
    pub(super) reports: Vec<Report>,
    pub(super) is_fleet_complete: bool,
    pub(super) are_acks_due: bool,
    pub(super) declared: Vec<(String, bool)>,
}

impl Github {
    pub(super) fn well() -> Self {
        let ready = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let mut github = Self {
            object: McpServer::new("github", serde_json::from_value(spec(&json!({}))).unwrap()),
            judged: Some(1),
            findings: Vec::new(),
            published: Some(published("github", "h1", &[("McpServer", "github", 1), ("McpTool", "github-read", 1)])),
            refusal: None,
            workload: Some(Workload { wanted: 2, replicas: 2, updated: 2, ready, waiting: None }),
            is_update_waiting: false,
            reports: vec![report("a", "h1"), report("b", "h1")],
            is_fleet_complete: true,
            are_acks_due: true,
            declared: vec![("read".to_owned(), true)],
        };
        github.object.metadata.namespace = Some("agents".to_owned());
        github.object.metadata.generation = Some(1);
        github
    }

    /// The same with another spec beside the source.
    pub(super) fn with_spec(mut self, more: &Value) -> Self {
        self.object.spec = serde_json::from_value(spec(more)).unwrap();
        self
    }

    pub(super) fn ready(&mut self, pods: &[&str]) {
        let workload = self.workload.as_mut().unwrap();
        workload.ready = pods.iter().map(|pod| (*pod).to_owned()).collect();
    }

    /// Everything of the next generation, but no gateway has it.
    pub(super) fn edited(mut self) -> Self {
        self.object.metadata.generation = Some(2);
        self.judged = Some(2);
        self.published = Some(published("github", "h2", &[("McpServer", "github", 2), ("McpTool", "github-read", 1)]));
        self.are_acks_due = false;
        self
    }

    pub(super) fn acknowledge(&mut self, hash: &str) {
        for report in &mut self.reports {
            report.acked = Some(Acked { version: Version::default(), hash: hash.to_owned() });
        }
    }

    /// What `use_it` makes of the enforcement.
    pub(super) fn enforcing<T>(&self, use_it: impl FnOnce(Enforcing<'_>) -> T) -> T {
        let reports: Vec<Arc<Report>> = self.reports.iter().cloned().map(Arc::new).collect();
        let none = BTreeSet::new();
        use_it(Enforcing {
            published: self.published.as_ref(),
            refusal: self.refusal.as_ref(),
            ready: self.workload.as_ref().map_or(&none, |workload| &workload.ready),
            reports: &reports,
            is_fleet_complete: self.is_fleet_complete,
            are_acks_due: self.are_acks_due,
        })
    }

    pub(super) fn status(&self, now: Timestamp) -> McpServerStatus {
        let declared = self.declared.iter().map(|(name, is_usable)| Declared { name, is_usable: *is_usable });
        let declared: Vec<Declared<'_>> = declared.collect();
        self.enforcing(|enforcing| {
            let facts = ServerFacts {
                object: &self.object,
                verdict: Verdict { judged: self.judged, findings: &self.findings },
                workload: self.workload.as_ref(),
                is_update_waiting: self.is_update_waiting,
                enforcing,
                declared: &declared,
                selector: "app.kubernetes.io/instance=github",
            };
            server(&facts, now)
        })
    }

    /// The status now, which is also what the object has from now on.
    pub(super) fn settle(&mut self, second: i64) -> McpServerStatus {
        let status = self.status(at(second));
        self.object.status = Some(status.clone());
        status
    }

    /// What one condition says now.
    pub(super) fn says(&self, kind: &str) -> String {
        said(&self.status(at(1_000)).conditions, kind)
    }
}

fn spec(more: &Value) -> Value {
    let container = json!({"image": "x", "transport": "StreamableHttp", "port": 8000});
    let mut spec = json!({"source": {"container": container}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

pub(super) fn tool(spec: &Value) -> McpTool {
    let mut whole = json!({"serverRef": {"name": "github"}, "toolName": "read"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut tool = McpTool::new("github-read", serde_json::from_value(whole).unwrap());
    tool.metadata.generation = Some(1);
    tool
}

pub(super) fn role() -> McpRole {
    let mut role = McpRole::new("viewer", serde_json::from_value(json!({})).unwrap());
    role.metadata.generation = Some(1);
    role
}
