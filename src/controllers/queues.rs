//! Who is looked at when: changes of caches, of the judgement and of gateways become keys in queues.
//!
//! An object that changed is due at once. What only follows from others (an acknowledgement, a policy that was
//! compiled anew) is collected for a moment: a thousand gateways that acknowledge one edit make few looks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tokio::time::sleep;

use crate::api::{McpServer, Object as _};
use crate::kubernetes::apply::Object;
use crate::kubernetes::queue::{Queue, jittered};
use crate::kubernetes::watch::{Cache, Change};
use crate::kubernetes::{Key, labels};
use crate::policy::ObjectRef;
use crate::policyserver::index::Judgement;

use super::context::Context;
use super::{mcpserver, mcptool};

/// How long what follows from others is collected.
const COLLECT: Duration = Duration::from_millis(200);

/// The four queues.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) servers: Queue,
    pub(super) tools: Queue,
    pub(super) roles: Queue,
    pub(super) gateways: Queue,
    /// Servers whose policy, pods or gateways changed.
    stirred: Mutex<HashSet<Key>>,
    is_stirred: Notify,
}

impl Queues {
    /// Feeds the queues for as long as it is polled.
    pub(super) async fn feed(&self, context: &Context, resync: Duration) {
        let caches = &context.caches;
        let own = async {
            tokio::join!(
                self.servers_change(context),
                self.tools_change(context),
                follow(&caches.roles, |key| self.roles.add(key.clone()), || self.all(&caches.roles, &self.roles)),
                follow(
                    &caches.gateways,
                    |key| {
                        self.gateways.add(key.clone());
                        self.trusting(context, key);
                    },
                    || self.all(&caches.gateways, &self.gateways)
                ),
            )
        };
        let children = async {
            tokio::join!(
                self.children(context, &caches.deployments),
                self.children(context, &caches.services),
                follow(&caches.services, |key| self.fronting(context, key), || {}), // After every list all are due.
                self.children(context, &caches.service_accounts),
                self.children(context, &caches.config_maps),
                self.children(context, &caches.network_policies),
                self.children(context, &caches.disruption_budgets),
                follow(&caches.pods, |key| self.stir(server_of_pod_name(key)), || self.stir_all(context)),
            )
        };
        tokio::join!(
            own,
            children,
            self.judgements(context),
            self.fleet(context),
            self.collect(context),
            self.resync(context, resync),
        );
    }

    fn all<K: Object>(&self, cache: &Cache<K>, queue: &Queue) {
        let _ = self;
        for object in cache.all() {
            queue.add(key(object.as_ref()));
        }
    }

    async fn servers_change(&self, context: &Context) {
        let caches = &context.caches;
        let one = |key: &Key| {
            self.servers.add(key.clone());
            self.stir(key.clone()); // Its tools say whether it is Ready.
            if let Some(server) = caches.servers.get(key) {
                self.gateways.add((key.0.clone(), server.spec.gateway_ref.name.clone()));
            } else {
                // Whom it named is not known any more.
                caches
                    .gateways
                    .in_namespace(&key.0)
                    .iter()
                    .for_each(|gateway| self.gateways.add(self::key(gateway.as_ref())));
            }
        };
        follow(&caches.servers, one, || self.every_server(context)).await;
    }

    async fn tools_change(&self, context: &Context) {
        let tools = &context.caches.tools;
        let mut changes = tools.changes();
        self.all(tools, &self.tools); // What was there before this listened.
        while let Some(change) = changes.next().await {
            match change {
                Change::All => self.all(tools, &self.tools),
                Change::Status(key) => self.tools.add(key), // No server reads it.
                Change::One(key) => {
                    // One that is gone shows in the judgement.
                    if let Some(tool) = tools.get(&key) {
                        self.servers.add(mcptool::server(&tool));
                    }
                    self.tools.add(key);
                }
            }
        }
    }

    /// Every server, and every one that is gone but has children yet.
    fn every_server(&self, context: &Context) {
        let caches = &context.caches;
        self.all(&caches.servers, &self.servers);
        let mut gone = BTreeSet::new();
        orphans(&caches.deployments, &mut gone);
        orphans(&caches.services, &mut gone);
        orphans(&caches.service_accounts, &mut gone);
        orphans(&caches.config_maps, &mut gone);
        orphans(&caches.network_policies, &mut gone);
        orphans(&caches.disruption_budgets, &mut gone);
        for key in gone.into_iter().filter(|key| caches.servers.get(key).is_none()) {
            self.servers.add(key);
        }
    }

    /// The servers that trust a gateway's issuers: their barrier lets them fetch the keys.
    fn trusting(&self, context: &Context, gateway: &Key) {
        for server in context.caches.servers.in_namespace(&gateway.0) {
            if server.spec.gateway_ref.name == gateway.1 {
                self.servers.add_after(key(server.as_ref()), COLLECT);
            }
        }
    }

    async fn children<K: Object>(&self, context: &Context, cache: &Cache<K>) {
        let one = |child: &Key| {
            if child.1 == mcpserver::CA_MAP {
                // Any server of the namespace keeps it; without one it goes.
                let servers = context.caches.servers.in_namespace(&child.0);
                self.servers.add(servers.first().map_or_else(|| child.clone(), |server| key(server.as_ref())));
                return;
            }
            let labelled =
                cache.get(child).and_then(|object| object.meta().labels.as_ref()?.get(labels::SERVER).cloned());
            let server = labelled.unwrap_or_else(|| mcpserver::server_of_child(&child.1).to_owned());
            let server = (child.0.clone(), server);
            if context.caches.servers.get(&server).is_some()
                || cache.get(child).is_some_and(|object| is_labelled(object.as_ref()))
            {
                self.servers.add(server);
            }
        };
        follow(cache, one, || self.every_server(context)).await;
    }

    /// The servers whose source is a Service of this name.
    fn fronting(&self, context: &Context, service: &Key) {
        let names =
            |server: &McpServer| server.spec.source.service.as_ref().is_some_and(|source| source.name == service.1);
        let servers = context.caches.servers.in_namespace(&service.0);
        servers.iter().filter(|server| names(server)).for_each(|server| self.servers.add(key(server.as_ref())));
    }

    /// What a new judgement says otherwise than the one before.
    async fn judgements(&self, context: &Context) {
        let mut changes = context.index.changes();
        let mut before = Arc::new(Judgement::default());
        loop {
            let now = context.index.now();
            self.compare(&before, &now);
            before = now;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn compare(&self, before: &Judgement, now: &Judgement) {
        let targets = before
            .published
            .keys()
            .chain(now.published.keys())
            .chain(before.refusals.keys())
            .chain(now.refusals.keys());
        for target in targets.collect::<HashSet<_>>() {
            let hash = |of: &Judgement| {
                of.published.get(target).map(|published| (published.hash.clone(), published.version.epoch))
            };
            if hash(before) != hash(now) || before.refusals.get(target) != now.refusals.get(target) {
                self.stir((target.namespace.clone(), target.server.clone()));
                for published in [before, now].into_iter().filter_map(|of| of.published.get(target)) {
                    for input in &published.inputs {
                        self.add(&input.kind, (target.namespace.clone(), input.name.clone()), COLLECT);
                    }
                }
            }
        }
        let objects =
            before.judged.keys().chain(now.judged.keys()).chain(before.findings.keys()).chain(now.findings.keys());
        for object in objects.collect::<HashSet<_>>() {
            let said = |of: &Judgement| (of.judged.get(object).copied(), of.reach.get(object).copied());
            if said(before) != said(now) || before.findings.get(object) != now.findings.get(object) {
                let ObjectRef { kind, namespace, name } = object;
                self.add(kind, (namespace.clone(), name.clone()), Duration::ZERO);
            }
        }
    }

    fn add(&self, kind: &str, key: Key, wait: Duration) {
        match kind {
            "McpServer" => self.servers.add_after(key, wait),
            "McpTool" => self.tools.add_after(key, wait),
            "McpRole" => self.roles.add_after(key, wait),
            "McpGateway" => self.gateways.add_after(key, wait),
            _ => {} // Policy reads ConfigMaps too, of which nothing is said.
        }
    }

    async fn fleet(&self, context: &Context) {
        let mut changes = context.fleet.changes();
        let mut completes = context.fleet.is_complete();
        loop {
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(target) => self.stir((target.namespace, target.server)),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.stir_all(context),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Ok(()) = completes.changed() => self.stir_all(context),
            }
        }
    }

    fn stir(&self, server: Key) {
        self.stirred.lock().insert(server);
        self.is_stirred.notify_one();
    }

    fn stir_all(&self, context: &Context) {
        let servers = context.caches.servers.all();
        self.stirred.lock().extend(servers.iter().map(|server| key(server.as_ref())));
        self.is_stirred.notify_one();
    }

    /// Everything that follows from servers that changed: themselves, their tools, and the roles and gateways that
    /// their policy was made with.
    async fn collect(&self, context: &Context) {
        loop {
            self.is_stirred.notified().await;
            sleep(COLLECT).await;
            let stirred = std::mem::take(&mut *self.stirred.lock());
            let judgement = context.index.now();
            let by_target: HashMap<(&str, &str), _> = judgement
                .published
                .iter()
                .map(|(target, published)| ((target.namespace.as_str(), target.server.as_str()), published))
                .collect();
            for server in &stirred {
                if context.caches.servers.get(server).is_some() {
                    self.servers.add(server.clone());
                }
                context.tools(server).iter().for_each(|tool| self.tools.add(key(tool.as_ref())));
                let published = by_target.get(&(server.0.as_str(), server.1.as_str()));
                for input in published.into_iter().flat_map(|published| &published.inputs) {
                    self.add(&input.kind, (server.0.clone(), input.name.clone()), Duration::ZERO);
                }
            }
        }
    }

    /// Looks at everything from time to time, spread out: what no event told is repaired then.
    async fn resync(&self, context: &Context, every: Duration) {
        loop {
            sleep(every).await;
            let caches = &context.caches;
            let spread = |queue: &Queue, keys: Vec<Key>| {
                for key in keys {
                    queue.add_after(key, jittered(every / 2));
                }
            };
            spread(&self.servers, keys(&caches.servers));
            spread(&self.tools, keys(&caches.tools));
            spread(&self.roles, keys(&caches.roles));
            spread(&self.gateways, keys(&caches.gateways));
        }
    }
}

fn keys<K: Object>(cache: &Cache<K>) -> Vec<Key> {
    cache.all().iter().map(|object| key(object.as_ref())).collect()
}

fn key<K: Object>(object: &K) -> Key {
    (crate::api::Object::namespace(object).to_owned(), crate::api::Object::name(object).to_owned())
}

fn is_labelled<K: Object>(object: &K) -> bool {
    object.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(labels::SERVER))
}

/// Servers that the labels of children name, and the CA of each namespace.
fn orphans<K: Object>(cache: &Cache<K>, found: &mut BTreeSet<Key>) {
    for object in cache.all() {
        let labels = object.meta().labels.as_ref();
        let is_ours = labels.and_then(|labels| labels.get(labels::MANAGED_BY)).is_some_and(|by| by == labels::TOOLGATE);
        let server = labels.and_then(|labels| labels.get(labels::SERVER)).cloned();
        let name = server.unwrap_or_else(|| object.name().to_owned());
        if is_ours {
            found.insert((object.namespace().to_owned(), name));
        }
    }
}

/// `NAME-<hash of the template>-<suffix>`: a pod that is gone has no labels any more.
fn server_of_pod_name(pod: &Key) -> Key {
    let mut parts = pod.1.rsplitn(3, '-');
    let server = parts.nth(2).unwrap_or(&pod.1);
    (pod.0.clone(), server.to_owned())
}

async fn follow<K: Object>(cache: &Cache<K>, one: impl Fn(&Key), all: impl Fn()) {
    let mut changes = cache.changes();
    all(); // What was there before this listened.
    while let Some(change) = changes.next().await {
        match change {
            Change::One(key) | Change::Status(key) => one(&key),
            Change::All => all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_of_a_pod_is_read_from_its_name() {
        let of = |pod: &str| server_of_pod_name(&("ns".to_owned(), pod.to_owned())).1;

        assert_eq!(of("github-mcp-7d9c8b5f6d-x2v4q"), "github-mcp");
        assert_eq!(of("odd"), "odd");
    }
}
