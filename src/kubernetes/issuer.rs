//! The issuer of ServiceAccount tokens of this cluster, and its keys.
//!
//! Reads the API server's own discovery document and key set at the start, every five minutes, and when a token names
//! a key that is not known, but at most every ten seconds. What was read last stays: tokens are verified while the API
//! server is away.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Time between two readings.
const PERIOD: Duration = Duration::from_mins(5);
/// Least time between two readings.
const PAUSE: Duration = Duration::from_secs(10);
/// Time for one reading.
const CALL: Duration = Duration::from_secs(10);
/// Largest key set, in bytes: it becomes part of snapshots.
const KEY_SET_BYTES: usize = 64 << 10;

/// Who signs ServiceAccount tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterIssuer {
    /// The `iss` claim.
    pub url: String,
    /// The JWK set, as JSON text.
    pub jwks: String,
}

/// The issuer as last read, for many readers.
#[derive(Clone)]
pub struct ClusterKeys {
    current: watch::Sender<Option<Arc<ClusterIssuer>>>,
    wanted: Arc<Notify>,
}

impl ClusterKeys {
    /// The issuer, and the future that keeps it: it must be polled, and ends only when the process does.
    pub fn new(client: &Client) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let keys = Self { current: watch::Sender::new(None), wanted: Arc::default() };
        let (kept, client) = (keys.clone(), client.clone());
        let keep = async move {
            loop {
                let read_at = Instant::now();
                kept.read(&client).await;
                let _ = tokio::time::timeout(PERIOD, kept.wanted.notified()).await; // Whichever comes first.
                tokio::time::sleep_until(read_at + PAUSE).await;
            }
        };
        (keys, keep)
    }

    /// One that never changes.
    pub fn fixed(issuer: ClusterIssuer) -> Self {
        Self { current: watch::Sender::new(Some(Arc::new(issuer))), wanted: Arc::default() }
    }

    /// What was read last; `None` until something was.
    pub fn now(&self) -> Option<Arc<ClusterIssuer>> {
        self.current.borrow().clone()
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<ClusterIssuer>>> {
        self.current.subscribe()
    }

    /// A token named a key that is not known: reads again as soon as that may be.
    pub fn refresh(&self) {
        self.wanted.notify_one();
    }

    async fn read(&self, client: &Client) {
        match tokio::time::timeout(CALL, read(client)).await {
            Ok(Ok(issuer)) => {
                self.current.send_if_modified(|current| {
                    let is_new = current.as_deref() != Some(&issuer);
                    if is_new {
                        *current = Some(Arc::new(issuer));
                    }
                    is_new
                });
            }
            Ok(Err(error)) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                tracing::warn!(error, "the cluster's token issuer was not read; the last one stays");
            }
            Err(_) => tracing::warn!("the cluster's token issuer was not read in time; the last one stays"),
        }
    }
}

/// Why the issuer is not known.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("failed to ask the API server")]
    Call(#[from] kube::Error),
    #[error("failed to ask the API server")]
    Request(#[from] http::Error),
    #[error("failed to read the issuer's metadata")]
    Metadata(#[source] serde_json::Error),
    #[error("failed to read the key set: it is no JSON object of at most {KEY_SET_BYTES} bytes")]
    KeySet,
}

async fn read(client: &Client) -> Result<ClusterIssuer, ReadError> {
    #[derive(Deserialize)]
    struct Metadata {
        issuer: String,
    }
    #[derive(Deserialize)]
    struct KeySet {
        #[serde(rename = "keys")]
        _keys: Vec<serde::de::IgnoredAny>,
    }
    let get = |path: &str| http::Request::get(path).body(Vec::new());
    let metadata = client.request_text(get("/.well-known/openid-configuration")?).await?;
    let Metadata { issuer } = serde_json::from_str(&metadata).map_err(ReadError::Metadata)?;
    let jwks = client.request_text(get("/openid/v1/jwks")?).await?;
    // An empty or broken set would refuse everybody: it must not replace the last good one.
    if jwks.len() > KEY_SET_BYTES || serde_json::from_str::<KeySet>(&jwks).is_err() {
        return Err(ReadError::KeySet);
    }
    Ok(ClusterIssuer { url: issuer, jwks })
}
