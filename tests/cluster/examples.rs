//! Every manifest under `examples/` is one that a cluster accepts as it stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kube::api::{Api, Patch, TypeMeta};
use kube::discovery::{Scope, pinned_kind};
use serde_json::Value;

use crate::harness::{Cluster, definition, definitions, repository, resource_of, strict, within};

/// No objects of a cluster: what a laptop does differently.
const OVERLAY: &str = "toolgate.local.yaml";
/// Says which files of its folder hold objects.
const KUSTOMIZATION: &str = "kustomization.yaml";

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    if let Ok(text) = fs::read_to_string(folder.join(KUSTOMIZATION)) {
        let kustomization: Value = serde_saphyr::from_str(&text).unwrap();
        let resources = kustomization["resources"].as_array().expect("a kustomization has resources");
        found.extend(resources.iter().map(|file| folder.join(file.as_str().unwrap())));
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") && !path.ends_with(OVERLAY) {
            found.push(path);
        }
    }
}

/// As `kubectl apply --dry-run=server --validate=strict` asks.
#[tokio::test]
async fn every_example_is_accepted_by_a_strict_dry_run() {
    let cluster = Cluster::shared().await;
    let (client, space) = (cluster.client().await, cluster.namespace().await);
    let mut files = Vec::new();
    yaml_files(&repository().join("examples"), &mut files);
    files.sort();
    let mut seen = BTreeMap::<String, usize>::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert!(!objects.is_empty(), "{} holds no object", file.display());
        for mut object in objects {
            let types: TypeMeta = serde_json::from_value(object.clone()).unwrap();
            let (kind, name) = (types.kind.clone(), object["metadata"]["name"].as_str().expect("a name").to_owned());
            let (resource, capabilities) =
                within("find", pinned_kind(&client, &types.try_into().unwrap())).await.unwrap();
            // Wherever it is meant for, here it is tried in the namespace of this test.
            let api = if capabilities.scope == Scope::Namespaced {
                object["metadata"]["namespace"] = space.name().into();
                space.dynamic(&resource)
            } else {
                Api::all_with(client.clone(), &resource)
            };
            let mut params = strict();
            params.dry_run = true;
            let answer = within("apply an example", api.patch(&name, &params, &Patch::Apply(&object))).await;
            answer.unwrap_or_else(|error| panic!("{}: {kind} {name}: {error}", file.display()));
            *seen.entry(kind).or_default() += 1;
        }
    }
    for definition in definitions() {
        let kind = definition.spec.names.kind;
        assert!(seen.contains_key(&kind), "no example shows a {kind}; seen: {seen:?}");
    }
}

/// The test above can fail: the same call with a misspelt field is refused.
#[tokio::test]
async fn a_misspelt_field_is_refused() {
    let space = Cluster::shared().await.namespace().await;
    let object = serde_json::json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": "McpTool", "metadata": {"name": "a"},
        "spec": {"serverRef": {"name": "a"}, "toolName": "b", "exposdName": "c"},
    });
    let mut params = strict();
    params.dry_run = true;
    let api = space.dynamic(&resource_of(&definition("McpTool")));
    let answer = within("apply an object", api.patch("a", &params, &Patch::Apply(&object))).await;
    let Err(kube::Error::Api(status)) = answer else { panic!("it should be refused: {answer:?}") };
    assert!(status.message.contains("exposdName"), "{}", status.message);
}
