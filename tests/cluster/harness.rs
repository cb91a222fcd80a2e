//! Owns what a test needs of a cluster: an API server, a client, a namespace of its own, waits with a deadline.
//!
//! Must not know what is tested. Nothing here is shared between tests but the cluster and its definitions.

mod namespace;
mod server;
mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::conditions::is_crd_established;
use kube::{Client, Config};
use serde_json::Value;

pub(crate) use namespace::Namespace;
pub(crate) use server::ApiServer;
pub(crate) use wait::{DEADLINE, eventually, holds, within};

/// Field manager of all that tests apply.
pub(crate) const MANAGER: &str = "toolgate-test";

/// A cluster with the definitions of `crds/`.
pub(crate) struct Cluster {
    /// As whom and where to call it.
    pub(crate) kubeconfig: Kubeconfig,
    /// Ends with this process; a cluster that was given is left as it is.
    server: Option<ApiServer>,
}

impl Cluster {
    /// The cluster of this test process: the one that `KUBECONFIG` names, else an API server that the first call
    /// starts, which builds it where that was not done yet. The definitions are served when this returns.
    pub(crate) async fn shared() -> Arc<Self> {
        static CLUSTER: OnceLock<Arc<Cluster>> = OnceLock::new();
        static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        let cluster = CLUSTER.get_or_init(|| Arc::new(Self::find_or_start()));
        INSTALLED.get_or_init(|| async { install(&cluster.client().await).await }).await;
        cluster.clone()
    }

    /// A cluster of the test's own, for what must not be disturbed or watched by others.
    pub(crate) async fn own() -> Arc<Self> {
        let server = ApiServer::start();
        let cluster = Self { kubeconfig: server.kubeconfig(), server: Some(server) };
        install(&cluster.client().await).await;
        Arc::new(cluster)
    }

    fn find_or_start() -> Self {
        // An empty variable names nothing.
        if std::env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty()) {
            let kubeconfig = Kubeconfig::from_env().expect("KUBECONFIG names no readable kubeconfig").unwrap();
            return Self { kubeconfig, server: None };
        }
        let server = ApiServer::start();
        Self { kubeconfig: server.kubeconfig(), server: Some(server) }
    }

    /// Its server.
    ///
    /// # Panics
    /// When it was given, not started.
    pub(crate) fn server(&self) -> &ApiServer {
        self.server.as_ref().expect("only a cluster of the test's own can be stopped, or asked what was written")
    }

    /// A client for the runtime that asks: each test has a runtime, and a client ends with it.
    pub(crate) async fn client(&self) -> Client {
        client(self.kubeconfig.clone()).await
    }

    /// `HOST:PORT` of its API server.
    pub(crate) fn address(&self) -> String {
        let named = self.kubeconfig.clusters.first().and_then(|named| named.cluster.as_ref());
        let server = named.and_then(|cluster| cluster.server.as_deref()).expect("the kubeconfig names a server");
        let uri: http::Uri = server.parse().expect("a URL");
        format!("{}:{}", uri.host().expect("a host"), uri.port_u16().unwrap_or(443))
    }

    /// A namespace that no other test uses, which accepts only restricted pods.
    pub(crate) async fn namespace(self: &Arc<Self>) -> Namespace {
        Namespace::create(self.clone()).await
    }

    /// Whether this process started the cluster, so that it vanishes with all that is in it.
    pub(crate) fn is_ours(&self) -> bool {
        self.server.is_some()
    }
}

/// A client as the admin of that kubeconfig.
pub(crate) async fn client(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("the kubeconfig is of no use")).expect("no client can be made of the kubeconfig")
}

/// The folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `crds/`: its path and its text.
pub(crate) fn definition_files() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(repository().join("crds")).expect("crds/ cannot be read");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "crds/ is empty");
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// Every definition of `crds/`.
pub(crate) fn definitions() -> Vec<CustomResourceDefinition> {
    let read = |(path, text): (PathBuf, String)| {
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    definition_files().into_iter().map(read).collect()
}

/// Applies every definition, strictly, and returns when each kind is served.
pub(crate) async fn install(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for definition in definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let applied = within("apply a definition", api.patch(&name, &strict(), &Patch::Apply(&definition))).await;
        applied.unwrap_or_else(|error| panic!("{name}: {error}"));
        holds(&api, &name, "be established", is_crd_established()).await;
        // Established is the promise. The server keeps it a moment later, and says so in no object that could be
        // watched: so ask.
        let objects = Api::<DynamicObject>::all_with(client.clone(), &resource_of(&definition));
        eventually(&format!("serve {name}"), async || {
            objects.list(&kube::api::ListParams::default().limit(1)).await.ok()
        })
        .await;
    }
}

/// Server-side apply that refuses unknown and duplicate fields.
pub(crate) fn strict() -> PatchParams {
    PatchParams::apply(MANAGER).force().validation_strict()
}

/// The resource that a definition defines.
pub(crate) fn resource_of(definition: &CustomResourceDefinition) -> ApiResource {
    let spec = &definition.spec;
    let kind = GroupVersionKind::gvk(&spec.group, &spec.versions[0].name, &spec.names.kind);
    ApiResource::from_gvk_with_plural(&kind, &spec.names.plural)
}

/// The definition of a kind, from `crds/`.
pub(crate) fn definition(kind: &str) -> CustomResourceDefinition {
    let found = definitions().into_iter().find(|definition| definition.spec.names.kind == kind);
    found.unwrap_or_else(|| panic!("crds/ defines no {kind}"))
}

/// `openAPIV3Schema` of a definition.
pub(crate) fn schema_of(definition: &CustomResourceDefinition) -> Value {
    let schema = definition.spec.versions[0].schema.as_ref().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// Visits a schema and all below it, each with its path: `.field`, `[]` for items, `{}` for values of a map.
pub(crate) fn walk<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(values, &format!("{path}{{}}"), visit);
    }
}
