//! McpGateway: what is said of the trust that servers share. Writes its status alone.

use std::sync::Arc;

use jiff::Timestamp;

use crate::api::Object as _;
use crate::kubernetes::Key;
use crate::kubernetes::apply::Error;
use crate::kubernetes::queue::Next;
use crate::status::{self, Enforcing, GatewayFacts};

use super::context::{Context, View, verdict};
use super::report::Reporter;

/// Name of the controller in metrics, Events and field managers.
pub(super) const NAME: &str = "mcpgateway";

/// Reports on McpGateways.
pub(super) struct Controller {
    context: Arc<Context>,
    reporter: Reporter,
}

impl Controller {
    pub(super) fn new(context: Arc<Context>, reporter: Reporter) -> Self {
        Self { context, reporter }
    }

    /// Says what one gateway is.
    pub(super) async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let context = &self.context;
        let gateway = match self.reporter.object(key, &context.caches.gateways) {
            Ok(gateway) => gateway,
            Err(next) => return Ok(next),
        };
        let judgement = context.index.now();
        let Some(verdict) = verdict(&judgement, gateway.as_ref()) else { return Ok(Next::Wait) };
        let views = context.views(&judgement, &key.0);
        let servers: Vec<Enforcing<'_>> = views.iter().map(View::enforcing).collect();
        let of_namespace = context.caches.servers.in_namespace(&key.0);
        let referring = of_namespace.iter().filter(|server| server.spec.gateway_ref.name == gateway.name()).count();
        let facts = GatewayFacts { object: &gateway, verdict, servers: &servers, referring };
        let status = status::gateway(&facts, Timestamp::now());
        self.reporter.report(gateway.as_ref(), &status).await?;
        Ok(views.iter().filter_map(View::due_in).min().map_or(Next::Wait, Next::After))
    }
}
