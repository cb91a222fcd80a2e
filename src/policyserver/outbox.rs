//! What streams deliver: for each server the newest snapshot and how new it is.
//!
//! Written by the judge, read by the streams. A slow stream finds the newest, never a queue.
//!
//! # Versions move more often than snapshots
//! A snapshot is sealed when its content changes. Its version must move even when the content does not: two changes
//! may cancel each other while the judge waits for quiet, and a replica that lags may still have only seen the first;
//! what a gateway takes from it must not be older than what it already lived under. So whenever anything that policy
//! reads changed in a namespace, its servers' versions move, and gateways are told in a few bytes
//! ([`Parcel::version`] with the same [`Packed`]). A change that policy cannot see (a status, a label of a Pod, another
//! namespace) tells gateways nothing: until the next one that it can see, every replica compiles the same content.
//!
//! A gateway that connects gets the snapshot sealed at the newest version that was judged ([`Parcel::judged`]), which
//! moves always. So a replica that has been quiet for days can take over from one that has just read everything.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::policy::snapshot::Target;
use crate::policy::version::Version;
use crate::wire::{Packed, Signer};

/// A snapshot and how new it is.
#[derive(Debug)]
pub struct Parcel {
    /// The snapshot.
    pub packed: Arc<Packed>,
    /// The version that connected gateways are told.
    pub version: Arc<Version>,
    /// The version at which the snapshot was last found to be true; never behind `version`.
    pub judged: Arc<Version>,
    sealed: OnceLock<Bytes>,
    sealed_anew: OnceLock<Bytes>,
}

impl Parcel {
    /// A snapshot that is true at `judged`, of which connected gateways know `version`.
    pub fn new(packed: Arc<Packed>, version: Arc<Version>, judged: Arc<Version>) -> Self {
        Self { packed, version, judged, sealed: OnceLock::new(), sealed_anew: OnceLock::new() }
    }

    /// Sealed at [`Parcel::version`]; once, for however many streams.
    pub fn sealed(&self, signer: &Signer) -> Bytes {
        self.sealed.get_or_init(|| self.packed.seal(&self.version, signer)).clone()
    }

    /// Sealed at [`Parcel::judged`]; once, for however many streams.
    pub fn sealed_anew(&self, signer: &Signer) -> Bytes {
        if self.judged == self.version {
            return self.sealed(signer);
        }
        self.sealed_anew.get_or_init(|| self.packed.seal(&self.judged, signer)).clone()
    }
}

/// What a stream waits on.
pub type Parcels = watch::Receiver<Option<Arc<Parcel>>>;

/// The newest parcel of every server.
#[derive(Default)]
pub struct Outbox {
    /// A place stays while it holds a parcel or somebody listens.
    places: RwLock<HashMap<Target, watch::Sender<Option<Arc<Parcel>>>>>,
    judgements: watch::Sender<u64>,
}

impl Outbox {
    /// Replaces the parcel of a server, and wakes its streams if they should say something.
    pub fn put(&self, target: &Target, parcel: Arc<Parcel>) {
        let mut places = self.places.write();
        places.entry(target.clone()).or_default().send_if_modified(|place| {
            let is_news = place
                .as_ref()
                .is_none_or(|before| before.packed.hash != parcel.packed.hash || before.version != parcel.version);
            *place = Some(parcel);
            is_news
        });
    }

    /// Takes away the parcels of all servers but these: there is nothing more to say about the others.
    pub fn retain(&self, keep: impl Fn(&Target) -> bool) {
        self.places.write().retain(|target, place| {
            if !keep(target) && place.borrow().is_some() {
                place.send_replace(None);
            }
            place.borrow().is_some() || place.receiver_count() > 0
        });
    }

    /// A judgement is complete: wakes who waits for [`Parcel::judged`] to move.
    pub fn judged(&self) {
        self.judgements.send_modify(|count| *count += 1);
    }

    /// Listens for parcels of a server, which may come to be only later.
    pub fn subscribe(&self, target: &Target) -> Parcels {
        self.places.write().entry(target.clone()).or_default().subscribe()
    }

    /// Listens for judgements.
    pub fn judgements(&self) -> watch::Receiver<u64> {
        self.judgements.subscribe()
    }
}
