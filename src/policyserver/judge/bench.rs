//! From what was gathered to one judgement, keeping what did not change.
//!
//! A namespace is judged anew when anything that policy can see in it is different; a server is packed and sealed anew
//! when its snapshot is. What breaks in one server (a refusal, even a panic) leaves the others alone.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::gather::{Gathered, Gatherer};
use super::good::Good;
use crate::api::conditions::reason;
use crate::policy::compile::Compiler;
use crate::policy::extent::{Extent, extents};
use crate::policy::load::{LoadError, Proven, check};
use crate::policy::snapshot::{Snapshot, Target};
use crate::policy::version::Version;
use crate::policy::{ObjectRef, World};
use crate::policyserver::index::{About, Judgement, Published, Reach, Refusal};
use crate::policyserver::keys::Keys;
use crate::policyserver::outbox::{Outbox, Parcel};
use crate::policyserver::{Caches, endpoint};
use crate::wire::{Packed, Packer, SealError};

/// All that is known from one judgement to the next.
#[derive(Default)]
pub(super) struct Bench {
    gatherer: Gatherer,
    prints: HashMap<String, u64>,
    namespaces: HashMap<String, Namespace>,
    tools: Tools,
    is_begun: bool,
}

/// What makes the second server cheaper than the first.
#[derive(Default)]
struct Tools {
    proven: Proven,
    packer: Option<Packer>,
    /// What a print is taken of; kept for its room.
    text: Vec<u8>,
}

/// What is said of the objects of one namespace.
#[derive(Default)]
struct Namespace {
    good: Good,
    rulings: HashMap<Target, Ruling>,
    said: Arc<HashMap<ObjectRef, About>>,
}

/// What is said of one server.
#[derive(Clone, Default)]
struct Ruling {
    /// Of the newest snapshot, whether it was published or refused.
    print: Option<[u8; 32]>,
    published: Option<Arc<Published>>,
    parcel: Option<Arc<Parcel>>,
    refusal: Option<Refusal>,
}

/// Namespaces in which something may have come and gone unseen.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    /// All of them.
    pub(super) all: bool,
    /// These.
    pub(super) namespaces: HashSet<String>,
}

impl Bench {
    /// Judges what the caches hold now. Streams are told first: enforcement waits for no report. `None` if nothing is
    /// different.
    pub(super) fn judge(
        &mut self,
        caches: &Caches,
        epoch: u64,
        stirred: Stirred,
        keys: &Keys,
        outbox: &Outbox,
    ) -> Option<Judgement> {
        let gathered = self.gatherer.gather(caches, epoch);
        let mut changed = gathered.changed(&self.prints);
        changed.extend(stirred.namespaces.into_iter().filter(|namespace| gathered.prints.contains_key(namespace)));
        if stirred.all || !self.is_begun {
            changed.extend(gathered.prints.keys().cloned());
        }
        let mut worlds = Vec::with_capacity(changed.len());
        for namespace in &changed {
            if !gathered.prints.contains_key(namespace) {
                self.namespaces.remove(namespace);
                continue;
            }
            let state = self.namespaces.entry(namespace.clone()).or_default();
            let tools = &mut self.tools;
            match catch_unwind(AssertUnwindSafe(|| state.judge(namespace, &gathered, tools, keys, outbox))) {
                Ok(world) => worlds.push((namespace, world)),
                // What was said last stays; so does its version, for it is not known to be true any more.
                Err(_) => {
                    tracing::error!(%namespace, "the namespace was not judged: the program failed; its policy stays");
                }
            }
        }
        self.confirm(&gathered, &changed);
        // The parcels of what changed are out already.
        let confirmed = self.namespaces.iter().filter(|(namespace, _)| !changed.contains(*namespace));
        for (target, ruling) in confirmed.flat_map(|(_, namespace)| &namespace.rulings) {
            if let Some(parcel) = &ruling.parcel {
                outbox.put(target, Arc::clone(parcel));
            }
        }
        outbox.retain(|target| self.ruling(target).is_some_and(|ruling| ruling.parcel.is_some()));
        outbox.judged();
        for (namespace, (world, mut said)) in worlds {
            let reach = catch_unwind(|| reach(namespace, &world)).unwrap_or_default(); // Of a fault the log tells.
            for (role, reach) in reach {
                said.entry(role).or_default().reach = Some(reach);
            }
            if let Some(state) = self.namespaces.get_mut(namespace) {
                state.said = Arc::new(said);
            }
        }
        self.prints = gathered.prints;
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        (is_first || !changed.is_empty()).then(|| self.judgement())
    }

    fn ruling(&self, target: &Target) -> Option<&Ruling> {
        self.namespaces.get(&target.namespace)?.rulings.get(target)
    }

    /// Where nothing is different, what was true is true at the newer version.
    fn confirm(&mut self, gathered: &Gathered, changed: &HashSet<String>) {
        for (namespace, state) in self.namespaces.iter_mut().filter(|(namespace, _)| !changed.contains(*namespace)) {
            state.good.refresh(gathered, namespace);
            let Some(version) = gathered.versions.get(namespace) else { continue };
            for ruling in state.rulings.values_mut() {
                ruling.stays_true(version, false);
            }
        }
    }

    fn judgement(&self) -> Judgement {
        let mut judgement = Judgement::default();
        for (name, namespace) in &self.namespaces {
            judgement.said.insert(name.clone(), Arc::clone(&namespace.said));
            for (target, ruling) in &namespace.rulings {
                let published = ruling.published.clone().map(|published| (target.clone(), published));
                judgement.published.extend(published);
                judgement.refusals.extend(ruling.refusal.clone().map(|refusal| (target.clone(), refusal)));
            }
        }
        judgement
    }
}

impl Namespace {
    /// The world that is in force, and what is said of the objects.
    fn judge(
        &mut self,
        namespace: &str,
        gathered: &Gathered,
        tools: &mut Tools,
        keys: &Keys,
        outbox: &Outbox,
    ) -> (World, HashMap<ObjectRef, About>) {
        let (world, findings, mut said) = self.good.parse(gathered, namespace);
        // Without a server there is nobody to enforce anything, but objects still want to hear what is wrong.
        let nobody = Arc::default();
        let version = gathered.versions.get(namespace).unwrap_or(&nobody);
        let compiler = Compiler::new(&world, namespace);
        let mut rulings = HashMap::with_capacity(world.servers.len());
        for (_, server) in world.servers.keys() {
            let target = Target { namespace: namespace.to_owned(), server: server.clone() };
            let mut ruling = self.rulings.remove(&target).unwrap_or_default();
            let ruled = catch_unwind(AssertUnwindSafe(|| ruling.rule(&compiler, &target, version, tools, keys)));
            if ruled.is_err() {
                tracing::error!(%namespace, %server, "the server's policy was not compiled: the program failed");
                ruling.print = None;
                ruling.refusal = Some(Refusal {
                    reason: reason::SNAPSHOT_REFUSED,
                    message: "the policy could not be compiled; this is a fault of the operator: see its log"
                        .to_owned(),
                    inputs: Arc::default(), // Not known.
                });
            }
            // At once: while the next server is ruled on, this one's gateways load what is new to them.
            if let Some(parcel) = &ruling.parcel {
                outbox.put(&target, Arc::clone(parcel));
            }
            rulings.insert(target, ruling);
        }
        self.rulings = rulings;
        for finding in findings {
            said.entry(finding.object.clone()).or_default().findings.push(finding);
        }
        for about in said.values_mut() {
            about.findings.shrink_to_fit(); // Mostly there is one, in room for four, and it stays for long.
        }
        (world, said)
    }
}

fn reach(namespace: &str, world: &World) -> HashMap<ObjectRef, Reach> {
    let role = |name| ObjectRef { kind: "McpRole".to_owned(), namespace: namespace.to_owned(), name };
    let extents = extents(world, namespace).into_iter();
    extents.map(|(name, Extent { tools, servers })| (role(name), Reach { tools, servers })).collect()
}

impl Ruling {
    fn rule(
        &mut self,
        compiler: &Compiler<'_>,
        target: &Target,
        version: &Arc<Version>,
        tools: &mut Tools,
        keys: &Keys,
    ) {
        let urls = [endpoint(&target.namespace, &target.server)];
        let Some(snapshot) = compiler.compile(&target.server, &urls) else { return };
        let print = tools.print(&snapshot);
        if print.is_some() && self.print == print {
            self.stays_true(version, true);
            return;
        }
        self.print = print;
        match tools.pack(&snapshot) {
            Ok(packed) => {
                let packed = Arc::new(packed);
                let parcel = Parcel::new(Arc::clone(&packed), version.clone(), version.clone());
                self.published = Some(Arc::new(Published {
                    target: target.clone(),
                    version: version.clone(),
                    hash: packed.hash.clone(),
                    inputs: snapshot.inputs,
                    bytes: parcel.sealed(keys.signer()),
                }));
                self.parcel = Some(Arc::new(parcel));
                self.refusal = None;
            }
            // The last good one stays, and its version with it: it is no longer what is declared.
            Err((reason, message)) => {
                self.refusal = Some(Refusal { reason, message, inputs: snapshot.inputs.into() });
            }
        }
    }

    /// The snapshot is true at a newer version. Connected gateways hear of it if something in the namespace changed.
    fn stays_true(&mut self, version: &Arc<Version>, is_told: bool) {
        if self.refusal.is_some() {
            return;
        }
        let Some(parcel) = &self.parcel else { return };
        if parcel.judged == *version && (parcel.version == *version || !is_told) {
            return;
        }
        let told = if is_told { version } else { &parcel.version };
        self.parcel = Some(Arc::new(Parcel::new(Arc::clone(&parcel.packed), told.clone(), version.clone())));
    }
}

impl Tools {
    /// Two snapshots with one print are one snapshot.
    fn print(&mut self, snapshot: &Snapshot) -> Option<[u8; 32]> {
        self.text.clear();
        serde_json::to_writer(&mut self.text, snapshot).ok()?; // Without a print it counts as changed.
        Some(Sha256::digest(&self.text).into())
    }

    /// Or why not: reason and message.
    fn pack(&mut self, snapshot: &Snapshot) -> Result<Packed, (&'static str, String)> {
        check(snapshot, &mut self.proven).map_err(|error| {
            let reason = match error {
                LoadError::TooLarge(_) | LoadError::TooMany { .. } => reason::SNAPSHOT_TOO_LARGE,
                _ => reason::SNAPSHOT_REFUSED,
            };
            (reason, error.to_string())
        })?;
        self.compress(snapshot).map_err(|error| {
            let reason = match error {
                SealError::TooLarge { .. } => reason::SNAPSHOT_TOO_LARGE,
                SealError::Compress(_) => reason::SNAPSHOT_REFUSED,
            };
            (reason, error.to_string())
        })
    }

    fn compress(&mut self, snapshot: &Snapshot) -> Result<Packed, SealError> {
        let requires: Vec<String> = snapshot.requires().into_iter().map(str::to_owned).collect();
        // Taken out while it works: should it fail, the next server begins with a new one.
        let mut packer = self.packer.take().map_or_else(Packer::new, Ok)?;
        let outcome = packer.pack(snapshot, &requires);
        self.packer = Some(packer);
        outcome
    }
}
