//! Where the policy of one server comes from: a policy server that is followed, and what lies on disk while there is none.
//!
//! ```text
//! judge   PURE  which snapshot may replace which
//! pace    PURE  when to try again
//! keeper  puts a snapshot in force and writes it down
//! stream  one connection to a policy server
//! contact when there was one last, kept on disk
//! ```
//! At start the policy server has 3 s to answer. Then the newer of what was in force last and of the boot file counts,
//! if its signature holds; else nothing is in force, and every call is refused. While there is no connection the boot
//! file is read again: the operator may reach it where it does not reach us. Nothing that is older than what is known
//! ever comes into force, from wherever it comes.

pub(super) mod contact;
mod judge;
mod keeper;
mod pace;
mod stream;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep};

use super::Gateway;
use super::certificate::Certificates;
use super::report::isolation::Isolation;
use super::report::offer::Offer;
use super::state::{self, State};
use crate::policy::snapshot::{FORMAT, Target};
use crate::wire::envelope::SEALED_BYTES;
use crate::wire::proto::from_gateway::Message as Said;
use crate::wire::{UNDERSTOOD, VerifyKey, proto};
use keeper::{InForce, Keeper};
use pace::Pace;
pub use stream::Remote;
use stream::{Stream, StreamError, Word};

/// Time that a policy server has to answer at start.
const BOOT_WAIT: Duration = Duration::from_secs(3);
/// Time between two looks at the boot file while there is no connection. The kubelet swaps it when it likes.
const BOOT_FILE: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// Longest error that is reported, in characters.
const TEXT: usize = 500;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server whose policy it is.
    pub target: Target,
    /// Who signs snapshots.
    pub verify_key: VerifyKey,
    /// The policy server.
    pub remote: Remote,
    /// What the operator left for pods that start.
    pub boot: PathBuf,
}

/// What the gateway reports on each connection, first what is known and then every change.
pub(super) struct Reports {
    pub(super) offer: watch::Receiver<Option<Offer>>,
    pub(super) isolation: watch::Receiver<Option<Isolation>>,
    /// Told of each new connection, so that what is reported is asked for again.
    pub(super) ask_again: Notify,
}

/// A policy source at work.
pub(super) struct Source<'g> {
    gateway: &'g Gateway,
    settings: &'g Settings,
    certificates: &'g Certificates,
    reports: &'g Reports,
    keeper: Mutex<Keeper<'g>>,
    is_connected: AtomicBool,
}

impl<'g> Source<'g> {
    pub(super) fn new(
        gateway: &'g Gateway,
        settings: &'g Settings,
        state: State,
        certificates: &'g Certificates,
        reports: &'g Reports,
    ) -> Self {
        let keeper = Mutex::new(Keeper::new(gateway, settings.target.clone(), settings.verify_key, state));
        Self { gateway, settings, certificates, reports, keeper, is_connected: AtomicBool::new(false) }
    }

    /// Keeps the policy up to date for as long as it is polled.
    pub(super) async fn run(&self) {
        let boot = self.boot_file().await;
        self.keeper.lock().await.remember(boot.as_ref()).await;
        tokio::join!(self.follow(), self.fall_back(boot));
    }

    /// Stays connected.
    async fn follow(&self) {
        let (mut pace, mut told) = (Pace::default(), String::new());
        loop {
            let begun = Instant::now();
            let Err(error) = self.session().await;
            if self.is_connected.swap(false, Ordering::Relaxed) {
                self.gateway.stream_is(&self.settings.target.server, false);
                match &error {
                    StreamError::Ended => tracing::info!("the policy server asked to connect anew"),
                    error => tracing::warn!(%error, "the policy server is lost; what is in force stays in force"),
                }
                if begun.elapsed() >= GOOD {
                    pace.worked();
                }
                told.clear();
            } else if told != error.to_string() {
                tracing::warn!(%error, "no policy server; it is tried again");
                told = error.to_string(); // Once is enough, until it is another reason.
            }
            let mut chance = [0];
            // Without chance all wait equally long, which is only less kind.
            let _ = aws_lc_rs::rand::fill(&mut chance);
            sleep(pace.failed(chance[0])).await;
        }
    }

    /// One connection, until it is lost.
    async fn session(&self) -> Result<std::convert::Infallible, StreamError> {
        let hello = self.hello().await;
        let mut stream = self.settings.remote.connect(hello).await?;
        self.is_connected.store(true, Ordering::Relaxed);
        self.gateway.stream_is(&self.settings.target.server, true);
        tracing::info!("the policy server is connected");
        self.certificates.ask_again();
        self.reports.ask_again.notify_one();
        let (mut offer, mut isolation) = (self.reports.offer.clone(), self.reports.isolation.clone());
        offer.mark_changed();
        isolation.mark_changed();
        let (mut offers, mut is_taken) = (0, false);
        loop {
            tokio::select! {
                word = stream.next() => match word? {
                    Word::Snapshot(bytes) => is_taken = self.consider(&stream, &bytes).await?,
                    Word::Still(version) if is_taken => self.keeper.lock().await.still(&version),
                    Word::Still(_) => {} // About a snapshot that is not in force here.
                    Word::Certificate(chain) => self.certificates.install(&chain).await,
                },
                request = self.certificates.due() => {
                    stream.say(Said::CertificateRequest(proto::CertificateRequest { csr: request })).await?;
                }
                Ok(()) = offer.changed() => {
                    let chunks = offer.borrow_and_update().as_ref().map(|offer| offer.chunks(offers)).unwrap_or_default();
                    offers += 1;
                    for chunk in chunks {
                        stream.say(Said::Offer(chunk)).await?;
                    }
                }
                Ok(()) = isolation.changed() => {
                    let found = isolation.borrow_and_update().clone();
                    if let Some(Isolation { isolated, found }) = found {
                        stream.say(Said::Isolation(proto::Isolation { isolated, found })).await?;
                    }
                }
            }
        }
    }

    async fn hello(&self) -> proto::Hello {
        let keeper = self.keeper.lock().await;
        let (floor, in_force) = (keeper.floor().cloned(), keeper.in_force().cloned());
        drop(keeper);
        let Target { namespace, server } = self.settings.target.clone();
        proto::Hello {
            namespace,
            server,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT,
            understands: UNDERSTOOD.iter().map(|&name| name.to_owned()).collect(),
            // What lies on disk counts before it is in force: else a policy server that lags behind would send what
            // must be refused, and not know why.
            version: floor.as_ref().map(Into::into),
            hash: in_force.map(|now| now.hash).unwrap_or_default(),
        }
    }

    /// Takes a snapshot or not, and says so: an acknowledgement means that it is in force.
    async fn consider(&self, stream: &Stream, bytes: &Bytes) -> Result<bool, StreamError> {
        let outcome = self.keeper.lock().await.consider(bytes).await;
        let is_taken = outcome.is_ok();
        stream
            .say(match outcome {
                Ok(InForce { version, hash }) => Said::Ack(proto::Ack { version: Some((&version).into()), hash }),
                Err(error) => {
                    tracing::warn!(%error, "a policy is refused; what was in force stays in force");
                    let version = version_of(bytes);
                    Said::Nack(proto::Nack { version, error: error.to_string().chars().take(TEXT).collect() })
                }
            })
            .await?;
        Ok(is_taken)
    }

    /// What counts while there is no connection.
    async fn fall_back(&self, mut seen: Option<Bytes>) {
        sleep(BOOT_WAIT).await;
        self.keeper.lock().await.boot().await;
        if self.keeper.lock().await.in_force().is_none() {
            tracing::error!("no policy is in force: every call is refused until there is one");
        }
        loop {
            sleep(BOOT_FILE).await;
            if self.is_connected.load(Ordering::Relaxed) {
                continue;
            }
            let now = self.boot_file().await;
            if now == seen {
                continue;
            }
            if let Some(bytes) = &now {
                match self.keeper.lock().await.consider(bytes).await {
                    Ok(_) => tracing::info!("the policy in the boot file is in force"),
                    Err(error) => tracing::warn!(%error, "the policy in the boot file is refused"),
                }
            }
            seen = now;
        }
    }

    async fn boot_file(&self) -> Option<Bytes> {
        state::read(self.settings.boot.clone(), SEALED_BYTES).await.unwrap_or_else(|error| {
            tracing::warn!(file = %self.settings.boot.display(), %error, "the boot file cannot be read");
            None
        })
    }
}

/// The version that a refused snapshot claims, so that its sender knows which one is meant.
fn version_of(bytes: &Bytes) -> Option<proto::Version> {
    use prost::Message as _;
    let signed = proto::Signed::decode(bytes.clone()).ok()?;
    proto::Envelope::decode(signed.body).ok()?.version
}
