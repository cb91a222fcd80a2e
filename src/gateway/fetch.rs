//! Small documents from issuers (JWK sets, metadata): bounded, no redirects, https only unless allowed.
//!
//! Whoever writes a manifest chooses these URLs, so they must not become a way into the network that the gateway
//! stands in: only public addresses are connected to, see [`super::reach`]. There is no proxy support and no cookie,
//! and only GET.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::causes::chain;
use super::reach::{Connector, Reach};

/// Largest document, in bytes.
pub const DOCUMENT_BYTES: usize = 1 << 20;
/// Time for a whole fetch: resolving, connecting, TLS and the body.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of an answer, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// Fetches small JSON documents.
#[derive(Clone, Debug)]
pub struct Fetcher {
    allow_local: bool,
}

/// Why a document was not fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to fetch {url}: {cause}")]
pub struct FetchError {
    /// What was asked for.
    pub url: String,
    /// Why.
    pub cause: String,
}

/// Trust anchors are the bundled Mozilla set: the same in every image, with no file to tamper with.
static TLS: LazyLock<Option<rustls::ClientConfig>> = LazyLock::new(|| {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Some(config)
});

impl Fetcher {
    /// `allow_local` permits http and loopback addresses: for a laptop, never in a cluster.
    pub fn new(allow_local: bool) -> Self {
        Self { allow_local }
    }

    /// GETs a document of at most 1 MiB within 5 s.
    pub async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let outcome = tokio::time::timeout(FETCH_TIMEOUT, self.fetch(url)).await;
        outcome
            .unwrap_or_else(|_| Err(format!("no complete answer within {} s", FETCH_TIMEOUT.as_secs())))
            .map_err(|cause| FetchError { url: url.to_owned(), cause })
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, String> {
        let uri = self.parse(url)?;
        let connector = Connector::new(Reach { loopback: self.allow_local, ..Reach::PUBLIC }, |_| {});
        let builder = HttpsConnectorBuilder::new().with_tls_config(TLS.clone().ok_or("TLS is not available")?);
        let builder = if self.allow_local { builder.https_or_http() } else { builder.https_only() };
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http1_max_buf_size(HEAD_BYTES)
            .build::<_, Empty<Bytes>>(builder.enable_http1().wrap_connector(connector));
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("toolgate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        body(client.request(request).await.map_err(|error| chain(&error))?).await
    }

    fn parse(&self, url: &str) -> Result<Uri, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => {}
            Some(scheme) if *scheme == Scheme::HTTP && self.allow_local => {}
            _ => return Err("the URL must begin with https://".to_owned()),
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("the URL must not hold a user name or password".to_owned());
        }
        if uri.host().unwrap_or_default().is_empty() {
            return Err("the URL names no host".to_owned());
        }
        Ok(uri)
    }
}

async fn body(response: http::Response<hyper::body::Incoming>) -> Result<Bytes, String> {
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(format!("answered {status}; redirects are not followed, name the final URL"));
        }
        status => return Err(format!("answered {status}")),
    }
    let limited = Limited::new(response.into_body(), DOCUMENT_BYTES);
    let collected = limited.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            format!("the document is larger than {DOCUMENT_BYTES} bytes")
        } else {
            format!("the answer broke off: {error}")
        }
    })?;
    Ok(collected.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use tokio::net::TcpListener;

    /// Answers every connection with `answer`, and sends what was asked.
    async fn serve(answer: Vec<u8>) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let _ = sender.send(String::from_utf8_lossy(&head[..read]).into_owned());
                let _ = stream.write_all(&answer).await;
            }
        });
        (address, receiver)
    }

    fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    async fn cause(fetcher: &Fetcher, url: &str) -> String {
        fetcher.get(url).await.unwrap_err().cause
    }

    #[tokio::test]
    async fn a_document_arrives_and_the_name_stays_in_the_host_header() {
        let (address, mut asked) = serve(answer("200 OK", "", b"{\"keys\":[]}")).await;

        let url = format!("http://localhost:{}/jwks?tenant=a", address.port());
        let document = Fetcher::new(true).get(&url).await.unwrap();

        assert_eq!(document, "{\"keys\":[]}");
        let head = asked.recv().await.unwrap().to_lowercase();
        assert!(head.starts_with("get /jwks?tenant=a http/1.1"), "{head}");
        assert!(head.contains(&format!("host: localhost:{}", address.port())), "{head}");
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let (address, mut asked) = serve(answer("302 Found", "location: /elsewhere\r\n", b"")).await;

        let cause = cause(&Fetcher::new(true), &format!("http://{address}/jwks")).await;

        assert!(cause.contains("redirects are not followed"), "{cause}");
        asked.recv().await.unwrap();
        assert!(asked.try_recv().is_err(), "asked a second time");
    }

    #[tokio::test]
    async fn only_200_is_a_document() {
        let (address, _asked) = serve(answer("404 Not Found", "", b"{\"keys\":[]}")).await;
        let cause = cause(&Fetcher::new(true), &format!("http://{address}/")).await;
        assert!(cause.contains("404"), "{cause}");
    }

    #[tokio::test]
    async fn a_large_document_is_refused() {
        let (address, _asked) = serve(answer("200 OK", "", &vec![b' '; DOCUMENT_BYTES + 1])).await;
        let cause = cause(&Fetcher::new(true), &format!("http://{address}/")).await;
        assert!(cause.contains("larger than"), "{cause}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cause = cause(&Fetcher::new(true), &format!("http://{}/", listener.local_addr().unwrap())).await;
        assert!(cause.contains("within 5 s"), "{cause}");
    }

    #[tokio::test]
    async fn loopback_and_http_need_leave() {
        let strict = Fetcher::new(false);
        for url in ["http://127.0.0.1:1/", "http://example.com/", "ftp://example.com/", "/jwks", ""] {
            let cause = cause(&strict, url).await;
            assert!(cause.contains("https") || cause.contains("not a URL"), "{url}: {cause}");
        }
        for url in ["https://127.0.0.1:1/", "https://[::1]:1/", "https://localhost:1/", "https://[::ffff:127.0.0.1]:1/"]
        {
            let cause = cause(&strict, url).await;
            assert!(cause.contains("loopback"), "{url}: {cause}");
        }
    }

    #[tokio::test]
    async fn metadata_addresses_are_refused_even_on_a_laptop() {
        for host in ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"] {
            let cause = cause(&Fetcher::new(true), &format!("http://{host}/latest/meta-data")).await;
            assert!(cause.contains("never connected to"), "{host}: {cause}");
        }
    }

    #[tokio::test]
    async fn https_speaks_tls_with_the_name_of_the_url() {
        let (address, mut asked) = serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()).await;

        let cause = cause(&Fetcher::new(true), &format!("https://localhost:{}/jwks", address.port())).await;

        let hello = asked.recv().await.unwrap();
        assert!(hello.starts_with('\u{16}') && hello.contains("localhost") && !hello.contains("GET"), "{hello:?}");
        assert!(!cause.contains("200"), "an answer without TLS was taken: {cause}");
    }

    #[tokio::test]
    async fn a_password_in_a_url_is_refused() {
        let cause = cause(&Fetcher::new(true), "https://user:secret@example.com/").await;
        assert!(cause.contains("password"), "{cause}");
    }
}
