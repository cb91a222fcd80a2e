//! What follows from a server's change for others: its tools, and the roles and gateways that its policy was made with.
//!
//! One edit of a role concerns a thousand servers, and through them ten thousand tools of which nothing new is to be
//! said. So whoever is well by its own status, as its server is, hears nothing of acknowledgements: were one late, the
//! server's own status would say so, and that is a change of the server like any other. And servers that have only a new
//! policy to tell of take turns. Decides who is looked at, and never what is said.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::core::object::HasStatus;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api::Object;
use crate::api::conditions::{READY, holds};
use crate::api::status::{Report, conditions_of};
use crate::kubernetes::Key;
use crate::policyserver::fleet::Offer;
use crate::policyserver::index::Judgement;

use super::context::Context;
use super::queues::{Queues, key};
use super::turns;

/// How long what follows from others is collected.
pub(super) const COLLECT: Duration = Duration::from_millis(200);
/// More for each server: a look at a role or a gateway reads all of its namespace.
const COLLECT_EACH: Duration = Duration::from_millis(1);

/// What changed of a server, the least first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Stir {
    /// What is said of it. It needs no look itself.
    Status,
    /// Its policy, or who acknowledged it.
    Policy,
    /// Anything else.
    Any,
}

/// Servers that changed, until they are taken together.
#[derive(Default)]
pub(super) struct Ripple {
    servers: Mutex<HashMap<Key, Stir>>,
    is_stirred: Notify,
}

impl Ripple {
    /// A server changed.
    pub(super) fn stir(&self, server: Key, stir: Stir) {
        let mut servers = self.servers.lock();
        let known = servers.entry(server).or_insert(stir);
        *known = stir.max(*known);
        drop(servers);
        self.is_stirred.notify_one();
    }

    /// Puts into the queues what follows, for as long as it is polled.
    pub(super) async fn spread(&self, queues: &Queues, context: &Context) {
        let mut spread = Spread { queues, context, told: HashMap::new() };
        loop {
            let begin = context.turns.begin();
            tokio::select! {
                () = self.is_stirred.notified() => {
                    sleep(COLLECT).await;
                    let stirred = std::mem::take(&mut *self.servers.lock());
                    spread.all(stirred, Instant::now());
                }
                () = sleep_until(begin.unwrap_or_else(Instant::now)), if begin.is_some() => {
                    for (server, wait) in context.turns.set(Instant::now()) {
                        queues.servers.add_after(server, wait);
                    }
                }
            }
        }
    }
}

struct Spread<'a> {
    queues: &'a Queues,
    context: &'a Context,
    /// What each server offered when its tools were last looked at.
    told: HashMap<Key, Option<Arc<Offer>>>,
}

impl Spread<'_> {
    fn all(&mut self, stirred: HashMap<Key, Stir>, now: Instant) {
        let (queues, caches) = (self.queues, &self.context.caches);
        let judgement = self.context.index.now();
        let wait = COLLECT_EACH * u32::try_from(judgement.published.len()).unwrap_or(u32::MAX);
        let mut namespaces = BTreeSet::new();
        for (server, stir) in stirred {
            self.server(&server, stir, &judgement, wait, now);
            namespaces.insert(server.0);
        }
        // Not only what the policies of these servers were made with: an object may have ceased to be about one of them.
        for namespace in namespaces {
            for role in caches.roles.in_namespace(&namespace).iter().filter(|role| !is_well(role.as_ref())) {
                queues.roles.add_after(key(role.as_ref()), wait);
            }
            for gateway in caches.gateways.in_namespace(&namespace).iter().filter(|it| !is_well(it.as_ref())) {
                queues.gateways.add_after(key(gateway.as_ref()), wait);
            }
        }
    }

    fn server(&mut self, server: &Key, stir: Stir, judgement: &Judgement, wait: Duration, now: Instant) {
        let (queues, context) = (self.queues, self.context);
        let view = context.view(judgement, server);
        let object = context.caches.servers.get(server);
        let is_server_well = object.as_deref().is_some_and(is_well);
        match (&object, stir) {
            (Some(_), Stir::Status) => {}
            (Some(_), Stir::Policy) if is_server_well && judgement.published.len() > turns::AT_ONCE => {
                context.turns.wait(server.clone(), now);
            }
            (None, _) => context.turns.leave(server),
            (Some(_), Stir::Policy | Stir::Any) => {
                context.turns.leave(server);
                queues.servers.add(server.clone());
            }
        }
        let offer = view.enforcing().offer().cloned();
        let is_same_offer = self.told.get(server).is_some_and(|told| same(told.as_ref(), offer.as_ref()));
        if object.is_some() {
            self.told.insert(server.clone(), offer);
        } else {
            self.told.remove(server);
        }
        for tool in context.tools(server) {
            if !(is_server_well && is_same_offer && is_well(tool.as_ref())) {
                queues.tools.add(key(tool.as_ref()));
            }
        }
        if !is_server_well {
            for input in view.published().into_iter().flat_map(|published| &published.inputs) {
                let key = (server.0.clone(), input.name.clone());
                match input.kind.as_str() {
                    "McpRole" => queues.roles.add_after(key, wait),
                    "McpGateway" => queues.gateways.add_after(key, wait),
                    _ => {}
                }
            }
        }
    }
}

/// Whether an object says of its newest generation that it is Ready.
fn is_well<K: Object + HasStatus<Status: Report>>(object: &K) -> bool {
    holds(conditions_of(object), READY, object.generation())
}

fn same(a: Option<&Arc<Offer>>, b: Option<&Arc<Offer>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
