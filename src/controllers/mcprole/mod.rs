//! McpRole: what is said of a role. Writes its status alone: what a role means is policy's, and reaches gateways
//! without passing here.

use std::sync::Arc;

use jiff::Timestamp;

use crate::kubernetes::Key;
use crate::kubernetes::apply::Error;
use crate::kubernetes::queue::Next;
use crate::status::{self, Enforcing, RoleFacts};

use super::context::{Context, View, reference, verdict};
use super::report::Reporter;

/// Name of the controller in metrics, Events and field managers.
pub(super) const NAME: &str = "mcprole";

/// Reports on McpRoles.
pub(super) struct Controller {
    context: Arc<Context>,
    reporter: Reporter,
}

impl Controller {
    pub(super) fn new(context: Arc<Context>, reporter: Reporter) -> Self {
        Self { context, reporter }
    }

    /// Says what one role is.
    pub(super) async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let context = &self.context;
        let role = match self.reporter.object(key, &context.caches.roles) {
            Ok(role) => role,
            Err(next) => return Ok(next),
        };
        let judgement = context.index.now();
        let Some(verdict) = verdict(&judgement, role.as_ref()) else { return Ok(Next::Wait) };
        let views = context.views(&judgement, &key.0);
        let servers: Vec<Enforcing<'_>> = views.iter().map(View::enforcing).collect();
        let facts = RoleFacts {
            object: &role,
            verdict,
            servers: &servers,
            reach: judgement.about(&reference(role.as_ref())).and_then(|about| about.reach),
        };
        let status = status::role(&facts, Timestamp::now());
        self.reporter.report(role.as_ref(), &status).await?;
        Ok(views.iter().filter_map(View::due_in).min().map_or(Next::Wait, Next::After))
    }
}
