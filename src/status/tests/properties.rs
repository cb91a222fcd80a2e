//! What must hold of any facts.

use proptest::prelude::*;
use serde_json::json;

use super::fixture::{self, Github, at, finding, offer, published, refusal, report, role, tool};
use crate::api::conditions::{PROGRAMMED, READY, find, reason};
use crate::api::{McpGateway, McpRole, McpTool};
use crate::policy::Severity;
use crate::policyserver::fleet::{Offer, Report};
use crate::status::{Enforcing, GatewayFacts, RoleFacts, ServerView, ToolFacts, Verdict, Waiting, Workload};

fn any_report(pod: &'static str) -> impl Strategy<Value = Option<Report>> {
    let acked = prop_oneof![Just(None), Just(Some("h1")), Just(Some("h2"))];
    let refused = prop_oneof![4 => Just(None), 1 => Just(Some("no".to_owned()))];
    let isolated = prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    let offers = prop_oneof![
        Just(None),
        Just(Some(offer(&["read"]))),
        Just(Some(offer(&["list", "write"]))),
        Just(Some(Offer { error: Some("e".to_owned()), ..Offer::default() }.into())),
    ];
    let report = (acked, refused, isolated, offers).prop_map(move |(acked, refused, is_isolated, catalogue)| {
        let mut report = report(pod, acked.unwrap_or_default());
        if acked.is_none() {
            report.acked = None;
        }
        Report { refused, catalogue, is_isolated, ..report }
    });
    prop::option::of(report)
}

fn any_workload() -> impl Strategy<Value = Option<Workload>> {
    let ready = prop::collection::btree_set(prop_oneof![Just("a".to_owned()), Just("b".to_owned())], 0..3);
    let reasons = prop_oneof![Just("CrashLoopBackOff"), Just("ErrImagePull"), Just("ContainerCreating")];
    let waiting = prop::option::of((reasons, "[a-z]{0,3}"));
    prop::option::of((0..3, 0..3, 0..3, ready, waiting).prop_map(|(wanted, replicas, updated, ready, waiting)| {
        Workload {
            wanted,
            replicas,
            updated,
            ready,
            waiting: waiting.map(|(reason, message)| Waiting { reason: reason.to_owned(), message }),
        }
    }))
}

fn github() -> impl Strategy<Value = Github> {
    let published = prop_oneof![
        Just(None),
        Just(Some(published("github", "h1", &[("McpServer", "github", 1)]))),
        Just(Some(published("github", "h2", &[("McpServer", "github", 2)]))),
    ];
    let findings = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![finding(Severity::Error, "/spec", reason::CONFLICTED)]),
        1 => Just(vec![finding(Severity::Error, "/spec", reason::GATEWAY_NOT_FOUND)]),
    ];
    let refusal = prop_oneof![
        4 => Just(None),
        1 => Just(Some(refusal(&[]))),
    ];
    let declared = prop::collection::vec(("(read|list|write)", any::<bool>()), 0..3);
    let reports = (any_report("a"), any_report("b"), any_report("c"));
    let flags = (any::<bool>(), any::<bool>());
    (1_i64..3, prop::option::of(1_i64..3), published, findings, refusal, any_workload(), reports, flags, declared)
        .prop_map(|(generation, judged, published, findings, refusal, workload, reports, flags, declared)| {
            let mut github = Github::well();
            github.object.metadata.generation = Some(generation);
            let reports = [reports.0, reports.1, reports.2].into_iter().flatten().collect();
            let (is_fleet_complete, are_acks_due) = flags;
            let object = github.object;
            Github {
                object,
                judged,
                findings,
                published,
                refusal,
                workload,
                is_update_waiting: false,
                reports,
                is_fleet_complete,
                are_acks_due,
                declared,
            }
        })
}

proptest! {
    /// Else the operator would write for ever.
    #[test]
    fn the_same_facts_say_the_same_again(mut github in github(), mut history in github()) {
        github.object.status = Some(history.settle(1));
        let first = github.settle(2);
        prop_assert_eq!(github.status(at(3)), first);
    }

    /// Nobody is sent to a pod that is not Ready, so what it enforces is no news.
    #[test]
    fn a_pod_that_is_not_ready_never_decides_whether_it_is_programmed(mut github in github(), mut history in github()) {
        github.object.status = Some(history.settle(1));
        let ready = github.workload.as_ref().map(|workload| workload.ready.clone()).unwrap_or_default();
        let mut without = github.clone();
        without.reports.retain(|report| ready.contains(&report.pod));
        let programmed = |github: &Github| find(&github.status(at(2)).conditions, PROGRAMMED).cloned();
        prop_assert_eq!(programmed(&github), programmed(&without));
        prop_assert_eq!(github.status(at(2)).enforcement, without.status(at(2)).enforcement);
    }

    #[test]
    fn programmed_says_that_every_ready_pod_acknowledged(github in github()) {
        let programmed = find(&github.status(at(1)).conditions, PROGRAMMED).cloned().unwrap();
        let ready = github.workload.as_ref().map(|workload| workload.ready.clone()).unwrap_or_default();
        let newest = github.published.as_ref().map(|published| published.hash.clone());
        let acked = |pod: &String| {
            let of = github.reports.iter().find(|report| report.pod == *pod);
            of.and_then(|report| report.acked.clone()).map(|acked| acked.hash) == newest
        };
        if programmed.status == "True" {
            prop_assert!(!ready.is_empty() && newest.is_some() && ready.iter().all(acked));
            prop_assert!(github.refusal.is_none());
        }
    }

    /// `kubectl wait` and GitOps tools go by these.
    #[test]
    fn ready_never_speaks_of_more_than_it_was_made_from(mut github in github(), mut history in github()) {
        github.object.status = Some(history.settle(1));
        let status = github.status(at(2));
        let ready = find(&status.conditions, READY).unwrap();
        for kind in ["Accepted", "Programmed"] {
            let other = find(&status.conditions, kind).unwrap();
            prop_assert!(ready.observed_generation <= other.observed_generation, "{}", kind);
            prop_assert!(ready.status != "True" || other.status == "True", "{}", kind);
        }
        let is = |kind| find(&status.conditions, kind).is_some();
        prop_assert!(!(is("Reconciling") && is("Stalled")));
        prop_assert_eq!(status.conditions.iter().filter(|c| c.type_ == "Ready").count(), 1);
    }

    #[test]
    fn the_order_of_reports_changes_nothing(github in github()) {
        let mut turned = github.clone();
        turned.reports.reverse();
        prop_assert_eq!(github.status(at(1)), turned.status(at(1)));
    }

    /// A leader that has not heard every replica knows less, and must not say that something got worse.
    #[test]
    fn silence_lowers_nothing_before_the_fleet_is_complete(mut github in github()) {
        github.is_fleet_complete = true;
        let before = github.settle(1);
        github.is_fleet_complete = false;
        github.reports.clear();
        let after = github.status(at(2));
        for kind in [PROGRAMMED, "Isolated", "Discovered", "Ready"] {
            let status = |conditions| find(conditions, kind).map(|c| c.status.clone());
            let (was, is) = (status(&before.conditions), status(&after.conditions));
            prop_assert!(was.as_deref() != Some("True") || is.as_deref() == Some("True"), "{}: {:?}", kind, is);
        }
    }

    /// As for servers: an McpTool, an McpRole and an McpGateway over any server in any state.
    #[test]
    fn the_same_facts_say_the_same_again_of_every_kind(
        first in github(), second in github(), generation in 1_i64..3, judged in prop::option::of(1_i64..3),
        history in github(), are_tools_known in any::<bool>(),
    ) {
        let mut read = tool(&json!({}));
        let mut viewer = role();
        let mut front = McpGateway::new("default", serde_json::from_value(json!({})).unwrap());
        for metadata in [&mut read.metadata, &mut viewer.metadata, &mut front.metadata] {
            metadata.generation = Some(generation);
        }
        let [first, second, history] = [first, second, history].map(|mut github| {
            let inputs = [("McpGateway", "default", 1), ("McpRole", "viewer", 1), ("McpTool", "github-read", 2)];
            if let Some(published) = github.published.as_mut().filter(|_| are_tools_known) {
                *published = fixture::published("github", &published.hash, &inputs);
            }
            github
        });
        let findings = first.findings.clone();
        let verdict = Verdict { judged, findings: &findings };
        let conditions = first.status(at(1)).conditions;
        let say_tool = |object: &McpTool, github: &Github, second| github.enforcing(|enforcing| {
            let server = Some(ServerView { enforcing, conditions: &conditions });
            crate::status::tool(&ToolFacts { object, verdict, server }, at(second))
        });
        read.status = Some(say_tool(&read, &history, 1));
        let once = say_tool(&read, &first, 2);
        read.status = Some(once.clone());
        prop_assert_eq!(say_tool(&read, &first, 3), once);

        first.enforcing(|first| second.enforcing(|second| history.enforcing(|history| {
            let servers = [first, second];
            let say = |object: &McpRole, servers: &[Enforcing<'_>], second| {
                crate::status::role(&RoleFacts { object, verdict, servers, reach: None }, at(second))
            };
            viewer.status = Some(say(&viewer, &[history], 1));
            let once = say(&viewer, &servers, 2);
            viewer.status = Some(once.clone());
            prop_assert_eq!(say(&viewer, &servers, 3), once);
            let turned = [second, first];
            prop_assert_eq!(say(&viewer, &turned, 4), say(&viewer, &servers, 4), "servers come in no order");

            let say = |object: &McpGateway, servers: &[Enforcing<'_>], second| {
                crate::status::gateway(&GatewayFacts { object, verdict, servers, referring: 2 }, at(second))
            };
            front.status = Some(say(&front, &[history], 1));
            let once = say(&front, &servers, 2);
            front.status = Some(once.clone());
            prop_assert_eq!(say(&front, &servers, 3), once);
            Ok(())
        })))?;
    }
}
