use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::fake::Fake;

const MAPS: &str = "api/v1/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": name,
        "managedFields": [{"manager": "m"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "1"}}})
}

fn named(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

async fn watched(fake: &Fake) -> (Cache<ConfigMap>, Changes) {
    let (cache, keep) = Cache::new(&fake.client(), &Scope::All, "");
    let mut changes = cache.changes();
    tokio::spawn(keep);
    cache.ready().await;
    assert_eq!(changes.next().await, Some(Change::All));
    (cache, changes)
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_a_change_like_any_other() {
    let fake = Fake::default();
    fake.put(MAPS, map("a"));
    let (cache, mut changes) = watched(&fake).await;
    assert!(cache.get(&named("a")).is_some());

    fake.put(MAPS, map("b"));
    assert_eq!(changes.next().await, Some(Change::One(named("b"))));
    fake.remove(MAPS, "default", "a");
    assert_eq!(changes.next().await, Some(Change::One(named("a"))));

    assert!(cache.get(&named("a")).is_none());
    assert_eq!(cache.version("default"), fake.version());
}

#[tokio::test(start_paused = true)]
async fn what_vanished_during_a_relist_is_gone_from_the_cache_and_told() {
    let fake = Fake::default();
    for name in ["gone", "kept"] {
        fake.put(MAPS, map(name));
    }
    let (cache, mut changes) = watched(&fake).await;

    // The watch breaks off, and the deletion falls into the time without one: no event will ever tell it.
    fake.refuse_lists(2);
    fake.break_watches();
    fake.remove(MAPS, "default", "gone");

    assert_eq!(changes.next().await, Some(Change::All));
    assert!(cache.get(&named("gone")).is_none());
    assert!(cache.get(&named("kept")).is_some());
    // The deletion is the newest thing that happened, and it is in the list only by being left out.
    assert_eq!(cache.version("default"), fake.version());
    assert_eq!(cache.rewinds(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_went_back_is_counted_and_versions_follow_it() {
    let fake = Fake::default();
    for name in ["a", "b", "c"] {
        fake.put(MAPS, map(name));
    }
    let (cache, mut changes) = watched(&fake).await;
    assert_eq!(cache.version("default"), 3);

    fake.remove(MAPS, "default", "b");
    fake.remove(MAPS, "default", "c");
    while cache.version("default") < 5 {
        changes.next().await;
    }
    fake.rewind(2);
    fake.break_watches();
    while changes.next().await != Some(Change::All) {}

    assert_eq!((cache.rewinds(), cache.version("default")), (1, 2));
}

/// The API server takes a watch from a version that it has not reached yet, and says nothing until it has.
#[tokio::test(start_paused = true)]
async fn a_history_that_went_back_is_seen_although_the_watch_goes_on() {
    let fake = Fake::default();
    for name in ["a", "b", "c"] {
        fake.put(MAPS, map(name));
    }
    let (cache, mut changes) = watched(&fake).await;

    fake.rewind(1);
    fake.refuse_lists(2);
    fake.cut_watches();
    while changes.next().await != Some(Change::All) {}

    assert_eq!((cache.rewinds(), cache.version("default")), (1, 3), "the fake keeps its objects");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_off_and_goes_on_lists_nothing_anew() {
    let fake = Fake::default();
    fake.put(MAPS, map("a"));
    let (cache, mut changes) = watched(&fake).await;

    fake.cut_watches();
    tokio::time::sleep(PAUSES.1).await;
    fake.put(MAPS, map("b"));

    assert_eq!(changes.next().await, Some(Change::One(named("b"))));
    assert_eq!((cache.rewinds(), cache.version("default")), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn caches_hold_neither_managers_of_fields_nor_kubectls_copy() {
    let fake = Fake::default();
    fake.put(MAPS, map("a"));
    let (cache, _) = watched(&fake).await;

    let meta = cache.get(&named("a")).unwrap().metadata.clone();

    assert!(meta.managed_fields.unwrap_or_default().is_empty());
    assert_eq!(meta.annotations.unwrap().into_keys().collect::<Vec<_>>(), ["kept"]);
}

#[tokio::test]
async fn a_listener_that_is_too_slow_is_told_that_anything_may_have_changed() {
    let cache: Cache<ConfigMap> = Cache::detached();
    let mut changes = cache.changes();

    for index in 0..=CHANGES {
        let _ = cache.shared.changes.send(Change::One(named(&index.to_string())));
    }

    assert_eq!(changes.next().await, Some(Change::All));
}

/// A watch on which nothing happens does not tell how new it is.
#[tokio::test(start_paused = true)]
async fn a_quiet_cache_is_as_new_as_the_cluster_once_it_is_refreshed() {
    let fake = Fake::default();
    fake.put(MAPS, map("a"));
    let (cache, mut changes) = watched(&fake).await;
    for name in ["x", "y"] {
        fake.put("api/v1/secrets", json!({"metadata": {"namespace": "default", "name": name}}));
    }
    assert!(cache.version("default") < fake.version());

    cache.refresh("default").await;

    assert_eq!(cache.version("default"), fake.version());
    assert_eq!(changes.next().await, Some(Change::All));
    assert!(cache.get(&named("a")).is_some());
    // And it goes on watching.
    fake.put(MAPS, map("b"));
    assert_eq!(changes.next().await, Some(Change::One(named("b"))));
}

#[test]
fn a_written_status_is_told_apart_from_all_else() {
    let meta = |change: Value| -> ObjectMeta {
        let mut meta = json!({"uid": "u", "generation": 1, "resourceVersion": "1", "labels": {"a": "b"}});
        meta.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(meta).unwrap()
    };
    let before = meta(json!({}));
    assert!(differ_in_status(&before, &meta(json!({"resourceVersion": "2"}))));
    for change in [
        json!({"generation": 2}),
        json!({"uid": "v"}),
        json!({"labels": {"a": "c"}}),
        json!({"annotations": {"a": "b"}}),
        json!({"finalizers": ["a"]}),
        json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "w"}]}),
        json!({"deletionTimestamp": "2026-11-28T00:00:00Z"}),
    ] {
        assert!(!differ_in_status(&before, &meta(change.clone())), "{change}");
    }
    let services = meta(json!({"generation": null}));
    assert!(!differ_in_status(&services, &services));
}
