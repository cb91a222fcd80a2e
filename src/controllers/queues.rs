//! Who is looked at when: changes of caches, of the judgement and of gateways become keys in queues.
//!
//! An object that changed is due at once, but for the echo of our own write. What only follows from others (an
//! acknowledgement, a policy that was compiled anew) is collected for a moment: see [`super::ripple`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::api::{McpServer, Object as _};
use crate::kubernetes::apply::Object;
use crate::kubernetes::queue::{Queue, jittered};
use crate::kubernetes::watch::{Cache, Change};
use crate::kubernetes::{Key, labels};
use crate::policy::ObjectRef;
use crate::policy::snapshot::{Input, Target};
use crate::policyserver::fleet::Changed;
use crate::policyserver::index::{Judgement, Published};

use super::context::Context;
use super::ripple::{COLLECT, Ripple, Stir};
use super::{mcpserver, mcptool};

/// The four queues.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) servers: Queue,
    pub(super) tools: Queue,
    pub(super) roles: Queue,
    pub(super) gateways: Queue,
    /// Servers whose policy, pods or gateways changed.
    pub(super) ripple: Ripple,
}

impl Queues {
    /// Feeds the queues for as long as it is polled.
    pub(super) async fn feed(&self, context: &Context, resync: Duration) {
        let caches = &context.caches;
        let own = async {
            tokio::join!(
                self.servers_change(context),
                self.tools_change(context),
                self.roles_change(context),
                self.gateways_change(context),
            )
        };
        let children = async {
            tokio::join!(
                self.children(context, &caches.deployments),
                self.children(context, &caches.services),
                follow(&caches.services, |service, _| self.fronting(context, service), || {}), // After a list all are due.
                self.children(context, &caches.service_accounts),
                self.children(context, &caches.config_maps),
                self.children(context, &caches.network_policies),
                self.children(context, &caches.disruption_budgets),
                follow(
                    &caches.pods,
                    |key, _| self.ripple.stir(server_of_pod_name(key), Stir::Any),
                    || self.stir_all(context)
                ),
            )
        };
        tokio::join!(
            own,
            children,
            self.judgements(context),
            self.fleet(context),
            self.ripple.spread(self, context),
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
        let one = |key: &Key, is_status: bool| {
            if is_status {
                self.ripple.stir(key.clone(), Stir::Status); // Its tools say whether it is Ready.
                if !context.written.is_echo(key, &caches.servers) {
                    self.servers.add(key.clone());
                }
                return;
            }
            self.servers.add(key.clone());
            self.ripple.stir(key.clone(), Stir::Any);
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
        let one = |key: &Key, is_status: bool| {
            if is_status {
                if !context.written.is_echo(key, tools) {
                    self.tools.add(key.clone());
                }
                return; // No server reads it.
            }
            // One that is gone shows in the judgement.
            if let Some(tool) = tools.get(key) {
                self.servers.add(mcptool::server(&tool));
            }
            self.tools.add(key.clone());
        };
        follow(tools, one, || self.all(tools, &self.tools)).await;
    }

    async fn roles_change(&self, context: &Context) {
        let roles = &context.caches.roles;
        let one = |key: &Key, is_status: bool| {
            if !(is_status && context.written.is_echo(key, roles)) {
                self.roles.add(key.clone());
            }
        };
        follow(roles, one, || self.all(roles, &self.roles)).await;
    }

    async fn gateways_change(&self, context: &Context) {
        let gateways = &context.caches.gateways;
        let one = |key: &Key, is_status: bool| {
            if is_status && context.written.is_echo(key, gateways) {
                return;
            }
            self.gateways.add(key.clone());
            if !is_status {
                self.trusting(context, key);
            }
        };
        follow(gateways, one, || self.all(gateways, &self.gateways)).await;
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
        let one = |child: &Key, _: bool| {
            if context.written.is_echo(child, cache) {
                return;
            }
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
        for (target, newer) in &now.published {
            let older = before.published.get(target);
            if older.is_none_or(|older| !Arc::ptr_eq(older, newer)) {
                self.republished(target, older.map(Arc::as_ref), Some(newer));
            }
        }
        for (target, older) in before.published.iter().filter(|(target, _)| !now.published.contains_key(*target)) {
            self.republished(target, Some(older), None);
        }
        for target in before.refusals.keys().chain(now.refusals.keys()) {
            if before.refusals.get(target) != now.refusals.get(target) {
                self.ripple.stir((target.namespace.clone(), target.server.clone()), Stir::Any);
                let published = [before, now].into_iter().filter_map(|of| of.published.get(target));
                published.flat_map(|published| &published.inputs).for_each(|input| self.input(target, input));
            }
        }
        for (namespace, newer) in &now.said {
            let older = before.said.get(namespace);
            if older.is_some_and(|older| Arc::ptr_eq(older, newer)) {
                continue;
            }
            for (object, about) in newer.iter() {
                if older.and_then(|older| older.get(object)) != Some(about) {
                    self.object(object);
                }
            }
        }
        for (namespace, older) in &before.said {
            let newer = now.said.get(namespace);
            if newer.is_some_and(|newer| Arc::ptr_eq(older, newer)) {
                continue;
            }
            let is_gone = |object: &&ObjectRef| newer.is_none_or(|newer| !newer.contains_key(*object));
            older.keys().filter(is_gone).for_each(|object| self.object(object));
        }
    }

    /// A server has another policy. Whatever it was made with before and now is the same needs no look.
    fn republished(&self, target: &Target, before: Option<&Published>, now: Option<&Published>) {
        let what = |of: Option<&Published>| of.map(|published| (published.hash.clone(), published.version.epoch));
        if what(before) == what(now) {
            return;
        }
        self.ripple.stir((target.namespace.clone(), target.server.clone()), Stir::Policy);
        let (before, now) = (inputs(before), inputs(now)); // Sorted.
        let left = before.iter().filter(|input| now.binary_search(input).is_err());
        let came = now.iter().filter(|input| before.binary_search(input).is_err());
        left.chain(came).for_each(|input| self.input(target, input));
    }

    fn input(&self, target: &Target, input: &Input) {
        self.add(&input.kind, (target.namespace.clone(), input.name.clone()), COLLECT);
    }

    fn object(&self, ObjectRef { kind, namespace, name }: &ObjectRef) {
        self.add(kind, (namespace.clone(), name.clone()), Duration::ZERO);
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
                    Ok(Changed { target, is_ack }) => {
                        let stir = if is_ack { Stir::Policy } else { Stir::Any };
                        self.ripple.stir((target.namespace, target.server), stir);
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => self.stir_all(context),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Ok(()) = completes.changed() => self.stir_all(context),
            }
        }
    }

    fn stir_all(&self, context: &Context) {
        for server in context.caches.servers.all() {
            self.ripple.stir(key(server.as_ref()), Stir::Any);
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

fn inputs(of: Option<&Published>) -> &[Input] {
    of.map(|published| published.inputs.as_slice()).unwrap_or_default()
}

fn keys<K: Object>(cache: &Cache<K>) -> Vec<Key> {
    cache.all().iter().map(|object| key(object.as_ref())).collect()
}

pub(super) fn key<K: Object>(object: &K) -> Key {
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

/// `one` is told of an object, and whether nothing but its status was written.
async fn follow<K: Object>(cache: &Cache<K>, one: impl Fn(&Key, bool), all: impl Fn()) {
    let mut changes = cache.changes();
    all(); // What was there before this listened.
    while let Some(change) = changes.next().await {
        match change {
            Change::One(key) => one(&key, false),
            Change::Status(key) => one(&key, true),
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
