//! What gateways said: which policy each enforces, what its server offers, whether it is isolated.
//!
//! Owned by the streams: a report is gone with its gateway. Says nothing of what should be.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};

use crate::policy::snapshot::Target;
use crate::policy::version::Version;

/// Changes that a slow listener may be behind.
const CHANGES: usize = 4096;

/// One gateway, as it last reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// `metadata.uid` of its pod.
    pub pod: String,
    /// Version of its program.
    pub program: String,
    /// What it enforces.
    pub acked: Option<Acked>,
    /// Why it does not enforce the newest snapshot that it got.
    pub refused: Option<String>,
    /// What its server offers; `None` until it answered.
    pub catalogue: Option<Arc<Offer>>,
    /// Whether its server can be reached only through the gateway; `None` until it looked.
    pub is_isolated: Option<bool>,
    /// Where its server listens, if it can be reached around the gateway.
    pub exposed: Option<String>,
}

/// A snapshot that a gateway has loaded and put in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acked {
    /// Its version.
    pub version: Version,
    /// Its hash.
    pub hash: String,
}

/// What a server offers, as its gateway saw it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Offer {
    /// `serverInfo.name`.
    pub name: String,
    /// `serverInfo.version`.
    pub version: String,
    /// Protocol versions that it speaks, sorted.
    pub protocol_versions: Vec<String>,
    /// Its tools, sorted by name.
    pub tools: Vec<OfferedTool>,
    /// How many prompts it lists.
    pub prompts: usize,
    /// How many resources and templates it lists.
    pub resources: usize,
    /// Why the list is not complete, where it is not.
    pub error: Option<String>,
}

/// One tool of a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OfferedTool {
    /// Name at the server.
    pub name: String,
    /// SHA-256 over the RFC 8785 form of its definition, `sha256:…`.
    pub digest: String,
}

/// Whose gateways changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changed {
    /// The server.
    pub target: Target,
    /// A gateway acknowledged a policy, and nothing else is new.
    pub is_ack: bool,
}

/// Every gateway that is connected to some replica.
pub struct Fleet {
    gateways: RwLock<HashMap<Target, HashMap<String, Arc<Report>>>>,
    changes: broadcast::Sender<Changed>,
    is_complete: watch::Sender<bool>,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            gateways: RwLock::default(),
            changes: broadcast::Sender::new(CHANGES),
            is_complete: watch::Sender::new(false),
        }
    }
}

impl Fleet {
    /// What a gateway says now.
    pub fn put(&self, target: &Target, report: impl Into<Arc<Report>>) {
        let report = report.into();
        let mut gateways = self.gateways.write();
        let pods = gateways.entry(target.clone()).or_default();
        let before = pods.get(&report.pod);
        if before.is_some_and(|before| *before == report) {
            return;
        }
        let is_ack =
            before.is_some_and(|before| Report { acked: report.acked.clone(), ..(**before).clone() } == *report);
        pods.insert(report.pod.clone(), report);
        drop(gateways);
        let _ = self.changes.send(Changed { target: target.clone(), is_ack }); // Nobody listens: nothing to tell.
    }

    /// A gateway is gone.
    pub fn remove(&self, target: &Target, pod: &str) {
        let mut gateways = self.gateways.write();
        let Some(pods) = gateways.get_mut(target) else { return };
        let removed = pods.remove(pod).is_some();
        if pods.is_empty() {
            gateways.remove(target);
        }
        drop(gateways);
        if removed {
            let _ = self.changes.send(Changed { target: target.clone(), is_ack: false });
        }
    }

    /// Every server with a gateway, in no order.
    pub fn targets(&self) -> Vec<Target> {
        self.gateways.read().keys().cloned().collect()
    }

    /// The gateways of a server, in no order.
    pub fn of(&self, target: &Target) -> Vec<Arc<Report>> {
        self.gateways.read().get(target).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// Tells whose gateways changed, from now on.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Every replica has answered, or it has been waited for long enough: a gateway that is not here is not connected.
    /// Until then no condition may be lowered.
    pub fn complete(&self) {
        self.is_complete.send_replace(true);
    }

    /// See [`Fleet::complete`].
    pub fn is_complete(&self) -> watch::Receiver<bool> {
        self.is_complete.subscribe()
    }
}
