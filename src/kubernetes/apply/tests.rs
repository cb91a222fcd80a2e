use k8s_openapi::api::core::v1::{ConfigMap, Service};

use super::*;
use crate::kubernetes::fake::Fake;

const MAPS: &str = "api/v1/configmaps";

fn writer(fake: &Fake) -> Writer {
    Writer::new(fake.client(), "test", Arc::new(Metrics::new().unwrap()), Arc::default())
}

fn desired(data: &[(&str, &str)]) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "m", "labels": labels::of_server("a"), "ownerReferences": [
            {"apiVersion": "toolgate.dev/v1alpha1", "kind": "McpServer", "name": "a", "uid": "u1", "controller": true},
        ]},
        "data": data.iter().copied().collect::<HashMap<_, _>>(),
    }))
    .unwrap()
}

/// What the cache would see.
fn refresh<K: Object>(fake: &Fake, resource: &str, cache: &Cache<K>) {
    let objects: Vec<K> =
        fake.all(resource).into_iter().map(|object| serde_json::from_value(object).unwrap()).collect();
    cache.set(&objects, fake.version());
}

#[tokio::test]
async fn what_is_as_declared_is_not_written() {
    let (fake, cache) = (Fake::default(), Cache::detached());
    let writer = writer(&fake);

    assert_eq!(writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap(), Applied::Written);
    refresh(&fake, MAPS, &cache);
    assert_eq!(writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap(), Applied::Unchanged);

    assert_eq!(fake.writes(), ["PATCH api/v1/configmaps/default/m"]);
}

#[tokio::test]
async fn our_own_write_is_an_echo_once_and_what_others_write_after_it_is_none() {
    let (fake, cache) = (Fake::default(), Cache::<ConfigMap>::detached());
    let (writer, key) = (writer(&fake), ("default".to_owned(), "m".to_owned()));

    writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap();
    assert!(!writer.written.is_echo(&key, &cache), "the cache does not have it yet");
    refresh(&fake, MAPS, &cache);
    assert!(writer.written.is_echo(&key, &cache));
    assert!(!writer.written.is_echo(&key, &cache));

    writer.apply(&desired(&[("k", "2")]), &cache).await.unwrap();
    let mut object = fake.all(MAPS).pop().unwrap();
    object["data"]["theirs"] = json!("x");
    fake.put(MAPS, object);
    refresh(&fake, MAPS, &cache);
    assert!(!writer.written.is_echo(&key, &cache));
}

#[tokio::test]
async fn what_was_declared_once_is_removed_and_what_others_added_stays() {
    let (fake, cache) = (Fake::default(), Cache::detached());
    let writer = writer(&fake);
    writer.apply(&desired(&[("old", "1"), ("k", "1")]), &cache).await.unwrap();
    let mut object = fake.all(MAPS).pop().unwrap();
    object["data"]["theirs"] = json!("x");
    fake.put(MAPS, object);
    refresh(&fake, MAPS, &cache);

    assert_eq!(writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap(), Applied::Written);

    assert_eq!(fake.all(MAPS)[0]["data"], json!({"k": "1", "theirs": "x"}));
}

#[tokio::test]
async fn an_edit_by_hand_is_repaired() {
    let (fake, cache) = (Fake::default(), Cache::detached());
    let writer = writer(&fake);
    writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap();
    let mut object = fake.all(MAPS).pop().unwrap();
    object["data"]["k"] = json!("forged");
    fake.put(MAPS, object);
    refresh(&fake, MAPS, &cache);

    assert_eq!(writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap(), Applied::Written);
    assert_eq!(fake.all(MAPS)[0]["data"]["k"], "1");
}

#[tokio::test]
async fn an_object_of_somebody_else_is_never_taken_over() {
    let (fake, cache) = (Fake::default(), Cache::detached());
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": "m"},
        "data": {"k": "theirs"}});
    fake.put(MAPS, theirs);

    assert_eq!(writer(&fake).apply(&desired(&[("k", "1")]), &cache).await.unwrap(), Applied::Foreign);

    assert_eq!(fake.writes(), Vec::<String>::new());
    assert_eq!(fake.all(MAPS)[0]["data"]["k"], "theirs");
}

#[test]
fn ours_is_what_our_object_controls_or_what_bears_its_labels_and_is_free() {
    let wants = desired(&[]).metadata;
    let with = |change: fn(&mut Value)| -> ObjectMeta {
        let mut meta = serde_json::to_value(&wants).unwrap();
        change(&mut meta);
        serde_json::from_value(meta).unwrap()
    };

    assert!(is_ours(&with(|_| {}), &wants));
    // Somebody removed our labels: it is ours all the same.
    assert!(is_ours(&with(|meta| meta["labels"] = json!({})), &wants));
    // Left by an earlier McpServer of this name, or by a deletion that orphans.
    assert!(is_ours(&with(|meta| meta["ownerReferences"][0]["uid"] = json!("u0")), &wants));
    assert!(is_ours(&with(|meta| meta["ownerReferences"] = json!([])), &wants));

    assert!(!is_ours(
        &with(|meta| {
            meta["ownerReferences"] = json!([]);
            meta["labels"] = json!({});
        }),
        &wants
    ));
    assert!(!is_ours(
        &with(|meta| {
            meta["ownerReferences"] = json!([]);
            meta["labels"]["toolgate.dev/server"] = json!("b");
        }),
        &wants
    ));
    assert!(!is_ours(
        &with(|meta| {
            meta["ownerReferences"][0]["uid"] = json!("u9");
            meta["ownerReferences"][0]["name"] = json!("b");
        }),
        &wants
    ));
}

#[tokio::test]
async fn a_value_that_the_server_writes_otherwise_is_written_once() {
    let (fake, cache) = (Fake::default(), Cache::detached());
    let writer = writer(&fake);
    let mut normalised = desired(&[("k", "1000m")]);
    writer.apply(&normalised, &cache).await.unwrap();
    // As if the server had stored it in its own form: what it answered is what is compared with.
    let mut object = fake.all(MAPS).pop().unwrap();
    object["data"]["k"] = json!("1");
    fake.put(MAPS, object.clone());
    let live: ConfigMap = serde_json::from_value(fake.all(MAPS).pop().unwrap()).unwrap();
    let substance = compare::digest(&compare::substance(&serde_json::to_value(&live).unwrap())).unwrap();
    let digest = live.metadata.annotations.as_ref().unwrap()[labels::APPLIED].clone();
    writer.normalised.lock().insert(place::<ConfigMap>(&key(&live)), (digest, substance));
    refresh(&fake, MAPS, &cache);

    assert_eq!(writer.apply(&normalised, &cache).await.unwrap(), Applied::Unchanged);

    normalised.data = Some([("k".to_owned(), "2".to_owned())].into());
    assert_eq!(writer.apply(&normalised, &cache).await.unwrap(), Applied::Written);
}

#[tokio::test]
async fn a_cache_that_has_not_seen_our_last_write_is_behind() {
    let (fake, cache) = (Fake::default(), Cache::detached());
    let writer = writer(&fake);
    let key = ("default".to_owned(), "m".to_owned());
    assert!(!writer.is_behind(&key, &cache));

    writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap();

    assert!(writer.is_behind(&key, &cache));
    refresh(&fake, MAPS, &cache);
    assert!(!writer.is_behind(&key, &cache));
}

#[tokio::test]
async fn a_status_is_written_when_it_says_something_new_and_to_this_very_object() {
    let (fake, cache) = (Fake::default(), Cache::<Service>::detached());
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "s"}});
    fake.put("api/v1/services", object);
    refresh(&fake, "api/v1/services", &cache);
    let key = ("default".to_owned(), "s".to_owned());
    let status = |time: &str| {
        json!({"conditions": [
            {"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": time},
        ]})
    };
    let (old, writer) = (cache.get(&key).unwrap(), writer(&fake));

    assert!(writer.status(old.as_ref(), None, &status("2026-01-01T00:00:00Z")).await.unwrap());
    refresh(&fake, "api/v1/services", &cache);
    let (written, later) = (status("2026-01-01T00:00:00Z"), status("2026-01-02T00:00:00Z"));
    assert!(!writer.status(cache.get(&key).unwrap().as_ref(), Some(&written), &later).await.unwrap());

    fake.remove("api/v1/services", "default", "s");
    fake.put(
        "api/v1/services",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "s"}}),
    );
    assert!(!writer.status(old.as_ref(), None, &status("2026-01-01T00:00:00Z")).await.unwrap());
    assert!(fake.all("api/v1/services")[0].get("status").is_none());
}

#[tokio::test]
async fn only_the_object_that_was_meant_is_deleted() {
    let (fake, cache) = (Fake::default(), Cache::<ConfigMap>::detached());
    let writer = writer(&fake);
    writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap();
    refresh(&fake, MAPS, &cache);
    let old = cache.all().pop().unwrap();
    fake.remove(MAPS, "default", "m");
    writer.apply(&desired(&[("k", "2")]), &Cache::detached()).await.unwrap();

    assert!(!writer.delete(old.as_ref()).await.unwrap());
    assert_eq!(fake.all(MAPS).len(), 1);
    refresh(&fake, MAPS, &cache);
    assert!(writer.delete(cache.all().pop().unwrap().as_ref()).await.unwrap());
    assert!(fake.all(MAPS).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_ends() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
    });
    let writer =
        Writer::new(Client::new(service, "default"), "test", Arc::new(Metrics::new().unwrap()), Arc::default());

    let error = writer.apply(&desired(&[]), &Cache::detached()).await.unwrap_err();

    assert_eq!((error.label(), error.refusal()), ("timeout", None));
}

/// It would be for ever, or until the cluster has come so far again.
#[tokio::test]
async fn a_write_of_a_history_that_went_back_is_not_waited_for() {
    let (fake, cache) = (Fake::default(), Cache::<ConfigMap>::detached());
    let (writer, key) = (writer(&fake), ("default".to_owned(), "m".to_owned()));
    writer.apply(&desired(&[("k", "1")]), &cache).await.unwrap();
    assert!(writer.is_behind(&key, &cache));

    cache.rewind(0);

    assert!(!writer.is_behind(&key, &cache));
    writer.apply(&desired(&[("k", "2")]), &cache).await.unwrap();
    assert!(writer.is_behind(&key, &cache), "what is written from now on is waited for");
}
