//! What is measured of a gateway's connection to the policy server. Made only where there is one.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

const SERVER: [&str; 2] = ["server_namespace", "server"];

/// The families, for all servers of the process.
pub(super) struct LinkFamilies {
    connected: IntGaugeVec,
    silent: IntGaugeVec,
    epoch: IntGaugeVec,
    seen: IntGaugeVec,
}

/// The connection of one server's gateway.
pub struct LinkMetrics {
    connected: IntGauge,
    silent: IntGauge,
    epoch: IntGauge,
    seen: IntGaugeVec,
    namespace: Box<str>,
    server: Box<str>,
    /// Kinds that have series.
    kinds: Mutex<Vec<String>>,
}

impl LinkFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        Ok(Self {
            connected: family("toolgate_policy_stream_connected", "1 while the policy server is connected.", &SERVER)?,
            silent: family(
                "toolgate_policy_staleness_seconds",
                "Time since the policy server was connected; 0 while it is.",
                &SERVER,
            )?,
            epoch: family("toolgate_policy_epoch", "Epoch of the policy in force.", &SERVER)?,
            seen: family(
                "toolgate_policy_version",
                "How new the policy in force is: the resourceVersion seen of each kind.",
                &["server_namespace", "server", "kind"],
            )?,
        })
    }

    pub(super) fn of(&self, namespace: &str, server: &str) -> LinkMetrics {
        let gauge = |family: &IntGaugeVec| family.with_label_values(&[namespace, server]);
        LinkMetrics {
            connected: gauge(&self.connected),
            silent: gauge(&self.silent),
            epoch: gauge(&self.epoch),
            seen: self.seen.clone(),
            namespace: namespace.into(),
            server: server.into(),
            kinds: Mutex::default(),
        }
    }
}

impl LinkMetrics {
    /// It is there, or not.
    pub fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// For how long it is not there.
    pub fn silent_for(&self, silence: Duration) {
        self.silent.set(i64::try_from(silence.as_secs()).unwrap_or(i64::MAX));
    }

    /// How new the policy in force is. Kinds come from a signed envelope, which bounds them.
    pub fn version(&self, epoch: u64, seen: &BTreeMap<String, u64>) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.epoch.set(number(epoch));
        let labels = |kind| [&*self.namespace, &*self.server, kind];
        let before = std::mem::replace(&mut *self.kinds.lock(), seen.keys().cloned().collect());
        for gone in before.iter().filter(|kind| !seen.contains_key(*kind)) {
            let _ = self.seen.remove_label_values(&labels(gone)); // It is there: it was set.
        }
        for (kind, version) in seen {
            self.seen.with_label_values(&labels(kind)).set(number(*version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn the_connection_shows_and_kinds_that_are_gone_do_not() {
        let metrics = Metrics::new();
        let (one, other) = (metrics.link("agents", "github"), metrics.link("agents", "gitlab"));
        let seen = |kinds: &[(&str, u64)]| kinds.iter().map(|(kind, seen)| ((*kind).to_owned(), *seen)).collect();

        one.connected(true);
        one.version(2, &seen(&[("McpRole", 7), ("McpTool", 3)]));
        other.version(1, &seen(&[("McpTool", 1)]));
        other.silent_for(Duration::from_millis(2900));
        one.version(2, &seen(&[("McpRole", 8)]));

        let page = metrics.render();
        let github = r#"server="github",server_namespace="agents""#;
        let gitlab = r#"server="gitlab",server_namespace="agents""#;
        for line in [
            format!("toolgate_policy_stream_connected{{{github}}} 1"),
            format!("toolgate_policy_stream_connected{{{gitlab}}} 0"),
            format!("toolgate_policy_staleness_seconds{{{gitlab}}} 2"),
            format!("toolgate_policy_epoch{{{github}}} 2"),
            format!("toolgate_policy_version{{kind=\"McpRole\",{github}}} 8"),
            format!("toolgate_policy_version{{kind=\"McpTool\",{gitlab}}} 1"),
        ] {
            assert!(page.contains(&line), "{line}:\n{page}");
        }
        assert!(!page.contains(&format!("kind=\"McpTool\",{github}")), "{page}");
    }
}
