//! Streamable HTTP upstreams: one pooled HTTP/1.1 client a server, http or https.
//!
//! Owns connections, timeouts and the bounds of answers. Connects only where [`Reach`] permits, follows no redirect,
//! keeps no cookie, and repeats a message only if nothing of it was sent: `hyper-util` does so for a reused connection
//! that hyper found closed before it wrote to it, and nobody else does.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, Error as ClientError, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Content, EventStream, Outbound, Reply, UpstreamError, Verb};
use crate::gateway::limits;
use crate::gateway::memory::{self, Gathered, Hold, Owner};
use crate::gateway::protocol::envelope::Kind;
use crate::gateway::protocol::headers::{ACCEL, SESSION};
use crate::gateway::protocol::sse::{Decoder, TooLarge};
use crate::gateway::reach::{Connector, Reach};

/// Where an HTTP server is.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its MCP endpoint, http or https.
    pub url: String,
    /// The only authorities that may vouch for it, PEM; `None`: the public ones.
    pub ca: Option<String>,
    /// Where it may be.
    pub reach: Reach,
}

impl Config {
    /// Whether a connection to the server can be opened.
    pub(super) async fn listens(&self) -> bool {
        let uri: Uri = self.url.parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        TcpStream::connect((host, port)).await.is_ok()
    }
}

/// Whether a URL names the machine that the gateway runs on.
pub fn is_loopback(url: &str) -> bool {
    let uri: Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A server reached over the network.
pub struct HttpUpstream {
    /// Replaced when other authorities are to be trusted.
    client: ArcSwap<Connections>,
    uri: Uri,
    host: HeaderValue,
    reach: Reach,
    bounds: Bounds,
}

/// Bounds of one exchange; tests inject small ones.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// TCP connect.
    connect: Duration,
    /// First byte of an answer, and each next message.
    idle: Duration,
    /// One message, in bytes.
    message: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connect: limits::UPSTREAM_START,
            idle: limits::UPSTREAM_IDLE,
            message: memory::budget().largest_message(),
        }
    }
}

/// Idle connections kept for one server.
const POOL: usize = 256;
/// Idle connections are dropped before Node's and uvicorn's 5 s end them: a message sent into that race is lost, and
/// it may not be sent again.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// A dead peer of a quiet stream is found by TCP.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Largest body of an error that is no JSON, in bytes.
const OPAQUE_BYTES: usize = 64 << 10;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const EITHER: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// Headers of an answer that may travel on. Never cookies, and never a challenge: it would send the client to a
/// foreign authorization server.
const PASSED: [HeaderName; 4] = [RETRY_AFTER, CACHE_CONTROL, ALLOW, ACCEL];

/// TLS costs memory, so a plain server has none.
enum Connections {
    Plain(Client<Connector, Full<Bytes>>),
    Tls(Client<HttpsConnector<Connector>, Full<Bytes>>),
}

impl Connections {
    fn request(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match self {
            Self::Plain(client) => client.request(request),
            Self::Tls(client) => client.request(request),
        }
    }
}

impl HttpUpstream {
    /// Prepares the upstream; connections are opened when they are needed.
    ///
    /// Fails with [`UpstreamError::Unreachable`] if the URL is no http or https URL.
    pub fn new(config: &Config) -> Result<Self, UpstreamError> {
        Self::bounded(config, Bounds::default())
    }

    fn bounded(config: &Config, bounds: Bounds) -> Result<Self, UpstreamError> {
        let bad = |why: &str| UpstreamError::Unreachable(format!("{:?} is not a usable URL: {why}", config.url));
        let uri: Uri = config.url.parse().map_err(|_| bad("it cannot be parsed"))?;
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user name or password"));
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("its host is invalid"))?;
        let client = connections(&uri, config.ca.as_deref(), config.reach, bounds).map_err(|why| bad(&why))?;
        Ok(Self { client: ArcSwap::from_pointee(client), uri, host, reach: config.reach, bounds })
    }

    /// Trusts these authorities (PEM) alone, for every call from now on: none goes over a connection that others
    /// vouched for. Calls that run finish. On an error everything stays as it was.
    pub(super) fn trust(&self, ca: &str) -> Result<(), UpstreamError> {
        let client = connections(&self.uri, Some(ca), self.reach, self.bounds).map_err(UpstreamError::Unreachable)?;
        self.client.store(Arc::new(client));
        Ok(())
    }

    pub(super) async fn send(&self, outbound: Outbound) -> Result<Reply, UpstreamError> {
        let Outbound { verb, caller, session, mut headers, .. } = outbound;
        let question = Question::of(&verb);
        let (method, body) = match verb {
            Verb::Post(message) => {
                headers.insert(CONTENT_TYPE, JSON);
                headers.insert(ACCEPT, EITHER);
                (Method::POST, Full::new(message.bytes().clone()))
            }
            Verb::Get => {
                headers.insert(ACCEPT, EVENTS);
                (Method::GET, Full::default())
            }
            Verb::Delete => (Method::DELETE, Full::default()),
        };
        if let Some(session) = session {
            // A session id that is no header value came from nowhere: the server cannot know it.
            headers.insert(SESSION, HeaderValue::from_str(&session).map_err(|_| UpstreamError::NoSession)?);
        }
        headers.insert(HOST, self.host.clone());
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let answer = self.client.load().request(request);
        let response = timeout(self.bounds.idle, answer)
            .await
            .map_err(|_| UpstreamError::Timeout)?
            .map_err(|error| classify(&error))?;
        self.reply(response, question, Owner::Caller(caller)).await
    }

    async fn reply(
        &self,
        response: Response<Incoming>,
        question: Question,
        owner: Owner,
    ) -> Result<Reply, UpstreamError> {
        let (head, body) = response.into_parts();
        if head.status.is_redirection() {
            let to = head
                .headers
                .get(LOCATION)
                .map_or_else(|| "nowhere".into(), |to| String::from_utf8_lossy(to.as_bytes()));
            return Err(UpstreamError::Garbage(format!(
                "the server redirected to {to}; redirects are not followed: give the final URL"
            )));
        }
        let content = match (head.status.is_success(), Media::of(&head.headers)) {
            (true, media) if question == Question::Notice => {
                // Some servers say "ok". Read it, so that the connection lives on; a stream or more is not worth it.
                if !matches!(media, Media::Events) {
                    let _ = self.collect(body, OPAQUE_BYTES, owner).await;
                }
                Content::Empty
            }
            (true, Media::Events) => {
                // Quiet is normal on a stream that waits for what happens; a dead peer is TCP's to find.
                let idle = (question != Question::Stream).then_some(self.bounds.idle);
                Content::Events(events(body, idle, self.bounds.message, memory::budget().hold(owner)))
            }
            (_, Media::Json) => match self.collect(body, self.bounds.message, owner).await? {
                text if !text.is_empty() => Content::Json(text),
                _ if head.status.is_success() => return Err(UpstreamError::Garbage("an empty answer".to_owned())),
                _ => Content::Empty,
            },
            (true, _) => {
                let sent = head.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
                return Err(UpstreamError::Garbage(format!(
                    "content type {:?} where application/json or text/event-stream is due",
                    sent.unwrap_or_default()
                )));
            }
            (false, _) => match self.collect(body, OPAQUE_BYTES, owner).await {
                Ok(text) if text.is_empty() => Content::Empty,
                Ok(text) => Content::Opaque(text),
                Err(UpstreamError::TooLarge(_)) => Content::Empty, // The status says enough.
                Err(error) => return Err(error),
            },
        };
        let session = match head.headers.get(SESSION).map(HeaderValue::to_str) {
            None => None,
            Some(Ok(id)) => Some(Arc::from(id)),
            Some(Err(_)) => return Err(UpstreamError::Garbage("the session id is not visible ASCII".to_owned())),
        };
        Ok(Reply { status: head.status, session, headers: passed(&head.headers), content })
    }

    /// The whole body, held for its owner.
    async fn collect(&self, mut body: Incoming, limit: usize, owner: Owner) -> Result<Bytes, UpstreamError> {
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > limit {
            return Err(UpstreamError::TooLarge(limit));
        }
        let mut gathered = Gathered::new(memory::budget().hold(owner), 1);
        gathered.expect(announced).await?;
        while let Some(bytes) = frame(&mut body, Some(self.bounds.idle)).await? {
            if gathered.len() + bytes.len() > limit {
                return Err(UpstreamError::TooLarge(limit));
            }
            gathered.push(bytes, limit).await?;
        }
        Ok(gathered.finish())
    }
}

/// What opens and keeps connections to a server.
fn connections(uri: &Uri, ca: Option<&str>, reach: Reach, bounds: Bounds) -> Result<Connections, String> {
    let tcp = Connector::new(reach, |tcp| {
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(bounds.connect));
        tcp.set_keepalive(Some(KEEPALIVE));
    });
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE).pool_max_idle_per_host(POOL);
    match uri.scheme_str() {
        Some("http") => Ok(Connections::Plain(builder.build(tcp))),
        Some("https") => {
            let tls = HttpsConnectorBuilder::new().with_tls_config(trusting(ca)?).https_only().enable_http1();
            Ok(Connections::Tls(builder.build(tls.wrap_connector(tcp))))
        }
        _ => Err("it must begin with http:// or https://".to_owned()),
    }
}

/// TLS that trusts these authorities, PEM, or the public ones.
fn trusting(ca: Option<&str>) -> Result<rustls::ClientConfig, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    let mut roots = rustls::RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| format!("its CA bundle cannot be read: {error}"))?;
                roots.add(certificate).map_err(|error| format!("its CA bundle cannot be used: {error}"))?;
            }
            if roots.is_empty() {
                return Err("its CA bundle holds no certificate".to_owned()); // Nobody could vouch for it.
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config
        .map_err(|error| format!("TLS is not available: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Question {
    /// The answer to a request.
    Request,
    /// Nothing: a notification, a response, or the end of a session.
    Notice,
    /// Whatever happens: GET, `subscriptions/listen`.
    Stream,
}

impl Question {
    fn of(verb: &Verb) -> Self {
        match verb {
            Verb::Post(message) if message.kind != Kind::Request => Self::Notice,
            Verb::Post(message) if message.method == "subscriptions/listen" => Self::Stream,
            Verb::Post(_) => Self::Request,
            Verb::Get => Self::Stream,
            Verb::Delete => Self::Notice,
        }
    }
}

/// What the content type promises.
enum Media {
    Json,
    Events,
    Other,
}

impl Media {
    fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Self::Json
        } else if essence.eq_ignore_ascii_case(b"text/event-stream") {
            Self::Events
        } else {
            Self::Other
        }
    }
}

fn passed(from: &HeaderMap) -> HeaderMap {
    let mut to = HeaderMap::new();
    for name in PASSED {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
    to
}

/// The next bytes of a body; trailers are skipped.
async fn frame(body: &mut Incoming, idle: Option<Duration>) -> Result<Option<Bytes>, UpstreamError> {
    loop {
        let next = match idle {
            Some(idle) => timeout(idle, body.frame()).await.map_err(|_| UpstreamError::Timeout)?,
            None => body.frame().await,
        };
        match next {
            None => return Ok(None),
            // A body that breaks off is one that was not finished, whatever hyper calls it.
            Some(Err(_)) => return Err(UpstreamError::Gone),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Decodes events. Dropping the stream drops the body, and hyper closes a connection whose body was not read to its
/// end: in the modern era that cancels the request.
///
/// `hold` is for what waits in the decoder and for the event that was handed out last: whoever asks for the next one has
/// done with it.
fn events(body: Incoming, idle: Option<Duration>, limit: usize, hold: Hold) -> EventStream {
    let state = Some((body, Decoder::new(limit), hold));
    Box::pin(futures::stream::unfold(state, move |state| async move {
        let (mut body, mut decoder, mut hold) = state?;
        hold.shrink(decoder.buffered());
        loop {
            match decoder.next() {
                Some(Ok(event)) => return Some((Ok(event), Some((body, decoder, hold)))),
                Some(Err(TooLarge)) => return Some((Err(UpstreamError::TooLarge(limit)), None)),
                None => {}
            }
            match frame(&mut body, idle).await {
                Ok(Some(bytes)) => {
                    // Doubled, as the buffer grows, so that a long event does not ask for every packet.
                    let needed = decoder.buffered() + bytes.len();
                    if let Err(error) = hold.grow(needed.next_power_of_two().min(needed.max(limit))).await {
                        return Some((Err(error.into()), None));
                    }
                    decoder.push(&bytes);
                }
                Ok(None) => {
                    return match decoder.finish() {
                        Ok(()) => None,
                        Err(_) => Some((Err(UpstreamError::Gone), None)),
                    };
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    }))
}

/// What a failed request means. A failed connect proves that nothing reached the server, and so does a request that
/// hyper gave back: it is `canceled` only where nothing of it was written.
fn classify(error: &ClientError) -> UpstreamError {
    if error.is_connect() {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        return UpstreamError::Unreachable(cause.to_string());
    }
    match error.source().and_then(|source| source.downcast_ref::<hyper::Error>()) {
        Some(source) if source.is_parse() => UpstreamError::Garbage(format!("not HTTP/1.1: {source}")),
        Some(source) if source.is_canceled() => UpstreamError::Unsent,
        _ => UpstreamError::Gone,
    }
}

#[cfg(test)]
mod tests;
