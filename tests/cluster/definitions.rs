//! The definitions of `crds/`, as the real server takes them.

use http::Request;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch};
use kube::client::Body;
use kube::runtime::conditions::is_crd_established;
use serde_json::Value;

use crate::harness::{
    ApiServer, Cluster, MANAGER, definition_files, definitions, eventually, holds, schema_of, strict, walk, within,
};

/// What client-side apply of older tools, and etcd, bear without trouble.
const LARGEST: usize = 200_000;

/// On a server that has never seen them: limits on the cost of rules hold for what is new.
#[tokio::test]
async fn every_definition_is_accepted_without_a_warning_and_becomes_established() {
    let server = ApiServer::start();
    let client = server.client().await;
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for (path, text) in definition_files() {
        let file = path.display();
        assert!(text.len() < LARGEST, "{file} has {} bytes", text.len());
        let name = serde_saphyr::from_str::<CustomResourceDefinition>(&text).unwrap().metadata.name.unwrap();

        // By hand, since warnings are in a header, which the client does not hand out.
        let url = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager={MANAGER}&fieldValidation=Strict"
        );
        let request = Request::patch(url).header("Content-Type", "application/apply-patch+yaml");
        let request = request.body(Body::from(text.into_bytes())).unwrap();
        let response = within("apply a definition", client.send(request)).await.unwrap();
        let warnings: Vec<_> = response.headers().get_all("warning").iter().cloned().collect();
        let created = response.status();
        let body = within("read the answer", response.into_body().collect_bytes()).await.unwrap();
        assert_eq!(created, 201, "{file}: {}", String::from_utf8_lossy(&body));
        assert!(warnings.is_empty(), "{file}: {warnings:?}");

        let object = holds(&api, &name, "be established", is_crd_established()).await.expect("it stays");
        for condition in object.status.unwrap().conditions.unwrap_or_default() {
            let good =
                ["Established", "NamesAccepted"].contains(&condition.type_.as_str()) && condition.status == "True";
            assert!(good, "{file}: {condition:?}");
        }
    }
}

/// What `kubectl explain` prints comes from there, not from the definition.
#[tokio::test]
async fn every_published_field_is_explained() {
    let client = Cluster::shared().await.client().await;
    for definition in definitions() {
        let kind = definition.spec.names.kind.clone();
        let published = eventually(&format!("find {kind} in the OpenAPI document"), async || {
            let request = Request::get("/openapi/v3/apis/toolgate.dev/v1alpha1").body(Vec::new()).unwrap();
            let document: Value = client.request(request).await.ok()?;
            let schemas = document["components"]["schemas"].as_object()?.values();
            schemas
                .into_iter()
                .find(|schema| schema["x-kubernetes-group-version-kind"][0]["kind"] == kind.as_str())
                .cloned()
        })
        .await;

        let described = |schema: &Value| schema["description"].as_str().is_some_and(|text| text.len() > 10);
        assert!(described(&published), "{kind}");
        let mut found = 0;
        walk(&published["properties"]["spec"], &format!("{kind}.spec"), &mut |path, schema| {
            let item = path.ends_with("[]") || path.ends_with("{}");
            assert!(item || described(schema), "{path}: no description in {schema}");
            found += 1;
        });
        let mut written = 0;
        walk(&schema_of(&definition)["properties"]["spec"], &kind, &mut |_, _| written += 1);
        assert_eq!(found, written, "{kind}: the server publishes other fields than the definition has");
    }
}

#[tokio::test]
async fn applying_a_definition_again_changes_nothing() {
    let client = Cluster::shared().await.client().await;
    let api = Api::<CustomResourceDefinition>::all(client);
    for definition in definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let before = within("read a definition", api.get(&name)).await.unwrap();
        let after =
            within("apply a definition", api.patch(&name, &strict(), &Patch::Apply(&definition))).await.unwrap();
        assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "{name}");
    }
}
