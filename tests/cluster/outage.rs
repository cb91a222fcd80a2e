//! The harness's own promise for tests in which the API server is away: what was written is there when it returns.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};

use crate::harness::{ApiServer, within};

#[tokio::test]
async fn an_api_server_that_was_stopped_returns_with_its_objects() {
    let server = ApiServer::start();
    let object = |name: &str| ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    };
    let before = Api::<ConfigMap>::default_namespaced(server.client().await);
    within("write", before.create(&PostParams::default(), &object("kept"))).await.unwrap();

    server.stop("kube-apiserver");
    let away = within("fail", before.get("kept")).await;
    assert!(matches!(away, Err(kube::Error::Service(_) | kube::Error::HyperError(_))), "{away:?}");

    server.resume("kube-apiserver");
    within("read", before.get("kept")).await.expect("the same client, and the object, are fine again");
    within("write", before.create(&PostParams::default(), &object("new"))).await.unwrap();
}
