//! The gateway's own certificate: a key made here, a chain that the policy server signs, renewed while it serves.
//!
//! Key and chain are kept, so that a container that restarts while no policy server answers has them. Without any a
//! certificate of its own making serves, which clients that check do not trust: the policy decides about calls in any
//! case, but the gateway is not ready, so that a pod with a certificate keeps its callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::{Instant, sleep_until};

use super::Tls;
use super::state::State;
use crate::wire::validity;

/// File of key and chain.
const FILE: &str = "certificate.pem";
/// Largest such file, and largest chain, in bytes.
const BYTES: usize = 64 << 10;
/// Time after which a request without an answer is repeated.
const ANSWER: Duration = Duration::from_mins(1);
/// Shortest time between two renewals, however short a life is.
const RENEWAL: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A key, a request or a certificate of our own could not be made.
    #[error("failed to make a key or certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What was given is no chain for our key.
    #[error("the certificate does not fit the key: {0}")]
    Fit(#[from] rustls::Error),
    /// What was given is no certificate.
    #[error("the certificate cannot be read")]
    Read,
    /// It came without being asked for.
    #[error("no certificate was asked for")]
    Unasked,
}

/// The certificate in use, and the next one.
pub struct Certificates {
    names: Vec<String>,
    state: State,
    shown: Arc<Shown>,
    vouched_until: Arc<AtomicI64>,
    waiting: Mutex<Waiting>,
}

/// What is being asked for.
struct Waiting {
    /// The key of the request that was made last.
    key: Option<KeyPair>,
    /// When to ask.
    next: Instant,
}

/// What callers see.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificates {
    /// Takes the certificate that was kept, or makes one. `names` are the DNS names of the endpoint.
    pub(super) async fn load(names: Vec<String>, state: State) -> Result<Self, CertificateError> {
        let kept = state.read(FILE, BYTES).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the certificate that was kept cannot be read");
            None
        });
        let kept = kept.and_then(|pem| match certified(&pem, &pem) {
            Ok(kept) => Some(kept),
            Err(error) => {
                tracing::warn!(%error, "the certificate that was kept cannot be used");
                None
            }
        });
        let (Certified { shown, until, .. }, next) = if let Some(kept) = kept {
            let next = Instant::now() + kept.due;
            (kept, next)
        } else {
            let key = new_key()?;
            let own = CertificateParams::new(names.clone())?.self_signed(&key)?;
            tracing::warn!("until a policy server signs one, the certificate is of the gateway's own making");
            let own = certified(key.serialize_pem().as_bytes(), own.pem().as_bytes())?;
            (Certified { until: i64::MIN, ..own }, Instant::now()) // Nobody vouches for it at any time.
        };
        let shown = Arc::new(Shown(ArcSwap::from_pointee(shown)));
        let vouched_until = Arc::new(AtomicI64::new(until));
        Ok(Self { names, state, shown, vouched_until, waiting: Mutex::new(Waiting { key: None, next }) })
    }

    /// TLS with whatever certificate is in use when a caller comes.
    pub(super) fn tls(&self) -> Result<Tls, CertificateError> {
        Ok(Tls { config: self.server_config()?, vouched_until: self.vouched_until.clone() })
    }

    /// TLS 1.3 alone.
    fn server_config(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A request that went out on a connection that is lost has no answer: it is made again when it is due.
    pub(super) fn ask_again(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.key.take().is_some() {
            waiting.next = Instant::now();
        }
    }

    /// Waits until a certificate is needed; a request for one (PKCS #10, DER) with a new key. Safe to drop and call
    /// again.
    pub(super) async fn due(&self) -> Bytes {
        loop {
            let next = self.waiting.lock().next;
            sleep_until(next).await;
            let mut waiting = self.waiting.lock();
            if waiting.next > Instant::now() {
                continue;
            }
            waiting.next = Instant::now() + ANSWER;
            match self.request() {
                Ok((key, request)) => {
                    waiting.key = Some(key);
                    return request;
                }
                Err(error) => tracing::error!(%error, "no certificate can be asked for"),
            }
        }
    }

    fn request(&self) -> Result<(KeyPair, Bytes), CertificateError> {
        let key = new_key()?;
        let request = CertificateParams::new(self.names.clone())?.serialize_request(&key)?;
        Ok((key, Bytes::copy_from_slice(request.der())))
    }

    /// Uses a chain from now on, if it is for the key that was asked for.
    pub(super) async fn install(&self, chain: &str) {
        match self.swap(chain).await {
            Ok(due) => tracing::info!(renewal_in = ?due, "a new certificate is in use"),
            Err(error) => tracing::warn!(%error, "a certificate is refused"),
        }
    }

    async fn swap(&self, chain: &str) -> Result<Duration, CertificateError> {
        if chain.len() > BYTES {
            return Err(CertificateError::Read);
        }
        let key = self.waiting.lock().key.as_ref().map(KeyPair::serialize_pem).ok_or(CertificateError::Unasked)?;
        let Certified { shown, until, due } = certified(key.as_bytes(), chain.as_bytes())?;
        self.shown.0.store(Arc::new(shown));
        self.vouched_until.store(until, Ordering::Relaxed);
        {
            let mut waiting = self.waiting.lock();
            waiting.key = None;
            waiting.next = Instant::now() + due;
        }
        let file = Bytes::from([key.as_str(), chain].concat());
        if let Err(error) = self.state.write(FILE, file).await {
            tracing::warn!(%error, "the certificate cannot be kept: a restart has to ask for one");
        }
        Ok(due)
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// A certificate that can be shown.
struct Certified {
    shown: CertifiedKey,
    /// Its end, Unix time in seconds.
    until: i64,
    /// Time until two thirds of its life are over.
    due: Duration,
}

/// Key and chain that fit each other.
fn certified(key: &[u8], chain: &[u8]) -> Result<Certified, CertificateError> {
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Read)?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| CertificateError::Read)?;
    let leaf = chain.first().ok_or(CertificateError::Read)?;
    let (from, until) = validity(leaf).ok_or(CertificateError::Read)?;
    let shown = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())?;
    let (from, until) = (from.as_second(), until.as_second());
    let life = until.saturating_sub(from);
    let due = from.saturating_add(life / 3 * 2).saturating_sub(Timestamp::now().as_second());
    let due = Duration::from_secs(u64::try_from(due).unwrap_or_default()).max(RENEWAL);
    Ok(Certified { shown, until, due })
}

#[cfg(test)]
mod tests;
