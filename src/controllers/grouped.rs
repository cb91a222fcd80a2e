//! The objects of a cache by the server that they belong to, so that a look at one of many servers reads no other.
//!
//! Follows the cache's changes: a look costs what changed since the last one, and a cache of ten thousand objects is read
//! as a whole only after it was listed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::kubernetes::Key;
use crate::kubernetes::apply::Object;
use crate::kubernetes::watch::{Cache, Change, Changes};

/// The objects of a cache, by server.
pub(super) struct Grouped<K> {
    cache: Cache<K>,
    by: fn(&K) -> Option<Key>,
    kept: Mutex<Kept<K>>,
}

struct Kept<K> {
    changes: Changes,
    is_begun: bool,
    /// By server, by name.
    groups: HashMap<Key, BTreeMap<String, Arc<K>>>,
    /// The server under which an object is kept: a change may move it, or be its end.
    places: HashMap<Key, Key>,
}

impl<K: Object> Grouped<K> {
    /// `by` names the server of an object, if it has one.
    pub(super) fn new(cache: Cache<K>, by: fn(&K) -> Option<Key>) -> Self {
        let kept = Kept { changes: cache.changes(), is_begun: false, groups: HashMap::new(), places: HashMap::new() };
        Self { cache, by, kept: Mutex::new(kept) }
    }

    /// The objects of a server, in the order of their names. As new as the last change that was told.
    pub(super) fn of(&self, server: &Key) -> Vec<Arc<K>> {
        let mut kept = self.kept.lock();
        while let Some(change) = kept.changes.told() {
            match change {
                Change::One(key) | Change::Status(key) => kept.put(&key, self.cache.get(&key), self.by),
                Change::All => kept.is_begun = false,
            }
        }
        if !kept.is_begun {
            kept.is_begun = true;
            kept.groups.clear();
            kept.places.clear();
            for object in self.cache.all() {
                let meta = object.meta();
                let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
                kept.put(&key, Some(object), self.by);
            }
        }
        kept.groups.get(server).map(|group| group.values().cloned().collect()).unwrap_or_default()
    }
}

impl<K> Kept<K> {
    /// Puts an object where it belongs now; `None`: it was deleted.
    fn put(&mut self, key: &Key, object: Option<Arc<K>>, by: fn(&K) -> Option<Key>) {
        let server = object.as_deref().and_then(by);
        if let Some(before) = self.places.remove(key)
            && server.as_ref() != Some(&before)
            && let Some(group) = self.groups.get_mut(&before)
        {
            group.remove(&key.1);
            if group.is_empty() {
                self.groups.remove(&before);
            }
        }
        if let (Some(object), Some(server)) = (object, server) {
            self.groups.entry(server.clone()).or_default().insert(key.1.clone(), object);
            self.places.insert(key.clone(), server);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{McpTool, McpToolSpec};

    fn tool(name: &str, server: &str) -> McpTool {
        let mut tool = McpTool::new(name, serde_json::from_value::<McpToolSpec>(spec(server)).unwrap());
        tool.metadata.namespace = Some("n".to_owned());
        tool
    }

    fn spec(server: &str) -> serde_json::Value {
        serde_json::json!({"serverRef": {"name": server}, "toolName": "x"})
    }

    fn names(grouped: &Grouped<McpTool>, server: &str) -> Vec<String> {
        let found = grouped.of(&("n".to_owned(), server.to_owned()));
        found.iter().map(|tool| tool.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn a_look_finds_what_came_moved_and_went_since_the_last() {
        let cache = Cache::detached();
        cache.set(&[tool("b", "one"), tool("a", "one"), tool("c", "two")], 1);
        let grouped =
            Grouped::new(cache.clone(), |tool: &McpTool| Some(("n".to_owned(), tool.spec.server_ref.name.clone())));
        assert_eq!((names(&grouped, "one"), names(&grouped, "two")), (vec!["a".into(), "b".into()], vec!["c".into()]));

        cache.apply(2, tool("b", "two"));
        cache.apply(3, tool("d", "one"));
        cache.delete(4, "n", "a");
        assert_eq!((names(&grouped, "one"), names(&grouped, "two")), (vec!["d".into()], vec!["b".into(), "c".into()]));

        cache.relist(5, vec![tool("e", "two")]);
        assert_eq!((names(&grouped, "one"), names(&grouped, "two")), (vec![], vec!["e".to_owned()]));
    }
}
