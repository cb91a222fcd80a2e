//! The real server's answer to every CEL rule: one object that holds, one that breaks it. That every rule has a case
//! is held by the unit tests of `src/api`.

use kube::api::{Api, DynamicObject, Patch};
use kube::core::Status;
use serde_json::{Value, json};

use crate::cases::{Case, Change, Naming, cases, changes, namings};
use crate::harness::{Cluster, Namespace, definition, resource_of, strict, within};

/// Objects of one kind, in a namespace.
struct Objects {
    kind: &'static str,
    api: Api<DynamicObject>,
}

impl Objects {
    fn of(kind: &'static str, space: &Namespace) -> Self {
        Self { kind, api: space.dynamic(&resource_of(&definition(kind))) }
    }

    /// Applies an object, for real or to see what would happen.
    async fn apply(&self, name: &str, spec: &Value, dry_run: bool) -> Result<(), Box<Status>> {
        let object = json!({
            "apiVersion": "toolgate.dev/v1alpha1", "kind": self.kind, "metadata": {"name": name}, "spec": spec,
        });
        let mut params = strict();
        params.dry_run = dry_run;
        match within("apply an object", self.api.patch(name, &params, &Patch::Apply(&object))).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => panic!("{} {name}: no answer: {error}", self.kind),
        }
    }

    async fn accepts(&self, name: &str, spec: &Value) {
        if let Err(status) = self.apply(name, spec, true).await {
            panic!("{} {name} {spec} should be accepted: {}", self.kind, status.message);
        }
    }

    /// For that one reason and no other: an object that is wrong twice shows nothing about a rule.
    async fn refuses(&self, name: &str, spec: &Value, message: &str) {
        let status = self.apply(name, spec, true).await.expect_err(&format!("{} {name} {spec}: {message}", self.kind));
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{}", status.message);
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        assert!(
            causes.len() == 1 && causes[0].message.contains(message),
            "{} {name} {spec}: expected {message:?} alone, got {causes:?}",
            self.kind
        );
    }
}

#[tokio::test]
async fn every_rule_holds_and_breaks_where_it_should() {
    let space = Cluster::shared().await.namespace().await;
    for Case { kind, message, holds, breaks } in cases() {
        let objects = Objects::of(kind, &space);
        objects.accepts("a", &holds).await;
        objects.refuses("a", &breaks, message).await;
    }
}

/// Server-side apply would drop unknown members of an object that has none of its own, and say nothing.
#[tokio::test]
async fn a_member_of_service_accounts_is_refused_and_not_dropped() {
    let space = Cluster::shared().await.namespace().await;
    let objects = Objects::of("McpGateway", &space);
    let issuer = |members: Value| json!({"issuers": [{"name": "a", "serviceAccounts": members}]});
    objects.accepts("a", &issuer(json!({}))).await;

    let status = objects.apply("a", &issuer(json!({"namespaces": ["b"]})), true).await.expect_err("it has no members");

    assert!(status.message.contains("serviceAccounts: Too many"), "{}", status.message);
}

#[tokio::test]
async fn every_rule_about_a_change_holds_and_breaks_where_it_should() {
    let space = Cluster::shared().await.namespace().await;
    for (number, Change { kind, message, before, holds, breaks }) in changes().into_iter().enumerate() {
        let objects = Objects::of(kind, &space);
        let name = format!("a{number}");
        objects.apply(&name, &before, false).await.unwrap();
        objects.accepts(&name, &holds).await;
        objects.refuses(&name, &breaks, message).await;
    }
}

#[tokio::test]
async fn every_rule_about_names_holds_and_breaks_where_it_should() {
    let space = Cluster::shared().await.namespace().await;
    for Naming { kind, message, spec, holds, breaks } in namings() {
        let objects = Objects::of(kind, &space);
        for name in holds {
            objects.accepts(&name, &spec).await;
        }
        for name in breaks {
            objects.refuses(&name, &spec, message).await;
        }
    }
}
