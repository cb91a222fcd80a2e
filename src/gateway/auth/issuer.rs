//! One trusted issuer: its settings and its keys, which survive rotation and outage.
//!
//! Keys are fetched on first use, anew when a token names an unknown key, and in the background once they are older
//! than [`KEYS_FRESH`]. One fetch runs at a time, at most every [`limits::JWKS_REFRESH`]: until then an unknown key
//! stays unknown (the negative cache). When the issuer does not answer, the known keys go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::policy::snapshot::{Issuer, Keys};

use super::super::fetch::Fetcher;
use super::super::limits;
use super::Refused;
use super::keys::{Found, Key, KeySet};
use super::token::Token;

/// Age at which the keys are fetched again while they are used: the longest that a withdrawn key lives on.
pub(super) const KEYS_FRESH: Duration = Duration::from_mins(5);

/// An issuer and its keys.
pub(super) struct TrustedIssuer {
    pub(super) settings: Arc<Issuer>,
    source: Arc<Source>,
}

impl TrustedIssuer {
    pub(super) fn new(settings: Issuer, fetcher: Fetcher) -> Self {
        let source = Arc::new(Source::new(&settings, fetcher));
        Self { settings: Arc::new(settings), source }
    }

    /// Starts a fetch in the background if the keys are old. Cheap: a clock and a comparison.
    pub(super) fn refresh_if_old(&self) {
        self.source.refresh_if_old();
    }

    /// Finds the key that the token names, and checks the signature with it.
    pub(super) async fn verify_signature(&self, token: &Token<'_>) -> Result<Arc<Key>, Refused> {
        self.source.refresh_if_old();
        match self.source.check(token) {
            Err(Refused::UnknownKey) => {}
            // Without a `kid` a rotated key shows as a bad signature.
            Err(Refused::Signature) if token.key_id.is_none() => {}
            settled => return settled,
        }
        self.source.refreshed().await;
        let outcome = self.source.check(token);
        match outcome {
            // The key may be one that we could not fetch: do not tell the caller that the token is wrong.
            Err(Refused::UnknownKey) if !self.source.is_current() => Err(Refused::KeysUnavailable),
            outcome => outcome,
        }
    }
}

struct Source {
    issuer: String,
    keys: Keys,
    fetcher: Fetcher,
    set: ArcSwap<KeySet>,
    start: Instant,
    /// Milliseconds after `start` from which on a use of the keys starts a fetch.
    due: AtomicU64,
    flight: Mutex<Flight>,
    /// Ticks when a fetch has ended.
    landed: watch::Sender<()>,
}

struct Flight {
    running: bool,
    last: Option<Instant>,
    /// Whether the last fetch gave keys.
    succeeded: bool,
}

impl Source {
    fn new(settings: &Issuer, fetcher: Fetcher) -> Self {
        let inline = match &settings.keys {
            Keys::Inline(text) => Some(KeySet::parse(text.as_bytes())),
            Keys::Url(_) | Keys::Discovery => None,
        };
        let succeeded = matches!(inline, Some(Ok(_)));
        let set = inline.and_then(|parsed| {
            let warn = |error: &super::keys::KeySetError| {
                tracing::error!(issuer = %settings.url, %error, "inline keys are not usable, all tokens are refused");
            };
            parsed.inspect_err(warn).ok()
        });
        Self {
            issuer: settings.url.clone(),
            keys: settings.keys.clone(),
            fetcher,
            set: ArcSwap::from_pointee(set.unwrap_or_default()),
            start: Instant::now(),
            due: AtomicU64::new(u64::MAX), // The first token that needs keys fetches them.
            flight: Mutex::new(Flight { running: false, last: None, succeeded }),
            landed: watch::Sender::new(()),
        }
    }

    fn check(&self, token: &Token<'_>) -> Result<Arc<Key>, Refused> {
        let set = self.set.load();
        match set.find(token.key_id.as_deref(), token.algorithm) {
            Found::One(key) if key.has_signed(token) => Ok(Arc::clone(key)),
            Found::One(_) => Err(Refused::Signature),
            Found::Several => Err(Refused::AmbiguousKey),
            // The key is there, but the token wants to have it used in another way.
            Found::None if set.names(token.key_id.as_deref()) => Err(Refused::Algorithm),
            Found::None => Err(Refused::UnknownKey),
        }
    }

    fn is_current(&self) -> bool {
        self.flight.lock().succeeded
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn refresh_if_old(self: &Arc<Self>) {
        if self.due.load(Ordering::Relaxed) <= self.now_ms() {
            self.take_off();
        }
    }

    /// Waits for a fetch that runs or may start now; returns at once where neither is so.
    async fn refreshed(self: &Arc<Self>) {
        let mut landed = self.landed.subscribe();
        if self.take_off() {
            let _ = landed.changed().await; // The sender lives as long as `self`.
        }
    }

    /// Starts a fetch if none runs and the last one is long enough ago. True if one runs now.
    fn take_off(self: &Arc<Self>) -> bool {
        let mut flight = self.flight.lock();
        if flight.running {
            return true;
        }
        let early = flight.last.is_some_and(|last| last.elapsed() < limits::JWKS_REFRESH);
        if early || matches!(self.keys, Keys::Inline(_)) {
            return false;
        }
        flight.running = true;
        flight.last = Some(Instant::now());
        drop(flight);
        // A task of its own: a caller that goes away does not end the fetch for those who wait with it.
        let landing = Landing(Arc::clone(self));
        tokio::spawn(async move { landing.0.fetch_keys().await });
        true
    }

    async fn fetch_keys(&self) {
        let outcome = self.fetch().await;
        let succeeded = outcome.is_ok();
        match outcome {
            Ok(next) => {
                tracing::debug!(issuer = %self.issuer, keys = next.len(), "issuer's keys fetched");
                self.set.store(Arc::new(self.set.load().succeed(next)));
            }
            Err(cause) => tracing::warn!(issuer = %self.issuer, cause, "issuer's keys not fetched, known keys go on"),
        }
        self.flight.lock().succeeded = succeeded;
        let pause = if succeeded { KEYS_FRESH } else { limits::JWKS_REFRESH };
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.due.store(self.now_ms().saturating_add(pause), Ordering::Relaxed);
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let discovered;
        let url = match &self.keys {
            Keys::Inline(_) => return Err("inline keys are never fetched".to_owned()),
            Keys::Url(url) => url,
            Keys::Discovery => {
                discovered = self.discover().await?;
                &discovered
            }
        };
        let document = self.fetcher.get(url).await.map_err(|error| error.to_string())?;
        KeySet::parse(&document).map_err(|error| format!("{url}: {error}"))
    }

    /// `jwks_uri` from the issuer's own metadata: `OpenID` Connect Discovery first, then RFC 8414.
    async fn discover(&self) -> Result<String, String> {
        let mut failures = Vec::new();
        for url in metadata_urls(&self.issuer) {
            match self.discover_at(&url).await {
                Ok(jwks) => return Ok(jwks),
                Err(cause) => failures.push(cause),
            }
        }
        Err(failures.join("; "))
    }

    async fn discover_at(&self, url: &str) -> Result<String, String> {
        let document = self.fetcher.get(url).await.map_err(|error| error.to_string())?;
        let metadata: Metadata = serde_json::from_slice(&document).map_err(|error| format!("{url}: {error}"))?;
        if metadata.issuer != self.issuer {
            // RFC 8414 §3.3: metadata of someone else must not be used.
            return Err(format!("{url}: its issuer is {:?}, not {:?}", metadata.issuer, self.issuer));
        }
        Ok(metadata.jwks_uri)
    }
}

/// Ends a flight also when the task is dropped, so that nobody waits for ever.
struct Landing(Arc<Source>);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.flight.lock().running = false;
        self.0.landed.send_replace(());
    }
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Where an issuer's metadata may stand.
fn metadata_urls(issuer: &str) -> Vec<String> {
    let base = issuer.trim_end_matches('/');
    let mut urls = vec![format!("{base}/.well-known/openid-configuration")];
    if let Some((scheme, rest)) = base.split_once("://") {
        // RFC 8414 §3.1: the well-known part stands between host and path.
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        urls.push(format!("{scheme}://{host}/.well-known/oauth-authorization-server{path}"));
    }
    urls
}

#[cfg(test)]
mod tests {
    use super::metadata_urls;

    #[test]
    fn well_known_goes_before_the_path_for_oauth_and_after_it_for_openid() {
        assert_eq!(
            metadata_urls("https://login.example.com/tenant/"),
            [
                "https://login.example.com/tenant/.well-known/openid-configuration",
                "https://login.example.com/.well-known/oauth-authorization-server/tenant",
            ]
        );
        assert_eq!(
            metadata_urls("https://login.example.com").last().map(String::as_str),
            Some("https://login.example.com/.well-known/oauth-authorization-server")
        );
    }
}
