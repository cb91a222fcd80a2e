//! The world of one test: a namespace that enforces restricted pods, and an operator that sees it alone.
//!
//! Owns names, ports and how the operator is started; knows no scenario but the one that most tests begin with.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Caller, authorities};
use super::kubelet::Pod;
use super::process::{Process, fixture, free_port};
use crate::harness::{Cluster, Namespace, holds, strict, within};

/// See [`World::gateway_image`].
pub(crate) const GATEWAY_IMAGE: &str = "registry.example.com/toolgate-gateway:test";

/// A namespace, an operator's place beside it, and a folder.
pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    /// What the operator watches.
    pub(crate) space: Namespace,
    /// Where it keeps its Lease and keys.
    pub(crate) home: Namespace,
    pub(crate) scratch: TempDir,
    pub(crate) policy: u16,
    /// Seconds for which a dead leader's Lease is respected: short, so that a successor begins soon.
    pub(crate) lease: &'static str,
    /// Image of the gateway in pod specs. Nothing pulls it.
    pub(crate) gateway_image: &'static str,
    starts: AtomicU32,
}

impl World {
    /// In the cluster that tests share.
    pub(crate) async fn new() -> Self {
        Self::of(Cluster::shared().await).await
    }

    /// In a cluster of the test's own.
    pub(crate) async fn of(cluster: Arc<Cluster>) -> Self {
        let (space, home) = (cluster.namespace().await, cluster.namespace().await);
        let scratch = TempDir::new().expect("a temporary folder");
        fs::write(scratch.path().join("kubeconfig"), serde_json::to_string(&cluster.kubeconfig).unwrap()).unwrap();
        Self {
            cluster,
            space,
            home,
            scratch,
            policy: free_port(),
            lease: "3",
            gateway_image: GATEWAY_IMAGE,
            starts: AtomicU32::new(0),
        }
    }

    /// Starts an operator and waits until it is ready. Each is another replica, with a name of its own.
    pub(crate) async fn operator(&self) -> Process {
        self.operator_with(&[]).await
    }

    /// Like [`World::operator`], with further flags.
    pub(crate) async fn operator_with(&self, flags: &[&str]) -> Process {
        self.replica(self.policy, flags).await
    }

    /// Like [`World::operator_with`], where its policy server listens on a port of its own.
    pub(crate) async fn replica(&self, listen: u16, flags: &[&str]) -> Process {
        self.replica_by(&self.scratch.path().join("kubeconfig"), listen, flags).await
    }

    /// Like [`World::replica`], where it finds the API server elsewhere.
    pub(crate) async fn replica_by(&self, kubeconfig: &Path, listen: u16, flags: &[&str]) -> Process {
        let admin = free_port();
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let identity = format!("operator-{number}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate-operator"));
        command.env("KUBECONFIG", kubeconfig).env("RUST_LOG", "info");
        command.args(["--watch-namespace", self.space.name(), "--namespace", self.home.name()]);
        command.args(["--policy-listen", &format!("127.0.0.1:{listen}"), "--policy-server", &self.policy_url()]);
        command.args(["--admin", &format!("127.0.0.1:{admin}"), "--identity", &identity]);
        command.args(["--gateway-image", self.gateway_image, "--lease-seconds", self.lease]).args(flags);
        let log = self.scratch.path().join(format!("{identity}.log"));
        let mut process = Process::start(&identity, &mut command, &log);
        process.answers(admin, "/readyz").await;
        process
    }

    /// A kubeconfig by which the API server is reached at a port of 127.0.0.1.
    pub(crate) fn kubeconfig_by(&self, port: u16) -> PathBuf {
        let mut kubeconfig = self.cluster.kubeconfig.clone();
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            let uri: http::Uri = cluster.server.as_deref().expect("a server").parse().expect("a URL");
            cluster.tls_server_name.get_or_insert_with(|| uri.host().expect("a host").to_owned());
            cluster.server = Some(format!("https://127.0.0.1:{port}"));
        }
        let path = self.scratch.path().join(format!("kubeconfig-{port}"));
        fs::write(&path, serde_json::to_string(&kubeconfig).unwrap()).unwrap();
        path
    }

    /// Waits until an operator leads that is none of these; its identity.
    pub(crate) async fn leader_but(&self, others: &[&str]) -> String {
        let holder = |lease: Option<&Lease>| {
            let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
            holder.filter(|holder| !holder.is_empty() && !others.contains(&holder.as_str()))
        };
        let is_led = |lease: Option<&Lease>| holder(lease).is_some();
        let lease = holds(&self.home.api::<Lease>(), "toolgate-operator", "be held by another", is_led).await;
        holder(lease.as_ref()).expect("it holds of what was waited for")
    }

    /// What gateways dial.
    pub(crate) fn policy_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.policy)
    }

    /// Applies each object of a YAML text, strictly.
    pub(crate) async fn apply(&self, text: &str) {
        let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
        for object in objects {
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            let api = self.space.dynamic(&resource(&object));
            let applied = within("apply an object", api.patch(&name, &strict(), &Patch::Apply(&object))).await;
            applied.unwrap_or_else(|error| panic!("{name}: {error}\n{object}"));
        }
    }

    /// Makes `tickets` a governed server on that port: the ServiceAccount `caller` may use `ok`, and nobody `secret`.
    pub(crate) async fn apply_tickets(&self, port: u16) {
        let image = "registry.example.com/tickets:1";
        self.apply(&server(
            "tickets",
            &format!("{{container: {{image: '{image}', transport: StreamableHttp, port: {port}}}}}"),
        ))
        .await;
        self.apply_role("callers", "caller", "ok").await;
    }

    /// A ServiceAccount, and a role that lets it use one tool of the servers labelled `tier: gold`.
    pub(crate) async fn apply_role(&self, name: &str, account: &str, tool: &str) {
        let namespace = self.space.name();
        let text = format!(
            r"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}}}
---
apiVersion: toolgate.dev/v1alpha1
kind: McpRole
metadata: {{name: {name}}}
spec:
  subjects: [{{kind: ServiceAccount, name: {account}, namespace: {namespace}}}]
  rules: [{{effect: Allow, serverSelector: {{matchLabels: {{tier: gold}}}}, tools: ['{tool}']}}]
"
        );
        self.apply(&text).await;
    }

    /// One of Toolgate's kinds.
    pub(crate) fn kind(&self, kind: &str) -> Api<DynamicObject> {
        self.space.dynamic(&resource(&json!({"apiVersion": "toolgate.dev/v1alpha1", "kind": kind})))
    }

    /// Changes an object by a merge patch; its generation afterwards.
    pub(crate) async fn patch(&self, kind: &str, name: &str, patch: Value) -> i64 {
        let (api, params, patch) = (self.kind(kind), PatchParams::default(), Patch::Merge(patch));
        let object = within("patch an object", api.patch(name, &params, &patch)).await;
        let object = object.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        object.metadata.generation.expect("a generation")
    }

    /// Deletes an object. The server has answered when this returns; nothing has reacted yet.
    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        within("delete an object", self.kind(kind).delete(name, &DeleteParams::default())).await.expect("it was there");
    }

    /// Waits until a condition has this status, said of the object's current generation; the condition.
    pub(crate) async fn condition(&self, kind: &str, name: &str, type_: &str, status: &str) -> Value {
        self.condition_where(kind, name, type_, status, |_| true).await
    }

    /// Like [`World::condition`], and more must hold of the condition.
    pub(crate) async fn condition_where(
        &self,
        kind: &str,
        name: &str,
        type_: &str,
        status: &str,
        further: impl Fn(&Value) -> bool,
    ) -> Value {
        let find = |object: &DynamicObject| {
            let found = condition_of(object, type_)?;
            let current = found["observedGeneration"].as_i64() == object.metadata.generation;
            (found["status"] == status && current && further(&found)).then_some(found)
        };
        let what = format!("have {type_}={status}");
        let there = |object: Option<&DynamicObject>| object.is_some_and(|object| find(object).is_some());
        let object = holds(&self.kind(kind), name, &what, there).await.expect("it stays");
        find(&object).expect("it holds of what was waited for")
    }

    /// A token of a ServiceAccount, made by the API server.
    pub(crate) async fn token(&self, account: &str, audience: &str, pod: Option<(&str, &str)>) -> String {
        let bound = pod.map(|(name, uid)| BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
        });
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: bound,
            expiration_seconds: Some(3600),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = self.space.api::<ServiceAccount>();
        let params = PostParams::default();
        let made = within("request a token", accounts.create_token_request(account, &params, &request)).await;
        made.unwrap_or_else(|error| panic!("a token for {account}: {error}")).status.expect("a token").token
    }

    /// The one URL of a server.
    pub(crate) fn url(&self, server: &str) -> String {
        format!("https://{server}.{}.svc:8443/mcp", self.space.name())
    }

    /// Someone who calls a server as a ServiceAccount, and trusts the CA that the operator publishes.
    pub(crate) async fn caller(&self, account: &str, server: &str, port: u16) -> Caller {
        let maps = self.space.api::<ConfigMap>();
        let has = |map: Option<&ConfigMap>| map.and_then(|map| map.data.as_ref()?.get("ca.crt")).is_some();
        let map = holds(&maps, "toolgate-ca", "hold ca.crt", has).await.expect("it stays");
        Caller {
            url: self.url(server),
            at: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            authorities: authorities(&map.data.unwrap()["ca.crt"]),
            token: self.token(account, &self.url(server), None).await,
        }
    }
}

/// A condition of an object.
pub(crate) fn condition_of(object: &DynamicObject, type_: &str) -> Option<Value> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == type_).cloned()
}

/// The resource of an object, by its kind.
fn resource(object: &Value) -> ApiResource {
    let version = object["apiVersion"].as_str().expect("apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, object["kind"].as_str().expect("kind")))
}

/// An MCP server on 127.0.0.1, as the container beside a gateway would be.
pub(crate) struct Server {
    pub(crate) port: u16,
    log: PathBuf,
    _process: Process,
}

impl Server {
    /// Starts it. It listens when a gateway can use it, which is what tests wait for.
    pub(crate) fn start(world: &World, name: &str) -> Self {
        Self::listing(world, name, "honest")
    }

    /// Starts one whose list of tools is another; see the flag `--list` of the fixture.
    pub(crate) fn listing(world: &World, name: &str, list: &str) -> Self {
        Self::at(world, name, free_port(), list)
    }

    /// Like [`Server::listing`], on a port that was chosen before.
    pub(crate) fn at(world: &World, name: &str, port: u16, list: &str) -> Self {
        let log = world.scratch.path().join(format!("{name}.arrivals"));
        let mut command = Command::new(fixture("fixture-hostile"));
        command.args(["--port", &port.to_string(), "--list", list]).arg("--log").arg(&log);
        let said = world.scratch.path().join(format!("{name}.log"));
        Self { port, log, _process: Process::start(name, &mut command, &said) }
    }

    /// How many calls of this tool have reached it.
    pub(crate) fn calls(&self, tool: &str) -> usize {
        let name = format!(r#"\"name\":\"{tool}\""#);
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains("tools/call") && line.contains(&name)).count()
    }
}

/// A gateway object, a server and its two tools. Its gateway runs on a machine and not in a pod of its own, where others
/// listen: so the barrier is not that nobody does.
pub(crate) fn server(name: &str, source: &str) -> String {
    declared(name, &format!("{{source: {source}, sandbox: {{isolation: NetworkPolicy}}}}"))
}

/// Like [`server`], where all of the server's `spec` is given.
pub(crate) fn declared(name: &str, spec: &str) -> String {
    format!(
        r"
apiVersion: toolgate.dev/v1alpha1
kind: McpGateway
metadata: {{name: default}}
spec: {{issuers: [{{name: kubernetes, serviceAccounts: {{}}}}]}}
---
apiVersion: toolgate.dev/v1alpha1
kind: McpServer
metadata: {{name: {name}, labels: {{tier: gold}}}}
spec: {spec}
---
apiVersion: toolgate.dev/v1alpha1
kind: McpTool
metadata: {{name: {name}-ok}}
spec: {{serverRef: {{name: {name}}}, toolName: ok}}
---
apiVersion: toolgate.dev/v1alpha1
kind: McpTool
metadata: {{name: {name}-secret}}
spec: {{serverRef: {{name: {name}}}, toolName: secret}}
"
    )
}

/// What most tests begin with: `tickets` governed, its gateway running and in force, and someone who may call it.
pub(crate) struct Scene {
    pub(crate) gateway: Process,
    pub(crate) operator: Process,
    pub(crate) server: Server,
    pub(crate) pod: Pod,
    pub(crate) caller: Caller,
    pub(crate) world: World,
}

impl Scene {
    /// In the cluster that tests share.
    pub(crate) async fn start() -> Self {
        Self::of(World::new().await, &[]).await
    }

    /// In that world, with further flags for the operator.
    pub(crate) async fn of(world: World, flags: &[&str]) -> Self {
        let server = Server::start(&world, "tickets");
        let operator = world.operator_with(flags).await;
        world.apply_tickets(server.port).await;
        let pod = Pod::of(&world, "tickets").await;
        let gateway = pod.run_gateway(&world).await;
        world.condition("McpServer", "tickets", "Programmed", "True").await;
        let caller = world.caller("caller", "tickets", pod.port).await;
        Self { gateway, operator, server, pod, caller, world }
    }
}
