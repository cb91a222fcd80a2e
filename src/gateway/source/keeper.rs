//! Puts snapshots in force: checks, swaps, writes down what is in force, and remembers what must not come back.

use bytes::Bytes;

use super::judge::{self, Known, Place, Refusal, Verdict};
use crate::gateway::Gateway;
use crate::gateway::causes::chain;
use crate::gateway::state::State;
use crate::gateway::worker::Worker;
use crate::policy::load::LoadError;
use crate::policy::snapshot::Target;
use crate::policy::version::Version;
use crate::policy::{Policy, Snapshot};
use crate::wire::envelope::SEALED_BYTES;
use crate::wire::{OpenError, Opened, VerifyKey, open};

/// File of the last snapshot that was in force.
const LAST: &str = "snapshot";

/// What is in force.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InForce {
    pub(super) version: Version,
    pub(super) hash: String,
}

/// Why a snapshot is not in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// Not sealed by the key that this gateway trusts, or not readable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// See [`Refusal`].
    #[error(transparent)]
    Judged(#[from] Refusal),
    /// It cannot be enforced.
    #[error("{}", chain(.0))]
    Load(#[from] LoadError),
    /// The thread that loaded it died.
    #[error("failed to load the snapshot: the thread that did so ended")]
    Died,
}

/// Owner of the policy of one server.
pub(super) struct Keeper<'g> {
    gateway: &'g Gateway,
    target: Target,
    key: VerifyKey,
    state: State,
    /// Verifies and loads, for this policy alone: nothing that hangs elsewhere delays a revocation.
    worker: Worker,
    known: Known,
    in_force: Option<InForce>,
    /// What lay at hand at start, checked, in the order in which to try it.
    at_hand: Vec<(Place, Bytes)>,
}

impl<'g> Keeper<'g> {
    /// Nothing is in force yet.
    pub(super) fn new(gateway: &'g Gateway, target: Target, key: VerifyKey, state: State) -> Self {
        let worker = Worker::start("policy");
        Self { gateway, target, key, state, worker, known: Known::default(), in_force: None, at_hand: Vec::new() }
    }

    /// Looks at what lies on disk, so that nothing older comes into force from elsewhere. Puts nothing in force.
    pub(super) async fn remember(&mut self, boot: Option<&Bytes>) {
        let last = self.state.read(LAST, SEALED_BYTES).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the last policy in force cannot be read");
            None
        });
        let last = self.check(Place::LastKnownGood, last.as_ref()).await;
        let boot = self.check(Place::BootFile, boot).await;
        let version = |found: &Option<(Bytes, Version)>| found.as_ref().map(|(_, version)| version.clone());
        let order = judge::order(version(&last).as_ref(), version(&boot).as_ref());
        for place in order {
            let found = if place == Place::LastKnownGood { &last } else { &boot };
            if let Some((bytes, version)) = found {
                self.known.floor.get_or_insert_with(|| version.clone());
                self.at_hand.push((place, bytes.clone()));
            }
        }
    }

    async fn check(&self, place: Place, bytes: Option<&Bytes>) -> Option<(Bytes, Version)> {
        let bytes = bytes?;
        let checked = self.open(bytes).await.and_then(|opened| {
            judge::understands(&opened, &self.target)?;
            Ok(opened.version)
        });
        match checked {
            Ok(version) => Some((bytes.clone(), version)),
            Err(error) => {
                tracing::warn!(?place, %error, "a policy that lay at hand is refused");
                None
            }
        }
    }

    /// Puts in force what lay at hand at start, the newer one if it can be enforced. Nothing once something is.
    pub(super) async fn boot(&mut self) {
        for (place, bytes) in std::mem::take(&mut self.at_hand) {
            if self.in_force.is_some() {
                return;
            }
            // The order is settled, and the floor with it: falling back is no going back, because nothing is in force.
            let floor = self.known.floor.take();
            match self.consider(&bytes).await {
                Ok(_) => tracing::info!(?place, "no policy server answered: the policy at hand is in force"),
                Err(error) => {
                    self.known.floor = floor;
                    tracing::warn!(?place, %error, "the policy at hand cannot be enforced");
                }
            }
        }
    }

    /// The newest version that is known: nothing older comes into force.
    pub(super) fn floor(&self) -> Option<&Version> {
        self.known.floor.as_ref()
    }

    /// What is in force.
    pub(super) fn in_force(&self) -> Option<&InForce> {
        self.in_force.as_ref()
    }

    /// Puts a sealed snapshot in force if it may be, and then writes it down. When this returns, calls are decided by
    /// what it returns; an error leaves everything as it was.
    pub(super) async fn consider(&mut self, bytes: &Bytes) -> Result<InForce, Refused> {
        let outcome = self.take(bytes).await;
        if outcome.is_err() {
            self.gateway.policy_failed(&self.target.server);
        }
        outcome
    }

    async fn take(&mut self, bytes: &Bytes) -> Result<InForce, Refused> {
        let opened = self.open(bytes).await?;
        let verdict = judge::judge(&opened, &self.target, &self.known)?;
        let now = InForce { version: opened.version, hash: opened.hash };
        if self.in_force.as_ref() == Some(&now) {
            return Ok(now);
        }
        if verdict == Verdict::Replaces {
            let loaded = self.worker.run(move || Policy::from_json(&opened.snapshot)).await;
            let policy = loaded.map_err(|_| Refused::Died)??;
            let Snapshot { target, .. } = policy.snapshot();
            if *target != self.target {
                return Err(Refusal::Foreign(target.clone()).into());
            }
            tracing::info!(snapshot = now.hash, "policy in force");
            self.gateway.publish(&self.target.server, policy.into());
        }
        self.gateway.version_is(&self.target.server, &now.version);
        self.known = Known { floor: Some(now.version.clone()), hash: Some(now.hash.clone()) };
        self.in_force = Some(now.clone());
        // Also where only the version is new: after a restart nothing between the two may come back.
        if let Err(error) = self.state.write(LAST, bytes.clone()).await {
            tracing::warn!(%error, "the policy in force cannot be written down: a restart may find an older one");
        }
        Ok(now)
    }

    /// What is in force is still what policy says, at this version: nothing older may come from now on. What is on disk
    /// stays as it was signed.
    pub(super) fn still(&mut self, version: &Version) {
        let Some(in_force) = &mut self.in_force else { return };
        if !version.goes_back(&in_force.version) {
            self.gateway.version_is(&self.target.server, version);
            in_force.version = version.clone();
            self.known.floor = Some(version.clone());
        }
    }

    async fn open(&self, bytes: &Bytes) -> Result<Opened, Refused> {
        let (bytes, key) = (bytes.clone(), self.key);
        Ok(self.worker.run(move || open(&bytes, &key)).await.map_err(|_| Refused::Died)??)
    }
}

#[cfg(test)]
mod tests;
