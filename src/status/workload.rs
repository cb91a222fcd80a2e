//! `Available`: whether the pods of a server run.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::verdict::{pending, seen};
use crate::api::conditions::{AVAILABLE, Seen, Status, find, reason};

/// The pods of a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// How many pods are asked for.
    pub wanted: i32,
    /// How many pods there are.
    pub replicas: i32,
    /// How many of them are of the newest template.
    pub updated: i32,
    /// `metadata.uid` of the pods that are Ready and do not terminate.
    pub ready: BTreeSet<String>,
    /// What keeps a pod from running, where something does.
    pub waiting: Option<Waiting>,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Waiting {
    /// As Kubernetes says it: the `reason` of a container that waits (`ImagePullBackOff`, `CrashLoopBackOff`, …), of a
    /// pod that is not scheduled (`Unschedulable`), or of a ReplicaSet that makes none (`FailedCreate`).
    pub reason: String,
    /// Kubernetes' own words.
    pub message: String,
}

impl Waiting {
    /// Our reason, for the many that Kubernetes has.
    fn reason(&self) -> &'static str {
        match self.reason.as_str() {
            "ImagePullBackOff"
            | "ErrImagePull"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => reason::IMAGE_PULL_FAILED,
            "CrashLoopBackOff" => reason::CRASH_LOOPING,
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PostStartHookError" => reason::CONTAINER_FAILED,
            "FailedCreate" => reason::PODS_REFUSED,
            "Unschedulable" => reason::UNSCHEDULABLE,
            _ => reason::PODS_NOT_READY,
        }
    }
}

/// What does not go away by waiting a moment: between two attempts the pod looks as if nothing was wrong.
const STICKY: &[&str] = &[reason::IMAGE_PULL_FAILED, reason::CRASH_LOOPING, reason::CONTAINER_FAILED];

/// `None` for `workload`: there is none yet.
pub(super) fn available(
    workload: Option<&Workload>,
    is_update_waiting: bool,
    generation: i64,
    before: &[Condition],
) -> Seen {
    let Some(workload) = workload else { return pending(AVAILABLE, generation) };
    if workload.wanted == 0 {
        return seen(AVAILABLE, Status::False, reason::SCALED_TO_ZERO, "replicas is 0: scale it up", generation);
    }
    let ready = workload.ready.len();
    if ready > 0 {
        let waits = "; another version of the gateway waits for their next rollout: set gatewayUpdate to Rolling to \
                     have it now";
        let waits = if is_update_waiting { waits } else { "" };
        let message = format!("{ready} of {} pods are Ready{waits}", workload.wanted);
        return seen(AVAILABLE, Status::True, reason::AVAILABLE, message, generation);
    }
    let (now, message) = match &workload.waiting {
        Some(waiting) => (waiting.reason(), waiting.message.clone()),
        None => (reason::PODS_NOT_READY, format!("0 of {} pods are Ready", workload.wanted)),
    };
    // Kubernetes tries again and again and words each attempt anew: the first word stays until something else is so.
    let same = find(before, AVAILABLE).filter(|before| {
        let was = before.reason.as_str();
        before.status == Status::False.as_str()
            && before.observed_generation == Some(generation)
            && (was == now || (now == reason::PODS_NOT_READY && STICKY.contains(&was)))
    });
    match same {
        Some(before) => Seen::kept(AVAILABLE, before),
        None => seen(AVAILABLE, Status::False, now, message, generation),
    }
}

/// Whether pods are being replaced or added.
pub(super) fn is_rolling(workload: &Workload) -> bool {
    let ready = i32::try_from(workload.ready.len()).unwrap_or(i32::MAX);
    workload.updated < workload.wanted || workload.replicas != workload.wanted || ready < workload.wanted
}
