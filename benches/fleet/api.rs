//! The cluster's side: objects as a user applies them, pods as a kubelet would say that they are.

use std::collections::HashSet;
use std::fmt;
use std::future::ready;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::core::object::HasStatus;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use toolgate::api::status::{Report, conditions_of};
use toolgate::api::{McpGateway, McpRole, McpServer, McpTool, conditions};
use toolgate::wire::keys::VerifyKey;

/// The role that concerns every server.
pub(crate) const ROLE: &str = "everyone";
/// Requests at once.
const WIDTH: usize = 32;
/// Longest wait for the whole cluster.
const PATIENCE: Duration = Duration::from_mins(30);

/// A namespace of a cluster.
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
}

/// A pod that nobody runs, and the token that its gateway would have.
pub(crate) struct Simulated {
    pub(crate) server: String,
    pub(crate) token: String,
}

/// What a gateway trusts.
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) ca: String,
    pub(crate) key: VerifyKey,
}

pub(crate) fn tool_name(number: usize) -> String {
    format!("tool_{number}")
}

fn server_name(number: usize) -> String {
    format!("server-{number}")
}

impl Cluster {
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<K>(&self, object: Value) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    /// Everything that a user writes.
    pub(crate) async fn declare(&self, servers: usize, tools: usize) -> anyhow::Result<()> {
        let named = |name: &str| json!({"name": name});
        let issuers = json!([{"name": "kubernetes", "serviceAccounts": {}}]);
        self.create::<McpGateway>(json!({"metadata": named("default"), "spec": {"issuers": issuers}})).await?;
        self.create::<McpRole>(json!({"metadata": named(ROLE), "spec": role(true)})).await?;
        let one = async |number: usize| -> anyhow::Result<()> {
            let server = server_name(number);
            let container = json!({"image": "localhost/bench:1", "transport": "StreamableHttp", "port": 8000});
            let spec = json!({"source": {"container": container}});
            self.create::<McpServer>(json!({"metadata": named(&server), "spec": spec})).await?;
            for number in 0..tools {
                let spec = json!({"serverRef": named(&server), "toolName": tool_name(number)});
                let name = format!("{server}-{number}");
                self.create::<McpTool>(json!({"metadata": named(&name), "spec": spec})).await?;
            }
            Ok(())
        };
        stream::iter(0..servers).map(|number| one(number)).buffer_unordered(WIDTH).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// Says of each server's pod that it is Ready, as soon as it is there.
    pub(crate) async fn pods(&self, servers: usize) -> anyhow::Result<Vec<Simulated>> {
        let mut seen = HashSet::new();
        let config = watcher::Config::default().labels("toolgate.dev/server");
        let pods = watcher(self.api::<Pod>(), config).applied_objects();
        let fresh = pods.try_filter_map(move |pod| ready(Ok(seen.insert(pod.name_any()).then_some(pod))));
        let made = fresh.map_err(anyhow::Error::from).map_ok(|pod| self.run(pod)).try_buffer_unordered(WIDTH);
        timeout(PATIENCE, made.take(servers).try_collect()).await?
    }

    async fn run(&self, pod: Pod) -> anyhow::Result<Simulated> {
        let name = pod.name_any();
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).expect("an account");
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name.clone()),
            uid: pod.uid(),
        };
        let audiences = vec!["toolgate-policy".to_owned()];
        let spec = TokenRequestSpec { audiences, bound_object_ref: Some(bound), expiration_seconds: Some(24 * 3600) };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = self.api::<ServiceAccount>();
        let made = accounts.create_token_request(&account, &PostParams::default(), &request).await?;
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|type_| json!({"type": type_, "status": "True"}));
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.2", "conditions": conditions}});
        self.api::<Pod>().patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        let server = pod.labels().get("toolgate.dev/server").cloned().expect("the label that was selected by");
        Ok(Simulated { server, token: made.status.expect("a token").token })
    }

    /// What the operator published and wrote into the pods.
    pub(crate) async fn trust(&self) -> anyhow::Result<Trust> {
        let map = self.api::<ConfigMap>().get("toolgate-ca").await?;
        let ca = map.data.and_then(|data| data.get("ca.crt").cloned()).expect("the published CA");
        let selector = ListParams::default().labels("toolgate.dev/server").limit(1);
        let pod = self.api::<Pod>().list(&selector).await?.items.pop().expect("a pod");
        let spec = pod.spec.expect("a spec");
        let gateway = spec.init_containers.into_iter().flatten().find(|container| container.name == "toolgate-gateway");
        let env = gateway.and_then(|gateway| gateway.env).unwrap_or_default();
        let key = env.into_iter().find(|variable| variable.name == "TOOLGATE_VERIFY_KEY").and_then(|it| it.value);
        Ok(Trust { ca, key: key.expect("the verification key").parse()? })
    }

    /// Waits until as many objects of a kind are `Accepted` and `Programmed` at their current generation.
    pub(crate) async fn programmed<K>(&self, count: usize) -> anyhow::Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + HasStatus<Status: Report>,
        K: Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let all = async {
            let mut objects = pin!(watcher(self.api::<K>(), watcher::Config::default()).applied_objects());
            let mut programmed = HashSet::new();
            while programmed.len() < count {
                let object = objects.try_next().await?.context("the watch ended")?;
                let generation = object.meta().generation.unwrap_or_default();
                let is_so = |kind| conditions::holds(conditions_of(&object), kind, generation);
                if is_so(conditions::ACCEPTED) && is_so(conditions::PROGRAMMED) {
                    programmed.insert(object.name_any());
                } else {
                    programmed.remove(&object.name_any());
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, all).await?
    }

    /// Gives the role to everybody, or takes it away; its generation after that.
    pub(crate) async fn edit_role(&self, is_revoked: bool) -> anyhow::Result<i64> {
        let patch = json!({"spec": role(!is_revoked)});
        let role = self.api::<McpRole>().patch(ROLE, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(role.metadata.generation.expect("a generation"))
    }
}

fn role(is_granted: bool) -> Value {
    let account = if is_granted { "agent" } else { "nobody" };
    json!({
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "bench"}],
        "rules": [{"effect": "Allow", "servers": ["*"], "tools": ["*"]}],
    })
}
