//! `Observe`: tells the leader what the gateways of this replica say. All of it first, then what changes.
//!
//! What is sent is the difference to what was sent, found when the connection has room for it: a slow leader gets the
//! newest of every gateway, never a queue of what it said on the way.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::fleet::{Acked, Changed, Fleet, Report};
use super::keys::Keys;
use super::stream::{bearer, cut};
use crate::policy::snapshot::Target;
use crate::wire::proto::{self, observation};

/// Longest text of another replica that is taken, in bytes.
const TEXT: usize = 1 << 10;

/// What the body of an answer is made of.
pub(super) type Observations = Pin<Box<dyn Stream<Item = Result<proto::Observation, Status>> + Send>>;

/// Serves `Observe`.
pub(super) struct Observe {
    fleet: Arc<Fleet>,
    keys: Arc<Keys>,
    shutdown: CancellationToken,
}

impl Observe {
    pub(super) fn new(fleet: Arc<Fleet>, keys: Arc<Keys>, shutdown: CancellationToken) -> Self {
        Self { fleet, keys, shutdown }
    }

    pub(super) fn observe(&self, request: &Request<proto::ObserveRequest>) -> Result<Response<Observations>, Status> {
        if !bearer(request).is_some_and(|token| self.keys.is_replica(token)) {
            return Err(Status::unauthenticated("only replicas of the operator may observe"));
        }
        let teller = Teller::new(Arc::clone(&self.fleet), self.shutdown.clone());
        let told = stream::unfold(teller, |mut teller| async move {
            let next = teller.next().await?;
            Some((Ok(proto::Observation { message: Some(next) }), teller))
        });
        Ok(Response::new(told.boxed()))
    }
}

/// Finds what to tell next.
struct Teller {
    fleet: Arc<Fleet>,
    changes: broadcast::Receiver<Changed>,
    shutdown: CancellationToken,
    /// Servers whose gateways may differ from what was told. Never holds one twice.
    pending: BTreeSet<Target>,
    /// Found, and not told yet: of one server.
    found: VecDeque<observation::Message>,
    told: HashMap<Target, HashMap<String, Arc<Report>>>,
    is_complete: bool,
}

impl Teller {
    fn new(fleet: Arc<Fleet>, shutdown: CancellationToken) -> Self {
        let changes = fleet.changes();
        // After the subscription, so that nothing falls between.
        let pending = fleet.targets().into_iter().collect();
        Self { fleet, changes, shutdown, pending, found: VecDeque::new(), told: HashMap::new(), is_complete: false }
    }

    async fn next(&mut self) -> Option<observation::Message> {
        loop {
            if let Some(message) = self.found.pop_front() {
                return Some(message);
            }
            if let Some(target) = self.pending.pop_first() {
                self.look(&target);
                continue;
            }
            if !self.is_complete {
                self.is_complete = true;
                return Some(observation::Message::Complete(proto::Complete {}));
            }
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = self.shutdown.cancelled() => return None,
            };
            match change {
                Ok(changed) => {
                    self.pending.insert(changed.target);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.pending.extend(self.fleet.targets());
                    self.pending.extend(self.told.keys().cloned());
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn look(&mut self, target: &Target) {
        let mut told = self.told.remove(target).unwrap_or_default();
        let mut now = HashMap::new();
        for report in self.fleet.of(target) {
            let before = told.remove(&report.pod);
            if before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &report)) {
                self.found.push_back(observation::Message::Gateway(gateway(target, &report, before.as_deref())));
            }
            now.insert(report.pod.clone(), report);
        }
        let Target { namespace, server } = target;
        let gone = told.into_keys().map(|pod| {
            let (namespace, server) = (namespace.clone(), server.clone());
            observation::Message::Gone(proto::Gone { namespace, server, pod })
        });
        self.found.extend(gone);
        if !now.is_empty() {
            self.told.insert(target.clone(), now);
        }
    }
}

/// A report as it travels. A catalogue that was told before, and is by far its largest part, is left out.
fn gateway(target: &Target, report: &Report, before: Option<&Report>) -> proto::Gateway {
    let Report { pod, program, acked, refused, catalogue, is_isolated, exposed } = report;
    let same = |before: &Report| match (&before.catalogue, catalogue) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        _ => false,
    };
    let is_told = before.is_some_and(same);
    proto::Gateway {
        namespace: target.namespace.clone(),
        server: target.server.clone(),
        pod: pod.clone(),
        program: program.clone(),
        acked: acked
            .as_ref()
            .map(|Acked { version, hash }| proto::Ack { version: Some(version.into()), hash: hash.clone() }),
        refused: refused.clone().unwrap_or_default(),
        offer: catalogue.as_deref().filter(|_| !is_told).map(Into::into),
        isolation: is_isolated
            .map(|isolated| proto::Isolation { isolated, found: exposed.clone().unwrap_or_default() }),
        offer_is_unchanged: is_told,
    }
}

/// What a replica told. `before` is what it told last of the same gateway. `None` if it makes no sense.
pub(super) fn report(gateway: proto::Gateway, before: Option<&Report>) -> Option<(Target, Report)> {
    let proto::Gateway { namespace, server, pod, program, acked, refused, offer, isolation, offer_is_unchanged } =
        gateway;
    let acked = match acked {
        Some(proto::Ack { version, hash }) => {
            Some(Acked { version: version.unwrap_or_default().try_into().ok()?, hash: cut(hash, TEXT) })
        }
        None => None,
    };
    let catalogue = match offer {
        Some(offer) => super::stream::whole(offer).map(Arc::new),
        None if offer_is_unchanged => before.and_then(|before| before.catalogue.clone()),
        None => None,
    };
    let is_isolated = isolation.as_ref().map(|isolation| isolation.isolated);
    let exposed = isolation.map(|isolation| cut(isolation.found, TEXT)).filter(|found| !found.is_empty());
    let refused = Some(cut(refused, TEXT)).filter(|refused| !refused.is_empty());
    let report = Report { pod, program: cut(program, TEXT), acked, refused, catalogue, is_isolated, exposed };
    Some((Target { namespace, server }, report))
}
