//! Controllers: the only writers of cluster state, while this process leads.
//!
//! A folder a kind, each in the shape `gather -> plan -> apply -> report`, pure in the middle. They read caches, the
//! judgement and what gateways said; policy reaches gateways without them.

mod context;
mod grouped;
mod mcpgateway;
mod mcprole;
pub mod mcpserver;
mod mcptool;
mod queues;
mod report;
mod ripple;
pub mod settings;
#[cfg(test)]
mod tests;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::Key;
use crate::kubernetes::apply::{Error, Writer};
use crate::kubernetes::events::Events;
use crate::kubernetes::queue::{Next, Queue};

pub use self::context::Context;
use self::queues::Queues;
use self::report::Reporter;

/// Looks at once at objects of one kind.
const CONCURRENCY: usize = 8;
/// How often the depth of queues is told.
const TELL: Duration = Duration::from_secs(5);

/// How controllers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who writes Events: the name of the pod.
    pub identity: String,
    /// Everything is looked at this often, whatever happens.
    pub resync: Duration,
}

/// Runs all controllers until `stop`, then finishes what has begun. The caches must be kept by somebody; controllers
/// wait until they are full and policy has been judged once: what is not known yet would look like what is gone.
pub async fn run(client: &Client, context: Arc<Context>, options: &Options, stop: CancellationToken) {
    let mut judged = context.index.changes();
    tokio::select! {
        () = context.caches.ready() => {}
        () = stop.cancelled() => return,
    }
    tokio::select! {
        _ = judged.wait_for(|count| *count > 0) => {}
        () = stop.cancelled() => return,
    }
    let queues = Arc::new(Queues::default());
    let reporter = |name: &str| Reporter {
        writer: Writer::new(client.clone(), name, context.metrics.clone(), context.written.clone()),
        events: Events::new(client, &format!("toolgate/{name}"), &options.identity),
    };
    let servers = Arc::new(mcpserver::Controller::new(context.clone(), reporter(mcpserver::NAME)));
    let tools = Arc::new(mcptool::Controller::new(context.clone(), reporter(mcptool::NAME)));
    let roles = Arc::new(mcprole::Controller::new(context.clone(), reporter(mcprole::NAME)));
    let gateways = Arc::new(mcpgateway::Controller::new(context.clone(), reporter(mcpgateway::NAME)));
    let kind = |name| Kind { name, context: context.clone() };
    let kinds = [mcpserver::NAME, mcptool::NAME, mcprole::NAME, mcpgateway::NAME].map(kind);
    let [of_servers, of_tools, of_roles, of_gateways] = &kinds;
    let work = async {
        tokio::join!(
            of_servers.work(&queues.servers, &stop, move |key| {
                let own = servers.clone();
                async move { own.reconcile(&key).await }
            }),
            of_tools.work(&queues.tools, &stop, move |key| {
                let own = tools.clone();
                async move { own.reconcile(&key).await }
            }),
            of_roles.work(&queues.roles, &stop, move |key| {
                let own = roles.clone();
                async move { own.reconcile(&key).await }
            }),
            of_gateways.work(&queues.gateways, &stop, move |key| {
                let own = gateways.clone();
                async move { own.reconcile(&key).await }
            }),
        );
    };
    let depths = async {
        loop {
            sleep(TELL).await;
            for (name, queue) in [
                (mcpserver::NAME, &queues.servers),
                (mcptool::NAME, &queues.tools),
                (mcprole::NAME, &queues.roles),
                (mcpgateway::NAME, &queues.gateways),
            ] {
                context.metrics.queued(name, queue.depth());
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = queues.feed(&context, options.resync) => {}
        () = depths => {}
    }
}

/// The first bytes of a SHA-256, in hexadecimal: enough to tell apart what nobody forges.
fn hex(bytes: &[u8], length: usize) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().take(length).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

/// One kind's controller, as the queue sees it.
struct Kind {
    name: &'static str,
    context: Arc<Context>,
}

impl Kind {
    async fn work<F, R>(&self, queue: &Queue, stop: &CancellationToken, reconcile: F)
    where
        F: Fn(Key) -> R,
        R: Future<Output = Result<Next, Error>> + Send + 'static,
    {
        let look = |key: Key| {
            let (name, metrics, began) = (self.name, self.context.metrics.clone(), Instant::now());
            let reconciled = reconcile(key.clone());
            async move {
                let outcome = reconciled.await;
                metrics.reconciled(name, began.elapsed());
                outcome.unwrap_or_else(|error| {
                    metrics.failed(name, error.label());
                    let (namespace, object) = key;
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::warn!(
                        controller = name,
                        namespace,
                        name = object,
                        error,
                        "a reconcile failed, and is tried again"
                    );
                    Next::Failed
                })
            }
        };
        queue.run(CONCURRENCY, stop, look).await;
    }
}
