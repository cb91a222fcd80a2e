//! Whole reconciles against an API server in memory.

mod crash;
mod reports;
mod ripples;

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::time::advance;

use super::*;
use crate::kubernetes::caches::Caches;
use crate::kubernetes::fake::Fake;
use crate::policy::ObjectRef;
use crate::policy::snapshot::{Input, Target};
use crate::policy::version::Version;
use crate::policyserver::fleet::{Acked, Fleet, Offer, OfferedTool, Report};
use crate::policyserver::index::{About, Index, Judgement, Published};
use crate::telemetry::operator::Metrics;
use crate::wire::Signer;

pub(super) const SERVERS: &str = "apis/toolgate.dev/v1alpha1/mcpservers";
pub(super) const TOOLS: &str = "apis/toolgate.dev/v1alpha1/mcptools";
pub(super) const ROLES: &str = "apis/toolgate.dev/v1alpha1/mcproles";
pub(super) const DEPLOYMENTS: &str = "apis/apps/v1/deployments";
pub(super) const BUDGETS: &str = "apis/policy/v1/poddisruptionbudgets";
pub(super) const POLICIES: &str = "apis/networking.k8s.io/v1/networkpolicies";
pub(super) const MAPS: &str = "api/v1/configmaps";
pub(super) const PODS: &str = "api/v1/pods";

/// What an installation says.
pub(super) fn settings() -> settings::Settings {
    settings::Settings {
        gateway_image: "gateway:1".to_owned(),
        policy_server: settings::PolicyServer {
            url: "https://policy.toolgate.svc:9443".to_owned(),
            namespace: "toolgate".to_owned(),
            port: 9443,
        },
        ca: "CA".to_owned(),
        verify_key: Signer::from_seed(&[1; 32]).unwrap().verify_key().unwrap(),
        default_egress: None,
    }
}

/// A cluster, and an operator that may stop and come back.
pub(super) struct World {
    pub(super) fake: Fake,
    pub(super) index: Arc<Index>,
    pub(super) fleet: Arc<Fleet>,
}

/// One life of the operator.
pub(super) struct Process {
    context: Arc<Context>,
    servers: mcpserver::Controller,
    tools: mcptool::Controller,
    roles: mcprole::Controller,
    gateways: mcpgateway::Controller,
}

impl World {
    /// Without anything in it; every replica has answered.
    pub(super) fn new() -> Self {
        let fleet = Arc::new(Fleet::default());
        fleet.complete();
        Self { fake: Fake::default(), index: Arc::default(), fleet }
    }

    /// Writes a user's object.
    pub(super) fn put(&self, resource: &str, kind: &str, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "toolgate.dev/v1alpha1", "kind": kind,
            "metadata": {"namespace": "agents", "name": name}, "spec": spec});
        self.fake.put(resource, object);
    }

    /// Policy has judged everything, and says this of the server `a`.
    pub(super) fn judge(&self, hash: &str) {
        let target = Target { namespace: "agents".to_owned(), server: "a".to_owned() };
        let mut judgement = Judgement::default();
        let (mut inputs, mut said) = (Vec::new(), HashMap::new());
        for (resource, kind) in [(SERVERS, "McpServer"), (TOOLS, "McpTool"), (ROLES, "McpRole")] {
            for object in self.fake.all(resource) {
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                let generation = object["metadata"]["generation"].as_i64().unwrap();
                let reference = ObjectRef { kind: kind.to_owned(), namespace: "agents".to_owned(), name: name.clone() };
                said.insert(reference, About { generation: Some(generation), ..About::default() });
                inputs.push(Input { kind: kind.to_owned(), name, uid: String::new(), generation });
            }
        }
        judgement.said.insert("agents".to_owned(), Arc::new(said));
        inputs.sort();
        if !self.fake.all(SERVERS).is_empty() {
            let published = Published {
                target: target.clone(),
                version: Arc::default(),
                hash: hash.to_owned(),
                inputs,
                bytes: hash.as_bytes().to_vec().into(),
            };
            judgement.published.insert(target, Arc::new(published));
        }
        self.index.put(judgement);
    }

    /// A Ready pod of `a` whose gateway enforces this, and offers these tools.
    pub(super) fn pod(&self, hash: &str, tools: &[&str]) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "agents", "name": "a-1-x", "uid": "pod-1", "labels": {"toolgate.dev/server": "a"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        self.fake.put(PODS, pod);
        let tools = tools.iter().map(|name| OfferedTool { name: (*name).to_owned(), digest: "sha256:0".to_owned() });
        let offer =
            Offer { protocol_versions: vec!["2025-11-25".to_owned()], tools: tools.collect(), ..Offer::default() };
        let target = Target { namespace: "agents".to_owned(), server: "a".to_owned() };
        let report = Report {
            pod: "pod-1".to_owned(),
            acked: Some(Acked { version: Version::default(), hash: hash.to_owned() }),
            catalogue: Some(Arc::new(offer)),
            is_isolated: Some(true),
            ..Report::default()
        };
        self.fleet.put(&target, report);
    }

    /// Starts an operator.
    pub(super) fn start(&self) -> Process {
        self.start_with(settings())
    }

    pub(super) fn start_with(&self, settings: settings::Settings) -> Process {
        let metrics = Arc::new(Metrics::new().unwrap());
        let client = self.fake.client();
        let reporter = |name: &str| Reporter {
            writer: Writer::new(client.clone(), name, metrics.clone(), Arc::default()),
            events: Events::new(&client, name, "test"),
        };
        let context =
            Context::new(Caches::detached(), self.index.clone(), self.fleet.clone(), settings, metrics.clone());
        let context = Arc::new(context);
        Process {
            servers: mcpserver::Controller::new(context.clone(), reporter(mcpserver::NAME)),
            tools: mcptool::Controller::new(context.clone(), reporter(mcptool::NAME)),
            roles: mcprole::Controller::new(context.clone(), reporter(mcprole::NAME)),
            gateways: mcpgateway::Controller::new(context.clone(), reporter(mcpgateway::NAME)),
            context,
        }
    }

    /// Reconciles everything, again and again, until a whole round writes nothing. An error ends it, as the end of the
    /// process would.
    pub(super) async fn settle(&self, process: &Process) -> Result<(), Error> {
        for _ in 0..20 {
            let written = self.fake.writes().len();
            process.context.caches.read(&self.fake);
            let next = process.servers.reconcile(&("agents".to_owned(), "a".to_owned())).await?;
            let is_put_off = matches!(next, Next::After(wait) if wait <= Duration::from_secs(3));
            for (resource, kind) in [(TOOLS, 0), (ROLES, 1), ("apis/toolgate.dev/v1alpha1/mcpgateways", 2)] {
                for object in self.fake.all(resource) {
                    let key = ("agents".to_owned(), object["metadata"]["name"].as_str().unwrap().to_owned());
                    process.context.caches.read(&self.fake);
                    match kind {
                        0 => process.tools.reconcile(&key).await?,
                        1 => process.roles.reconcile(&key).await?,
                        _ => process.gateways.reconcile(&key).await?,
                    };
                }
            }
            advance(Duration::from_secs(3)).await; // What was put off is due.
            if self.fake.writes().len() == written && !is_put_off {
                return Ok(());
            }
        }
        panic!("it never comes to rest: {:?}", self.fake.writes());
    }
}
