//! A caller: one HTTPS request to a gateway, with a name that is not this machine's and a CA that the cluster publishes.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The newest revision: each call stands alone, so nothing is lost with a gateway that restarts.
const REVISION: &str = "2026-07-28";

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The JSON-RPC response in it: the body itself, or the last event's data.
    fn message(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        let data = text.lines().rev().find_map(|line| line.strip_prefix("data:"));
        serde_json::from_str(data.unwrap_or(&text)).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Whether the tool answered.
    pub(crate) fn is_result(&self) -> bool {
        self.status == 200 && self.message().get("result").is_some()
    }

    /// The text of the tool.
    ///
    /// # Panics
    /// When it did not answer.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        let message = self.message();
        let text = message["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("{} {message}", self.status)).to_owned()
    }

    /// The status and the error's code.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, i64) {
        let message = self.message();
        (self.status, message["error"]["code"].as_i64().unwrap_or_else(|| panic!("{} {message}", self.status)))
    }
}

/// What a tool that may not be used, or does not exist, answers.
pub(crate) const UNKNOWN_TOOL: (u16, i64) = (200, -32602);
/// What a gateway without a policy answers.
pub(crate) const NO_POLICY: (u16, i64) = (503, -31005);

/// A caller of one server.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) url: String,
    /// Where the gateway really listens.
    pub(crate) at: SocketAddr,
    pub(crate) authorities: RootCertStore,
    pub(crate) token: String,
}

impl Caller {
    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &str) -> Answer {
        self.try_call(tool).await.unwrap_or_else(|error| panic!("{} at {}: {error}", self.url, self.at))
    }

    /// Calls a tool; an error where no answer came.
    pub(crate) async fn try_call(&self, tool: &str) -> Result<Answer, String> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION, "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({"name": tool, "arguments": {}, "_meta": meta});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let request = Request::post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let tls = ClientConfig::builder().with_root_certificates(self.authorities.clone()).with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1();
        let connector = connector.wrap_connector(To(self.at));
        // A connection of its own, so that no answer depends on an earlier one.
        let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        answer(client.request(request)).await
    }

    /// As somebody else.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { token, ..self.clone() }
    }
}

/// `GET` over plain HTTP.
pub(crate) async fn get(url: &str) -> Result<Answer, String> {
    let client = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    answer(client.request(Request::get(url).body(Full::<Bytes>::default()).unwrap())).await
}

async fn answer(response: legacy::ResponseFuture) -> Result<Answer, String> {
    let whole = async {
        let response = response.await.map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    };
    timeout(PATIENCE, whole).await.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")))
}

/// Certificates of a PEM text.
pub(crate) fn authorities(pem: &str) -> RootCertStore {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.expect("a certificate")).expect("a CA");
    }
    assert!(!store.is_empty(), "no certificate in {pem:?}");
    store
}

/// Connects to one address, whatever the URL's host is.
#[derive(Clone, Copy)]
struct To(SocketAddr);

impl tower::Service<Uri> for To {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let at = self.0;
        Box::pin(async move { Ok(TokioIo::new(TcpStream::connect(at).await?)) })
    }
}
