//! What is measured of a gateway's connection to the policy server. Made only where there is one.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

const SERVER: [&str; 2] = ["server_namespace", "server"];

/// The connection of one server's gateway.
pub struct LinkMetrics {
    connected: IntGauge,
    silent: IntGauge,
    epoch: IntGauge,
    seen: IntGaugeVec,
    namespace: Box<str>,
    server: Box<str>,
}

impl LinkMetrics {
    /// Registers them. Once a process: a gateway of many servers has no such connection.
    pub(super) fn new(registry: &Registry, namespace: &str, server: &str) -> Result<Self, prometheus::Error> {
        let family = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let gauge =
            |name: &str, help: &str| family(name, help, &SERVER)?.get_metric_with_label_values(&[namespace, server]);
        Ok(Self {
            connected: gauge("toolgate_policy_stream_connected", "1 while the policy server is connected.")?,
            silent: gauge(
                "toolgate_policy_staleness_seconds",
                "Time since the policy server was connected; 0 while it is.",
            )?,
            epoch: gauge("toolgate_policy_epoch", "Epoch of the policy in force.")?,
            seen: family(
                "toolgate_policy_version",
                "How new the policy in force is: the resourceVersion seen of each kind.",
                &["server_namespace", "server", "kind"],
            )?,
            namespace: namespace.into(),
            server: server.into(),
        })
    }

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
        self.seen.reset();
        for (kind, version) in seen {
            self.seen.with_label_values(&[&*self.namespace, &*self.server, kind]).set(number(*version));
        }
    }
}
