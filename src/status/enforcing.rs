//! `Programmed`: whether the gateways of servers enforce what was declared.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::verdict::{keep_or, pending, seen};
use crate::api::conditions::{PROGRAMMED, Seen, Status, holds, reason};
use crate::api::status::Enforcement;
use crate::policy::snapshot::Input;
use crate::policyserver::fleet::{Offer, Report};
use crate::policyserver::index::{Published, Refusal};

/// Pods told by name in one message.
const TOLD: usize = 3;

/// How far the policy of one server is enforced.
#[derive(Clone, Copy, Debug)]
pub struct Enforcing<'a> {
    /// The policy that gateways get; unset: none has been published.
    pub published: Option<&'a Published>,
    /// Why the newest policy is not published, where that is so.
    pub refusal: Option<&'a Refusal>,
    /// `metadata.uid` of the server's pods that are Ready and do not terminate.
    pub ready: &'a BTreeSet<String>,
    /// What the server's gateways reported, of any of its pods.
    pub reports: &'a [Arc<Report>],
    /// Every replica has told its gateways: a pod that did not report is not connected.
    pub is_fleet_complete: bool,
    /// The newest policy has been out for so long that an acknowledgement that has not come is late. Ten seconds do.
    pub are_acks_due: bool,
}

/// An object as `Published::inputs` names it.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) generation: i64,
}

/// How far one server is.
enum Progress {
    /// No policy holds this generation.
    Unpublished,
    /// Its newest policy is not published.
    Refused(&'static str, String),
    /// Nothing runs.
    NoGateways,
    /// A gateway does not take it.
    GatewayRefused(String),
    /// Ready pods that are silent.
    Disconnected(Vec<String>),
    /// How many Ready pods do not enforce it yet, of how many.
    Lagging(usize, usize),
    /// Every Ready pod enforces it.
    Done,
}

impl<'a> Enforcing<'a> {
    /// What the server offers, as one of its gateways saw it: a Ready pod's, complete, of the first pod by uid, as far
    /// as there is a choice. So the answer does not change with the order of reports.
    pub fn offer(&self) -> Option<&'a Arc<Offer>> {
        let offered = self.reports.iter().filter_map(|report| Some((report, report.catalogue.as_ref()?)));
        offered
            .filter(|(report, _)| self.ready.contains(&report.pod))
            .min_by_key(|(report, offer)| (offer.error.is_some(), &report.pod))
            .map(|(_, offer)| offer)
    }

    /// Why a server that has not said anything yet does not, in the words of its gateway: of the first such pod by uid.
    pub(super) fn silence(&self) -> Option<&'a str> {
        let silent = self.reports.iter().filter_map(|report| {
            let offer = report.catalogue.as_ref().filter(|offer| offer.protocol_versions.is_empty())?;
            Some((&report.pod, offer.error.as_deref()?))
        });
        silent.min().map(|(_, error)| error)
    }

    /// The reports of Ready pods. What other pods say counts for nothing here: nobody is sent to them.
    pub(super) fn of_ready(&self) -> impl Iterator<Item = &'a Arc<Report>> + use<'a> {
        let ready = self.ready;
        self.reports.iter().filter(move |report| ready.contains(&report.pod))
    }

    /// How many Ready pods enforce the newest policy.
    pub(super) fn acknowledged(&self) -> usize {
        let newest = self.published.map(|published| published.hash.as_str());
        let acked = |report: &&Arc<Report>| report.acked.as_ref().map(|acked| acked.hash.as_str()) == newest;
        if newest.is_none() { 0 } else { self.of_ready().filter(acked).count() }
    }

    /// Ready pods that said nothing.
    pub(super) fn silent(&self) -> Vec<String> {
        let heard: BTreeSet<&str> = self.of_ready().map(|report| report.pod.as_str()).collect();
        self.ready.iter().filter(|pod| !heard.contains(pod.as_str())).cloned().collect()
    }

    /// Whether the newest policy was made with the object, be it the one in force or one that is refused.
    pub(super) fn concerns(&self, named: &Named<'_>) -> bool {
        let refused = self.refusal.and_then(|refusal| generation(&refusal.inputs, named.kind, named.name));
        refused.is_some() || self.input(named.kind, named.name).is_some()
    }

    fn input(&self, kind: &str, name: &str) -> Option<i64> {
        generation(&self.published?.inputs, kind, name)
    }

    /// Whether a Ready pod enforces a policy that was made from something newer than what is known here: another replica
    /// sent it, and it is we who are behind.
    fn is_overtaken(&self) -> bool {
        let Some(published) = self.published else { return false };
        let mut acked = self.of_ready().filter_map(|report| report.acked.as_ref());
        acked.any(|acked| acked.hash != published.hash && published.version.goes_back(&acked.version))
    }

    /// Whether an acknowledgement that has not come is late. None is for a policy that is not the newest.
    fn are_acks_late(&self) -> bool {
        self.are_acks_due && !self.is_overtaken()
    }

    /// Whether some Ready pod may still enforce an older policy, or enforces a newer one than is known here.
    pub(super) fn is_in_flight(&self) -> bool {
        !self.are_acks_late() && self.published.is_some() && self.acknowledged() < self.ready.len()
    }

    fn progress(&self, named: &Named<'_>) -> Progress {
        let is_published = self.input(named.kind, named.name).is_some_and(|generation| generation >= named.generation);
        if !is_published {
            return match self.refusal {
                Some(refusal) => Progress::Refused(refusal.reason, refusal.message.clone()),
                None => Progress::Unpublished,
            };
        }
        if let Some(refusal) = self.refusal {
            return Progress::Refused(refusal.reason, refusal.message.clone());
        }
        if self.ready.is_empty() {
            return Progress::NoGateways;
        }
        let refused = self.of_ready().filter_map(|report| Some((&report.pod, report.refused.as_ref()?))).min();
        if let Some((pod, why)) = refused {
            return Progress::GatewayRefused(format!("the gateway of pod {pod} keeps the last good policy: {why}"));
        }
        let silent = self.silent();
        if !silent.is_empty() {
            return Progress::Disconnected(silent);
        }
        let (all, acknowledged) = (self.ready.len(), self.acknowledged());
        if acknowledged < all { Progress::Lagging(all - acknowledged, all) } else { Progress::Done }
    }

    /// `status.enforcement` of the server.
    pub(super) fn enforcement(&self, server: &str, before: Option<&Enforcement>) -> Option<Enforcement> {
        let is_silence_expected = !self.is_fleet_complete && !self.silent().is_empty();
        if before.is_some() && (self.is_in_flight() || is_silence_expected) {
            return before.cloned();
        }
        let published = self.published?;
        Some(Enforcement {
            generation: self.input("McpServer", server).unwrap_or_default(),
            snapshot: published.hash.clone(),
            ready: count(self.ready.len()),
            acknowledged: count(self.acknowledged()),
        })
    }
}

/// The generation of an object among inputs, which are sorted, and many where many roles and tools are about a server.
fn generation(inputs: &[Input], kind: &str, name: &str) -> Option<i64> {
    let at = inputs.partition_point(|input| (input.kind.as_str(), input.name.as_str()) < (kind, name));
    inputs.get(at).filter(|input| input.kind == kind && input.name == name).map(|input| input.generation)
}

/// A count as the API writes it.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `Programmed` of an object that one server is about: the McpServer itself, or an McpTool.
pub(super) fn of_one(enforcing: &Enforcing<'_>, named: &Named<'_>, before: &[Condition]) -> Seen {
    let say = |status, reason, message: String| seen(PROGRAMMED, status, reason, message, named.generation);
    match enforcing.progress(named) {
        Progress::Unpublished => keep_or(PROGRAMMED, before, || pending(PROGRAMMED, named.generation)),
        Progress::Refused(reason, message) => say(Status::False, reason, message),
        Progress::NoGateways => say(Status::Unknown, reason::NO_GATEWAYS, "no pod is Ready".to_owned()),
        Progress::GatewayRefused(message) => say(Status::False, reason::GATEWAY_REFUSED, message),
        Progress::Disconnected(pods) => {
            let otherwise = || say(Status::Unknown, reason::GATEWAY_DISCONNECTED, disconnected(&pods));
            if enforcing.is_fleet_complete { otherwise() } else { keep_or(PROGRAMMED, before, otherwise) }
        }
        Progress::Lagging(behind, all) => {
            let message = format!("{behind} of {all} Ready pods do not enforce the newest policy yet");
            let otherwise = || say(Status::False, reason::NOT_ACKNOWLEDGED, message);
            if enforcing.are_acks_late() { otherwise() } else { keep_or(PROGRAMMED, before, otherwise) }
        }
        // Without a number: one more pod would be a write for each of the server's tools.
        Progress::Done => say(Status::True, reason::PROGRAMMED, "every Ready pod enforces it".to_owned()),
    }
}

/// `Programmed` of an object that many servers are about: an McpRole or an McpGateway. `servers` are all of its
/// namespace. A server without a Ready pod is left out: nobody can call it.
pub(super) fn of_many(servers: &[Enforcing<'_>], named: &Named<'_>, before: &[Condition]) -> Seen {
    let say = |status, reason, message: String| seen(PROGRAMMED, status, reason, message, named.generation);
    let was_programmed = holds(before, PROGRAMMED, named.generation);
    let mut refusals = Vec::new();
    let mut silent_pods = Vec::new();
    let (mut late, mut early, mut done, mut stopped) = (0, 0, 0, 0);
    for server in servers {
        if !server.concerns(named) {
            // What was taken from the object may still be in force there, until the newest policy is acknowledged.
            early += usize::from(!was_programmed && server.is_in_flight());
            continue;
        }
        match server.progress(named) {
            Progress::Unpublished => return keep_or(PROGRAMMED, before, || pending(PROGRAMMED, named.generation)),
            Progress::Refused(reason, message) => refusals.push((told(server, &message), reason)),
            Progress::GatewayRefused(message) => refusals.push((told(server, &message), reason::GATEWAY_REFUSED)),
            Progress::NoGateways => stopped += 1,
            Progress::Disconnected(pods) if server.is_fleet_complete => silent_pods.extend(pods),
            Progress::Lagging(..) if server.are_acks_late() => late += 1,
            Progress::Disconnected(_) | Progress::Lagging(..) => early += 1,
            Progress::Done => done += 1,
        }
    }
    // The servers come in no order, and what is said must not change with it.
    silent_pods.sort_unstable();
    if let Some((message, reason)) = refusals.into_iter().min() {
        return say(Status::False, reason, message);
    }
    if late > 0 {
        let message = format!("{late} McpServers have Ready pods that do not enforce the newest policy yet");
        return say(Status::False, reason::NOT_ACKNOWLEDGED, message);
    }
    if !silent_pods.is_empty() {
        return say(Status::Unknown, reason::GATEWAY_DISCONNECTED, disconnected(&silent_pods));
    }
    if early > 0 {
        let message = format!("{early} McpServers have not acknowledged the newest policy yet");
        return keep_or(PROGRAMMED, before, || say(Status::Unknown, reason::NOT_ACKNOWLEDGED, message));
    }
    match (done, stopped) {
        (0, 0) => say(Status::True, reason::NO_SERVERS, "no McpServer is concerned".to_owned()),
        (0, _) => say(Status::Unknown, reason::NO_GATEWAYS, "no concerned McpServer has a Ready pod".to_owned()),
        _ => say(Status::True, reason::PROGRAMMED, "every concerned McpServer enforces it".to_owned()),
    }
}

fn told(server: &Enforcing<'_>, message: &str) -> String {
    let name = server.published.map_or("?", |published| published.target.server.as_str());
    format!("McpServer {name}: {message}")
}

fn disconnected(pods: &[String]) -> String {
    let more = if pods.len() > TOLD { ", …" } else { "" };
    let pods: Vec<&str> = pods.iter().take(TOLD).map(String::as_str).collect();
    format!("not connected, and enforcing what they had last: pods {}{more}", pods.join(", "))
}
