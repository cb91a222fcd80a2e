//! McpServer: everything that exists for a server, and what is said of it.
//!
//! ```text
//! gather (caches) -> plan (pure) -> apply (writes what differs) -> report (status, Events)
//! ```

mod apply;
mod catalogue;
mod gather;
mod names;
pub mod network;
pub mod plan;
mod pods;
mod registration;
mod revision;
mod template;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::api::{McpServer, McpServerStatus};
use crate::kubernetes::apply::{Error, Writer};
use crate::kubernetes::queue::Next;
use crate::kubernetes::{Key, labels};
use crate::policy::Severity;
use crate::status::{self, Declared, ServerFacts, Verdict};

use self::apply::{Apply, Boots, Outcome};
use self::gather::Gathered;
use self::plan::Plan;
use super::context::{Context, found, reference};
use super::report::{BEHIND, Reporter};

pub(super) use self::names::{CA_MAP, server_of_child};

/// Name of the controller in metrics, Events and field managers.
pub(super) const NAME: &str = "mcpserver";

/// Reconciles McpServers.
pub(super) struct Controller {
    context: Arc<Context>,
    reporter: Reporter,
    boots: Boots,
}

impl Controller {
    pub(super) fn new(context: Arc<Context>, reporter: Reporter) -> Self {
        Self { context, reporter, boots: Boots::default() }
    }

    /// Brings one server to its desired state, and says what it is.
    pub(super) async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let context = &self.context;
        let writer = &self.reporter.writer;
        let Some(server) = context.caches.servers.get(key) else {
            apply::clean(writer, &context.caches, key, &context.tools(key)).await?;
            return Ok(Next::Wait);
        };
        if server.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait); // Its end is a change.
        }
        if self.is_behind(key, writer) {
            return Ok(Next::After(BEHIND));
        }
        let gathered = gather::gather(context, key, &server);
        let plan = plan::plan(&server, &gathered.facts(), &context.settings);
        let is_put_off = context.turns.is_waiting(key, Instant::now());
        let apply = Apply { writer, caches: &context.caches, boots: &self.boots, server: &server, is_put_off };
        let outcome = apply.run(&plan, &gathered.registration).await?;
        let mut status = Self::status(key, &server, &gathered, &plan, &outcome);
        if is_put_off {
            status.enforcement = server.status.as_ref().and_then(|before| before.enforcement.clone());
        }
        self.reporter.report(server.as_ref(), &status).await?;
        if outcome.is_refused {
            return Ok(Next::Failed);
        }
        let later = [outcome.after, gathered.view.due_in(), self.sunset(key)].into_iter().flatten().min();
        Ok(later.map_or(Next::Wait, Next::After))
    }

    /// Whether some cache does not have our last write: what would be decided from it would be decided from the past.
    fn is_behind(&self, key: &Key, writer: &Writer) -> bool {
        let caches = &self.context.caches;
        let at = |name: String| (key.0.clone(), name);
        let companion = at(names::companion(&key.1));
        writer.is_behind(key, &caches.servers)
            || writer.is_behind(key, &caches.deployments)
            || writer.is_behind(key, &caches.services)
            || writer.is_behind(&companion, &caches.service_accounts)
            || writer.is_behind(&companion, &caches.network_policies)
            || writer.is_behind(&companion, &caches.disruption_budgets)
            || [names::boot_map(&key.1), names::catalogue_map(&key.1), CA_MAP.to_owned()]
                .into_iter()
                .any(|name| writer.is_behind(&at(name), &caches.config_maps))
    }

    fn status(key: &Key, server: &McpServer, gathered: &Gathered, plan: &Plan, outcome: &Outcome) -> McpServerStatus {
        let now = Timestamp::now();
        let mut findings = gathered.findings.clone();
        for finding in plan.findings.iter().chain(&outcome.findings) {
            // The judge of policy may have told the same fault, in more detail.
            if !findings.iter().any(|told| {
                told.reason == finding.reason
                    && told.pointer.starts_with(&finding.pointer)
                    && !finding.pointer.is_empty()
            }) {
                findings.push(finding.clone());
            }
        }
        let declared: Vec<Declared<'_>> = gathered
            .tools
            .iter()
            .filter(|tool| {
                let (_, findings) = found(&gathered.judgement, &reference(tool.as_ref()));
                !findings.iter().any(|finding| finding.severity == Severity::Error)
            })
            .map(|tool| status::declared(tool, now))
            .collect();
        let facts = ServerFacts {
            object: server,
            verdict: Verdict { judged: gathered.judged, findings: &findings },
            workload: gathered.workload.as_ref(),
            is_update_waiting: plan.is_update_waiting,
            enforcing: gathered.view.enforcing(),
            declared: &declared,
            selector: &format!("{}={}", labels::SERVER, key.1),
        };
        status::server(&facts, now)
    }

    /// Until the next of its tools ends by itself.
    fn sunset(&self, key: &Key) -> Option<Duration> {
        let now = Timestamp::now();
        self.context.tools(key).iter().filter_map(|tool| super::mcptool::sunset(tool, now)).min()
    }
}
