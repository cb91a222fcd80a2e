//! PURE but for the Fleet that it fills. What all replicas say, as one.
//!
//! A gateway that moves from one replica to another is for a moment with both, or with none. With both, the one that
//! told last counts; with none, its last report stays for a grace: it enforces what it did, and a condition that fell
//! and rose again would be noise.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::snapshot::Target;
use crate::policyserver::fleet::{Fleet, Report};

/// How long a report outlives the gateway's last stream.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// A gateway: its server, and the uid of its Pod.
type Gateway = (Target, String);

/// The reports of all replicas.
pub(super) struct Merge {
    fleet: Arc<Fleet>,
    /// By gateway, what each replica told, the newest last.
    told: HashMap<Gateway, Vec<(u64, Arc<Report>)>>,
    /// Gateways without a replica, and since when.
    left: BTreeMap<Gateway, Instant>,
}

impl Merge {
    pub(super) fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet, told: HashMap::new(), left: BTreeMap::new() }
    }

    /// What this connection to a replica told last of a gateway.
    pub(super) fn last(&self, replica: u64, target: &Target, pod: &str) -> Option<&Report> {
        let told = self.told.get(&(target.clone(), pod.to_owned()))?;
        told.iter().find(|(of, _)| *of == replica).map(|(_, report)| report.as_ref())
    }

    /// A replica tells of a gateway.
    pub(super) fn put(&mut self, replica: u64, target: &Target, report: Arc<Report>) {
        let gateway = (target.clone(), report.pod.clone());
        self.left.remove(&gateway);
        let told = self.told.entry(gateway).or_default();
        told.retain(|(of, _)| *of != replica);
        told.push((replica, report.clone()));
        self.fleet.put(target, report);
    }

    /// A gateway has left a replica.
    pub(super) fn gone(&mut self, replica: u64, target: &Target, pod: &str, now: Instant) {
        let gateway = (target.clone(), pod.to_owned());
        let Some(told) = self.told.get_mut(&gateway) else { return };
        told.retain(|(of, _)| *of != replica);
        if let Some((_, report)) = told.last() {
            self.fleet.put(target, report.clone());
        } else {
            self.told.remove(&gateway);
            self.left.insert(gateway, now);
        }
    }

    /// A replica is gone, and with it all that it told.
    pub(super) fn lost(&mut self, replica: u64, now: Instant) {
        let of_it = self.told.iter().filter(|(_, told)| told.iter().any(|(of, _)| *of == replica));
        let gateways: Vec<Gateway> = of_it.map(|(gateway, _)| gateway.clone()).collect();
        for (target, pod) in &gateways {
            self.gone(replica, target, pod, now);
        }
    }

    /// Forgets gateways whose grace is over. The next time to look, if any is left.
    pub(super) fn purge(&mut self, now: Instant) -> Option<Instant> {
        let fleet = &self.fleet;
        self.left.retain(|(target, pod), since| {
            let stays = now < *since + GRACE;
            if !stays {
                fleet.remove(target, pod);
            }
            stays
        });
        self.left.values().min().map(|since| *since + GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { namespace: "agents".to_owned(), server: "github".to_owned() }
    }

    fn report(program: &str) -> Arc<Report> {
        Arc::new(Report { pod: "pod".to_owned(), program: program.to_owned(), ..Report::default() })
    }

    fn programs(fleet: &Fleet) -> Vec<String> {
        fleet.of(&target()).iter().map(|report| report.program.clone()).collect()
    }

    #[test]
    fn a_gateway_that_moved_is_not_taken_away_by_its_old_replica() {
        let fleet = Arc::new(Fleet::default());
        let mut merge = Merge::new(Arc::clone(&fleet));
        let now = Instant::now();
        merge.put(1, &target(), report("on 1"));
        merge.put(2, &target(), report("on 2"));

        merge.gone(1, &target(), "pod", now);
        merge.purge(now + GRACE);

        assert_eq!(programs(&fleet), ["on 2"]);
    }

    #[test]
    fn a_gateway_without_a_replica_stays_for_the_grace_alone() {
        let fleet = Arc::new(Fleet::default());
        let mut merge = Merge::new(Arc::clone(&fleet));
        let now = Instant::now();
        merge.put(1, &target(), report("on 1"));

        merge.lost(1, now);
        assert_eq!(merge.purge(now + GRACE / 2), Some(now + GRACE));
        assert_eq!(programs(&fleet), ["on 1"]);
        assert_eq!(merge.purge(now + GRACE), None);

        assert_eq!(programs(&fleet), Vec::<String>::new());
    }

    #[test]
    fn a_gateway_that_comes_back_within_the_grace_stays() {
        let fleet = Arc::new(Fleet::default());
        let mut merge = Merge::new(Arc::clone(&fleet));
        let now = Instant::now();
        merge.put(1, &target(), report("on 1"));
        merge.lost(1, now);

        merge.put(2, &target(), report("on 2"));

        assert_eq!(merge.purge(now + GRACE * 2), None);
        assert_eq!(programs(&fleet), ["on 2"]);
    }
}
