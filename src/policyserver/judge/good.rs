//! The last good form of every object: an edit that breaks an object does not reach gateways.
//!
//! When an object was edited and is now wrong, its last form without an error stands in for it, with the labels of
//! today: what it grants and denies stays, the status says what is wrong, and all other objects move on. Where the old
//! form is wrong by now as well (what it referred to is gone), the new one counts, so that a broken object can still be
//! narrowed. This process forgets last good forms when it ends; then `parse` decides alone, which fails closed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::gather::Gathered;
use crate::api::{McpGateway, McpRole, McpServer, McpTool, Object};
use crate::policy::parse::{Objects, parse};
use crate::policy::{Finding, ObjectRef, Severity, World};
use crate::policyserver::index::About;

/// The last good forms of the objects of one namespace.
#[derive(Default)]
pub(super) struct Good {
    servers: Kind<McpServer>,
    tools: Kind<McpTool>,
    roles: Kind<McpRole>,
    gateways: Kind<McpGateway>,
}

/// By name. What is good now is the cache's own object, so this costs memory only for what is broken.
struct Kind<K>(HashMap<String, Arc<K>>);

impl<K> Default for Kind<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl Good {
    /// The world that is in force, what is wrong with the objects as they are, and all objects with their generations.
    pub(super) fn parse(
        &mut self,
        gathered: &Gathered,
        namespace: &str,
    ) -> (World, Vec<Finding>, HashMap<ObjectRef, About>) {
        let objects = gathered.objects(namespace);
        let (mut world, findings) = parse(&objects);
        let broken = broken(&findings);
        if let Some(replaced) = self.stand_in(&objects, &broken, &HashSet::new()) {
            let (with_all, of_replaced) = parse(&replaced);
            // A form that is wrong by now as well does not stand in.
            let still: HashSet<ObjectRef> = self::broken(&of_replaced).intersection(&broken).cloned().collect();
            world = if still.is_empty() {
                with_all
            } else {
                self.stand_in(&objects, &broken, &still).map_or(world, |replaced| parse(&replaced).0)
            };
        }
        let judged = generations(&objects);
        self.servers.remember(gathered.servers(namespace), &broken);
        self.tools.remember(gathered.tools(namespace), &broken);
        self.roles.remember(gathered.roles(namespace), &broken);
        self.gateways.remember(gathered.gateways(namespace), &broken);
        (world, findings, judged)
    }

    /// Nothing changed that policy can see: holds the newest copies, not old ones beside them.
    pub(super) fn refresh(&mut self, gathered: &Gathered, namespace: &str) {
        self.servers.refresh(gathered.servers(namespace));
        self.tools.refresh(gathered.tools(namespace));
        self.roles.refresh(gathered.roles(namespace));
        self.gateways.refresh(gathered.gateways(namespace));
    }

    /// The objects with their last good forms where they are broken; `None` if there is none to take.
    fn stand_in(&self, objects: &Objects, broken: &HashSet<ObjectRef>, but: &HashSet<ObjectRef>) -> Option<Objects> {
        if broken.is_empty() {
            return None;
        }
        let mut replaced = objects.clone();
        let is_wanted = |object: &ObjectRef| broken.contains(object) && !but.contains(object);
        let found = [
            self.servers.stand_in(&mut replaced.servers, &is_wanted),
            self.tools.stand_in(&mut replaced.tools, &is_wanted),
            self.roles.stand_in(&mut replaced.roles, &is_wanted),
            self.gateways.stand_in(&mut replaced.gateways, &is_wanted),
        ];
        found.contains(&true).then_some(replaced)
    }
}

impl<K: kube::Resource<DynamicType = ()> + Clone> Kind<K> {
    fn stand_in(&self, objects: &mut [Arc<K>], is_wanted: &dyn Fn(&ObjectRef) -> bool) -> bool {
        let mut any = false;
        for object in objects.iter_mut().filter(|object| is_wanted(&reference(object.as_ref()))) {
            let Some(good) = self.0.get(object.name()) else { continue };
            if good.uid() != object.uid() || good.generation() >= object.generation() {
                continue; // Another object of this name, or what is wrong is not its edit.
            }
            let mut standing = K::clone(good);
            standing.meta_mut().labels.clone_from(&object.meta().labels);
            *object = Arc::new(standing);
            any = true;
        }
        any
    }

    fn remember(&mut self, objects: &[Arc<K>], broken: &HashSet<ObjectRef>) {
        let mut before = std::mem::take(&mut self.0);
        for object in objects {
            let is_broken = broken.contains(&reference(object.as_ref()));
            let kept = before.remove(object.name()).filter(|good| is_broken && good.uid() == object.uid());
            let good = if is_broken { kept } else { Some(Arc::clone(object)) };
            self.0.extend(good.map(|good| (object.name().to_owned(), good)));
        }
    }

    fn refresh(&mut self, objects: &[Arc<K>]) {
        for object in objects {
            if let Some(good) = self.0.get_mut(object.name())
                && good.uid() == object.uid()
                && good.generation() == object.generation()
            {
                *good = Arc::clone(object);
            }
        }
    }
}

fn broken(findings: &[Finding]) -> HashSet<ObjectRef> {
    findings.iter().filter(|finding| finding.severity == Severity::Error).map(|f| f.object.clone()).collect()
}

fn generations(objects: &Objects) -> HashMap<ObjectRef, About> {
    fn of<K: Object>(objects: &[Arc<K>]) -> impl Iterator<Item = (ObjectRef, About)> {
        let about = |object: &K| About { generation: Some(object.generation()), ..About::default() };
        objects.iter().map(move |object| (reference(object.as_ref()), about(object)))
    }
    let Objects { servers, tools, roles, gateways, cluster: _, config_maps: _ } = objects;
    of(servers).chain(of(tools)).chain(of(roles)).chain(of(gateways)).collect()
}

fn reference<K: Object>(object: &K) -> ObjectRef {
    ObjectRef { kind: K::kind(), namespace: object.namespace().to_owned(), name: object.name().to_owned() }
}
