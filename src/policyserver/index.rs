//! What policy says now: for each server the snapshot in force, for each object what is wrong with it.
//!
//! Owned by one writer; streams and controllers read. A server whose new snapshot cannot be published keeps the last
//! one that could, and [`Index::refusal`] says why.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::policy::snapshot::{Input, Target};
use crate::policy::version::Version;
use crate::policy::{Finding, ObjectRef};

/// A snapshot that gateways get.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Whose.
    pub target: Target,
    /// How new.
    pub version: Arc<Version>,
    /// `Snapshot::hash`.
    pub hash: String,
    /// The objects that it was compiled from, with their generations.
    pub inputs: Vec<Input>,
    /// The signed envelope: what the stream sends and the boot ConfigMap holds.
    pub bytes: Bytes,
}

/// Why the newest policy of a server is not published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// `CamelCase`, a reason of `Accepted=False`.
    pub reason: &'static str,
    /// Says what to do.
    pub message: String,
    /// The objects that it was compiled from, sorted: what is declared by them is not in force.
    pub inputs: Arc<[Input]>,
}

/// All that one compilation found.
#[derive(Debug, Default)]
pub struct Judgement {
    /// The snapshots, with the last good one where the newest is refused.
    pub published: HashMap<Target, Arc<Published>>,
    /// Servers whose newest policy is refused.
    pub refusals: HashMap<Target, Refusal>,
    /// By namespace, what is said of each object. What did not change is the same `Arc` as before.
    pub said: HashMap<String, Arc<HashMap<ObjectRef, About>>>,
}

/// What is said of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// The generation that was judged; unset: it was not read.
    pub generation: Option<i64>,
    /// What is wrong, or doubtful.
    pub findings: Vec<Finding>,
    /// Of a role: what it comes to.
    pub reach: Option<Reach>,
}

impl Judgement {
    /// What is said of an object; `None` until it was judged.
    pub fn about(&self, object: &ObjectRef) -> Option<&About> {
        self.said.get(&object.namespace)?.get(object)
    }
}

/// What a role comes to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    /// Declared tools that some rule of it could allow.
    pub tools: usize,
    /// Servers that some rule of it is about.
    pub servers: usize,
}

/// The judgement in force, for many readers.
#[derive(Default)]
pub struct Index {
    judgement: RwLock<Arc<Judgement>>,
    counter: watch::Sender<u64>,
}

impl Index {
    /// Replaces the judgement and wakes whoever waits for a change.
    pub fn put(&self, judgement: Judgement) {
        *self.judgement.write() = Arc::new(judgement);
        self.counter.send_modify(|count| *count += 1);
    }

    /// What is in force now. Empty until the first compilation.
    pub fn now(&self) -> Arc<Judgement> {
        self.judgement.read().clone()
    }

    /// Changes whenever the judgement does; 0 until the first compilation.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.counter.subscribe()
    }
}
