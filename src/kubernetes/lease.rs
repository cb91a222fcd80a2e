//! The Lease: one process writes to the cluster at a time.
//!
//! Owns one `coordination.k8s.io` Lease. Expiry is judged on our monotonic clock since the record last changed, never
//! by comparing `renewTime` with our wall clock, so clocks that disagree elect nobody twice. Every write carries the
//! `resourceVersion` that was read, so of two who try, one wins.
//!
//! A leader that could not renew for two thirds of the Lease's time stops before anybody else may begin: the token of
//! [`hold`]'s work is cancelled and the work is dropped, so that the last third is left for writes on their way.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Resource as _, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Time that work has to end by itself after a graceful stop.
const GRACE: Duration = Duration::from_secs(10);

/// Whose Lease, and for how long.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; no other process may have the same.
    pub identity: String,
    /// How long the others wait for a holder that is silent.
    pub ttl: Duration,
}

/// A candidate for the Lease.
pub struct Election {
    api: Api<Lease>,
    settings: Settings,
    /// The version that the record had when it was last seen to change, and when that was.
    seen: Option<(Option<String>, Instant)>,
}

/// How leading ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// As we were told to; the Lease is free.
    Stopped,
    /// Somebody else leads, or may: the work is gone, and nothing may be written before the Lease is won again.
    Lost,
}

impl Election {
    /// A candidate that has not tried yet.
    pub fn new(client: &Client, settings: Settings) -> Self {
        Self { api: Api::namespaced(client.clone(), &settings.namespace), settings, seen: None }
    }

    /// One try to take the Lease, or to keep it. `Ok(false)`: somebody else has it, or was faster.
    async fn claim(&mut self) -> Result<bool, kube::Error> {
        let current = self.api.get_opt(&self.settings.name).await?;
        let version = current.as_ref().and_then(ResourceExt::resource_version);
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let spec = current.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let is_renewal = holder == Some(&self.settings.identity);
        if holder.is_some() && !is_renewal && !self.is_silent(&spec) {
            return Ok(false);
        }
        let now = MicroTime(Timestamp::now());
        let transitions = spec.lease_transitions.unwrap_or(0);
        let next = LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.settings.ttl.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: spec.acquire_time.clone().filter(|_| is_renewal).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_renewal { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        self.write(current, next).await
    }

    /// Whether the holder has not touched the record for as long as it said it would at most.
    fn is_silent(&self, spec: &LeaseSpec) -> bool {
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(self.settings.ttl, Duration::from_secs);
        self.seen.as_ref().is_some_and(|(_, at)| at.elapsed() > lasts)
    }

    /// Writes on top of what was read, metadata and all. `Ok(false)`: somebody wrote in between.
    async fn write(&self, current: Option<Lease>, spec: LeaseSpec) -> Result<bool, kube::Error> {
        let params = PostParams { field_manager: Some("toolgate/lease".to_owned()), ..PostParams::default() };
        let mut lease = current.clone().unwrap_or_default();
        lease.spec = Some(spec);
        lease.meta_mut().managed_fields = None;
        let written = if current.is_some() {
            self.api.replace(&self.settings.name, &params, &lease).await
        } else {
            lease.meta_mut().name = Some(self.settings.name.clone());
            self.api.create(&params, &lease).await
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Frees the Lease, so that the next leader need not wait. Somebody else's stays theirs.
    async fn release(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(&self.settings.name).await? else { return Ok(()) };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() == Some(&self.settings.identity) {
            let free = LeaseSpec { holder_identity: Some(String::new()), lease_duration_seconds: Some(1), ..spec };
            self.write(Some(lease), free).await?;
        }
        Ok(())
    }

    /// One try that takes a third of the Lease's time at most.
    async fn try_claim(&mut self) -> Option<bool> {
        let limit = self.settings.ttl / 3;
        match timeout(limit, self.claim()).await {
            Ok(Ok(holds)) => Some(holds),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the Lease could not be claimed, and is tried again");
                None
            }
            Err(_) => {
                tracing::warn!("the API server did not answer about the Lease in time");
                None
            }
        }
    }

    /// Waits until the Lease is ours; the time from which it lasts. `None` once `stop` is cancelled.
    async fn win(&mut self, stop: &CancellationToken) -> Option<Instant> {
        loop {
            // From before the request: when it reached the server is not known.
            let begun = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return None,
                claimed = self.try_claim() => if claimed == Some(true) { return Some(begun) },
            }
            // A tenth: a Lease that was freed is taken within two seconds of a usual 15.
            let wait = self.settings.ttl / 10;
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Renews until that fails for two thirds of the Lease's time, or somebody else has it.
    async fn keep(&mut self, mut since: Instant) {
        let (pause, limit) = (self.settings.ttl / 6, self.settings.ttl * 2 / 3);
        loop {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let tried = tokio::select! {
                () = sleep_until(since + limit) => return,
                tried = self.try_claim() => tried,
            };
            match tried {
                Some(true) => since = begun,
                Some(false) => return,
                None if since.elapsed() >= limit => return,
                None => {}
            }
        }
    }
}

/// Waits for the Lease, runs `work` while it is ours, and frees it after a graceful `stop`. `work` must end soon after
/// its token is cancelled; it is dropped when it does not, and at once when the Lease is lost.
pub async fn hold<F>(
    mut election: Election,
    stop: &CancellationToken,
    leads: &watch::Sender<bool>,
    work: impl FnOnce(CancellationToken) -> F,
) -> Outcome
where
    F: Future<Output = ()>,
{
    let Some(since) = election.win(stop).await else { return Outcome::Stopped };
    tracing::info!(identity = election.settings.identity, "leading");
    leads.send_replace(true);
    let token = stop.child_token();
    let outcome = {
        let work = work(token.clone());
        let mut work = std::pin::pin!(work);
        tokio::select! {
            () = election.keep(since) => Outcome::Lost,
            () = &mut work => Outcome::Stopped,
            () = graceful(stop) => Outcome::Stopped,
        }
    };
    token.cancel();
    leads.send_replace(false);
    match outcome {
        Outcome::Lost => tracing::error!("the Lease is lost"),
        Outcome::Stopped => match timeout(election.settings.ttl / 3, election.release()).await {
            Ok(Ok(())) => tracing::info!("the Lease is free"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be freed: the next leader waits for it"),
            Err(_) => tracing::warn!("the Lease could not be freed in time: the next leader waits for it"),
        },
    }
    outcome
}

/// The stop, and the time that work has to notice it.
async fn graceful(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

#[cfg(test)]
mod tests;
