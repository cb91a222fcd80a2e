//! Spans to a collector: OTLP over HTTP with our own client, in bounded batches from a thread of the SDK.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Spans that wait to be sent; further ones are dropped.
const QUEUE: usize = 2048;
/// Spans in one request.
const BATCH: usize = 512;
/// Time that spans wait for others.
const DELAY: Duration = Duration::from_secs(1);
/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Shortest time between two error messages in the process log.
const COMPLAINT: Duration = Duration::from_secs(10);
/// Largest answer of a collector, in bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Not an http or https URL.
    #[error("failed to set up traces: {0:?} is not an http:// or https:// URL of an OTLP collector")]
    Endpoint(String),
    /// There is no tokio runtime.
    #[error("failed to set up traces: no runtime")]
    Runtime(#[from] tokio::runtime::TryCurrentError),
    /// TLS cannot be set up.
    #[error("failed to set up traces")]
    Tls(#[from] rustls::Error),
    /// The exporter does not accept its settings.
    #[error("failed to set up traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// A provider that exports every span it is given: sampling has happened before.
pub(super) fn provider(endpoint: &str) -> Result<SdkTracerProvider, ExportError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Hyper::new()?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint)?)
        .with_timeout(TIMEOUT)
        .build()?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let resource = Resource::builder()
        .with_service_name("toolgate-gateway")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(config).build())
        .build())
}

/// The traces signal below a base URL; a URL that ends in `/v1/traces` is taken as it is.
fn traces_url(endpoint: &str) -> Result<String, ExportError> {
    let bad = || ExportError::Endpoint(endpoint.to_owned());
    let uri: Uri = endpoint.parse().map_err(|_| bad())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
        return Err(bad());
    }
    let base = endpoint.trim_end_matches('/');
    Ok(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// Sends from any thread by way of the runtime that was there at the start.
struct Hyper {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    complained: Mutex<Option<Instant>>,
}

impl Hyper {
    fn new() -> Result<Self, ExportError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, runtime: Handle::try_current()?, complained: Mutex::default() })
    }

    /// The SDK drops spans in silence; an operator should know.
    fn complain(&self, cause: &dyn fmt::Display) {
        let mut complained = self.complained.lock();
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            *complained = Some(Instant::now());
            tracing::warn!(%cause, "spans were not exported");
        }
    }
}

impl fmt::Debug for Hyper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Hyper").finish_non_exhaustive()
    }
}

impl HttpClient for Hyper {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let sent = self.client.request(request.map(Full::new));
            let exchange = async move {
                let (head, body) = sent.await?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
                Ok(Response::from_parts(head, body))
            };
            // The SDK polls from a thread without a runtime, where sockets and timers do not work.
            let answered = self.runtime.spawn(async move { tokio::time::timeout(TIMEOUT, exchange).await? }).await;
            let answer: Result<Response<Bytes>, HttpError> = answered.map_err(HttpError::from).flatten();
            match &answer {
                Ok(response) if response.status().is_success() => {}
                Ok(response) => self.complain(&response.status()),
                Err(error) => self.complain(error),
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::traces_url;

    #[test]
    fn the_signal_is_appended_once() {
        for (given, expected) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://otel.example.com/base/", "https://otel.example.com/base/v1/traces"),
            ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
        ] {
            assert_eq!(traces_url(given).unwrap(), expected);
        }
        for bad in ["localhost:4318", "grpc://x", "", "http://x/?token=1"] {
            assert!(traces_url(bad).unwrap_err().to_string().contains("OTLP collector"), "{bad}");
        }
    }
}
