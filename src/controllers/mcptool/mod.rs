//! McpTool: what is said of a tool. Writes its status alone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::status::conditions_of;
use crate::api::{McpTool, Object as _};
use crate::kubernetes::Key;
use crate::kubernetes::apply::Error;
use crate::kubernetes::queue::Next;
use crate::status::{self, ServerView, ToolFacts};

use super::context::{Context, verdict};
use super::report::Reporter;

/// Name of the controller in metrics, Events and field managers.
pub(super) const NAME: &str = "mcptool";

/// Reports on McpTools.
pub(super) struct Controller {
    context: Arc<Context>,
    reporter: Reporter,
}

impl Controller {
    pub(super) fn new(context: Arc<Context>, reporter: Reporter) -> Self {
        Self { context, reporter }
    }

    /// Says what one tool is.
    pub(super) async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let context = &self.context;
        let tool = match self.reporter.object(key, &context.caches.tools) {
            Ok(tool) => tool,
            Err(next) => return Ok(next),
        };
        let judgement = context.index.now();
        let Some(verdict) = verdict(&judgement, tool.as_ref()) else { return Ok(Next::Wait) };
        let server_key = (key.0.clone(), tool.spec.server_ref.name.clone());
        let server = context.caches.servers.get(&server_key);
        let view = context.view(&judgement, &server_key);
        let now = Timestamp::now();
        let facts = ToolFacts {
            object: &tool,
            verdict,
            server: server
                .as_deref()
                .map(|server| ServerView { enforcing: view.enforcing(), conditions: conditions_of(server) }),
        };
        let status = status::tool(&facts, now);
        self.reporter.report(tool.as_ref(), &status).await?;
        let later = [view.due_in(), sunset(&tool, now)].into_iter().flatten().min();
        Ok(later.map_or(Next::Wait, Next::After))
    }
}

/// How long until a tool ends by itself, if it will.
pub(super) fn sunset(tool: &McpTool, now: Timestamp) -> Option<Duration> {
    let at = tool.spec.deprecation.as_ref()?.sunset_time.as_ref()?.0;
    let left = at.duration_since(now);
    // A moment later: at the very instant it might still be there.
    (left.is_positive()).then(|| left.unsigned_abs() + Duration::from_millis(10))
}

/// The server that a tool names.
pub(super) fn server(tool: &McpTool) -> Key {
    (tool.namespace().to_owned(), tool.spec.server_ref.name.clone())
}
