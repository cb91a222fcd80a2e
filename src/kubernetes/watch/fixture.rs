//! A cache that tests fill: as if the events came from a watch.

use super::*;

impl<K> Cache<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize,
    K: std::fmt::Debug + Send + Sync + 'static,
{
    /// A full cache of all namespaces, at this version.
    pub(crate) fn filled(version: u64, objects: Vec<K>) -> Self {
        let packer = Packer::new(Keep::Whole);
        let part = Part {
            namespace: None,
            objects: RwLock::new(objects.into_iter().map(|object| (key(&object), packer.pack(object))).collect()),
            version: AtomicU64::new(version),
            rewinds: AtomicU64::new(0),
            is_listed: watch::Sender::new(true),
            lists: watch::Sender::new(1),
            is_doubted: Notify::new(),
        };
        let changes = broadcast::Sender::new(CHANGES);
        Self { shared: Arc::new(Shared { packer, parts: vec![part], changes }) }
    }

    /// An empty cache that nothing follows.
    pub(crate) fn detached() -> Self {
        Self::filled(0, Vec::new())
    }

    /// Everything of the kind, and how new that is.
    pub(crate) fn set(&self, objects: &[K], version: u64) {
        for part in &self.shared.parts {
            let objects = objects.iter().map(|object| (key(object), self.shared.packer.pack(trimmed(object.clone()))));
            *part.objects.write() = objects.collect();
            part.version.store(version, Ordering::Release);
            part.lists.send_modify(|lists| *lists += 1);
        }
        let _ = self.shared.changes.send(Change::All);
    }

    /// An object was written.
    pub(crate) fn apply(&self, version: u64, object: K) {
        let key = key(&object);
        self.shared.parts[0].objects.write().insert(key.clone(), self.shared.packer.pack(object));
        self.told(version, Change::One(key));
    }

    /// An object was deleted.
    pub(crate) fn delete(&self, version: u64, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.shared.parts[0].objects.write().remove(&key);
        self.told(version, Change::One(key));
    }

    /// A relist ended; `objects` is what there is.
    pub(crate) fn relist(&self, version: u64, objects: Vec<K>) {
        *self.shared.parts[0].objects.write() =
            objects.into_iter().map(|object| (key(&object), self.shared.packer.pack(object))).collect();
        self.told(version, Change::All);
        self.shared.parts[0].lists.send_modify(|lists| *lists += 1);
    }

    /// A relist was older than what was seen: the cluster's history went back.
    pub(crate) fn rewind(&self, version: u64) {
        self.shared.parts[0].rewinds.fetch_add(1, Ordering::AcqRel);
        self.shared.parts[0].version.store(version, Ordering::Release);
        self.told(version, Change::All);
        self.shared.parts[0].lists.send_modify(|lists| *lists += 1);
    }

    /// Waits until somebody doubts that the cache is new.
    pub(crate) async fn doubted(&self) {
        self.shared.parts[0].is_doubted.notified().await;
    }

    /// Answers whoever doubts it with what there is.
    pub(crate) async fn answer_doubts(self) {
        loop {
            self.doubted().await;
            self.shared.parts[0].lists.send_modify(|lists| *lists += 1);
        }
    }

    fn told(&self, version: u64, change: Change) {
        self.shared.parts[0].version.fetch_max(version, Ordering::AcqRel);
        let _ = self.shared.changes.send(change);
    }
}
