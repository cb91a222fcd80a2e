//! Sampled spans with W3C context, exported by OTLP over HTTP.
//!
//! A span exists only if the sampler says so (default: never) or the caller's span was sampled; callers are strangers,
//! so of the latter there are at most [`FOREIGN_PER_SECOND`]. Names and attributes follow OpenTelemetry's conventions
//! for MCP; our own begin with `toolgate.`. Without an endpoint nothing is parsed and nothing is made.
//!
//! | Attribute | Meaning |
//! |---|---|
//! | `mcp.method.name` | method of the message |
//! | `gen_ai.operation.name`, `gen_ai.tool.name` | `execute_tool` and the tool, for calls |
//! | `error.type` | JSON-RPC error code, else the outcome, unless it is `ok` |
//! | `rpc.response.status_code` | JSON-RPC error code |
//! | `toolgate.server`, `toolgate.server.namespace` | the server |
//! | `toolgate.request.id` | as in the audit log |
//! | `toolgate.decision`, `toolgate.snapshot` | what policy said, and which policy |
//! | `toolgate.outcome` | as in the audit log |

mod context;
mod export;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::gateway::audit::Outcome;

pub use context::{Incoming, Outgoing};
pub use export::ExportError;

/// Spans a second that exist only because their caller's span was sampled.
pub const FOREIGN_PER_SECOND: u32 = 20;
/// Longest attribute, in bytes.
const ATTRIBUTE_BYTES: usize = 256;
/// Time for the last spans to leave.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// Makes spans. Clones share one exporter.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    sampler: Sampler,
    foreign: Mutex<Bucket>,
}

/// One span, or nothing.
#[derive(Default)]
pub struct Span(Option<Box<opentelemetry_sdk::trace::Span>>);

impl Tracer {
    /// Makes no spans, at no cost.
    pub const fn off() -> Self {
        Self(None)
    }

    /// `endpoint` is the base URL of an OTLP/HTTP collector, as in `OTEL_EXPORTER_OTLP_ENDPOINT`; without one this is
    /// [`Tracer::off`]. `ratio` of the calls without a sampled caller get a span, 0 to 1. Needs a tokio runtime.
    pub fn new(endpoint: Option<&str>, ratio: f64) -> Result<Self, ExportError> {
        let Some(endpoint) = endpoint else { return Ok(Self::off()) };
        let provider = export::provider(endpoint)?;
        Ok(Self(Some(Arc::new(Inner {
            tracer: provider.tracer("toolgate"),
            provider,
            sampler: Sampler::new(ratio),
            foreign: Mutex::new(Bucket::full()),
        }))))
    }

    /// Whether any span can come of it: reading a caller's context is worth it only then.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Starts a span for one message from a client. `method` must be known, else pass
    /// [`super::metrics::OTHER`].
    pub fn start(&self, method: &str, incoming: Incoming<'_>) -> Span {
        let Some(inner) = &self.0 else { return Span(None) };
        let parent = incoming.parse();
        let wanted = match &parent {
            Some(parent) if parent.is_sampled() && inner.foreign.lock().take() => true,
            Some(parent) => inner.sampler.takes(parent.trace_id().to_bytes()),
            None => inner.sampler.takes_new(),
        };
        if !wanted {
            return Span(None);
        }
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let builder = SpanBuilder::from_name(cut(method))
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("mcp.method.name", cut(method))]);
        Span(Some(Box::new(inner.tracer.build_with_context(builder, &context))))
    }

    /// Sends what is left, within 3 s.
    pub async fn shutdown(&self) {
        let Some(inner) = &self.0 else { return };
        let provider = inner.provider.clone();
        let outcome = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SHUTDOWN)).await;
        if !matches!(outcome, Ok(Ok(()))) {
            tracing::warn!("the last spans were not exported");
        }
    }
}

impl Drop for Inner {
    /// Without [`Tracer::shutdown`] the last spans leave by a thread of their own: waiting for them here would block
    /// the very runtime that sends them.
    fn drop(&mut self) {
        let provider = self.provider.clone();
        // Without a thread the spans are lost, which harms no call.
        let _ = std::thread::Builder::new().spawn(move || provider.shutdown_with_timeout(SHUTDOWN));
    }
}

impl Span {
    /// Whether there is a span; attributes that cost something to make are worth it only then.
    pub const fn exists(&self) -> bool {
        self.0.is_some()
    }

    /// The server that the message is for.
    pub fn server(&mut self, namespace: &str, server: &str) {
        self.set("toolgate.server.namespace", namespace);
        self.set("toolgate.server", server);
    }

    /// The tool that is called, by its server-side name.
    pub fn tool(&mut self, method: &str, tool: &str) {
        if let Some(span) = &mut self.0 {
            span.update_name(format!("{} {}", cut(method), cut(tool)));
        }
        self.set("gen_ai.operation.name", "execute_tool");
        self.set("gen_ai.tool.name", tool);
    }

    /// What policy said.
    pub fn decision(&mut self, decision: &'static str, snapshot: &str) {
        self.set("toolgate.decision", decision);
        self.set("toolgate.snapshot", snapshot);
    }

    /// Id that the audit record carries too.
    pub fn request_id(&mut self, id: &str) {
        self.set("toolgate.request.id", id);
    }

    fn set(&mut self, key: &'static str, value: &str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, cut(value)));
        }
    }

    /// What to send to the server, as headers and in `_meta`, in place of what came in. `None`: what came in stays
    /// as it is.
    pub fn outgoing(&self) -> Option<Outgoing> {
        Some(Outgoing::new(self.0.as_ref()?.span_context()))
    }

    /// Ends the span. A span that is dropped ends as cancelled.
    pub fn end(mut self, outcome: Outcome, error_code: Option<i64>) {
        self.finish(outcome, error_code);
    }

    fn finish(&mut self, outcome: Outcome, error_code: Option<i64>) {
        let Some(mut span) = self.0.take() else { return };
        span.set_attribute(KeyValue::new("toolgate.outcome", outcome.as_str()));
        if let Some(code) = error_code {
            span.set_attribute(KeyValue::new("rpc.response.status_code", code.to_string()));
        }
        if outcome != Outcome::Ok {
            let kind = error_code.map_or_else(|| outcome.as_str().to_owned(), |code| code.to_string());
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(outcome.as_str()));
        }
        span.end();
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.finish(Outcome::Cancelled, None);
    }
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(ATTRIBUTE_BYTES)).unwrap_or_default().to_owned()
}

/// Takes a share of the traces, the same ones as every other sampler that goes by trace id.
struct Sampler {
    /// Ids whose lowest 63 bits are below this.
    bound: u64,
    seed: u64,
    count: AtomicU64,
}

impl Sampler {
    fn new(ratio: f64) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bound = (ratio * (1_u64 << 63) as f64) as u64; // At most 2^63.
        Self { bound, seed: RandomState::new().hash_one(0_u8), count: AtomicU64::new(0) }
    }

    fn takes(&self, trace_id: [u8; 16]) -> bool {
        #[allow(clippy::cast_possible_truncation)] // The lower half is meant.
        let low = u128::from_be_bytes(trace_id) as u64;
        low >> 1 < self.bound
    }

    /// For a trace that begins here and has no id yet.
    fn takes_new(&self) -> bool {
        if self.bound == 0 {
            return false;
        }
        // SplitMix64: a counter, mixed until it looks random.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut mixed = self.seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) >> 1 < self.bound
    }
}

/// Token bucket of [`FOREIGN_PER_SECOND`].
struct Bucket {
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn full() -> Self {
        Self { left: f64::from(FOREIGN_PER_SECOND), filled: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * f64::from(FOREIGN_PER_SECOND);
        self.left = (self.left + gained).min(f64::from(FOREIGN_PER_SECOND));
        self.filled = now;
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }
}
