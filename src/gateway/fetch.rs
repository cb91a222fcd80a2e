//! Small documents from issuers (JWK sets, metadata): bounded, no redirects, https only unless allowed.
//!
//! Whoever writes a manifest chooses these URLs, so they must not become a way into the network that the gateway
//! stands in: names are resolved first, addresses that are not public are refused, and the connection goes to the
//! very address that was checked. There is no proxy support and no cookie, and only GET.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::ServerName;

/// Largest document, in bytes.
pub const DOCUMENT_BYTES: usize = 1 << 20;
/// Time for a whole fetch: resolving, connecting, TLS and the body.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of an answer, in bytes.
const HEAD_BYTES: usize = 64 << 10;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

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
        let place = Place::parse(url, self.allow_local)?;
        let mut failure = String::new();
        for address in self.addresses(&place).await? {
            match request(&place, address).await {
                Ok(response) => return body(response).await,
                Err(cause) => failure = cause,
            }
        }
        Err(failure)
    }

    /// The addresses of the host that may be connected to. At least one, else an error.
    async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((place.host.as_str(), place.port))
            .await
            .map_err(|error| format!("the name {} does not resolve: {error}", place.host))?;
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found.take(ADDRESSES) {
            match refusal(address.ip(), self.allow_local) {
                Some(kind) => refused = Some((address.ip(), kind)),
                None => allowed.push(address),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some((ip, kind))) => {
                Err(format!("{} is {ip}, a {kind} address, which is never connected to", place.host))
            }
            (true, None) => Err(format!("the name {} has no address", place.host)),
        }
    }
}

/// What a URL asks for.
struct Place {
    https: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Place {
    fn parse(url: &str, allow_local: bool) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && allow_local => false,
            _ => return Err("the URL must begin with https://".to_owned()),
        };
        let authority = uri.authority().ok_or("the URL names no host")?.as_str().to_owned();
        if authority.contains('@') {
            return Err("the URL must not hold a user name or password".to_owned());
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { https, host, port, authority, path })
    }
}

type Answer = http::Response<hyper::body::Incoming>;

/// Asks one address. The connector gets the address as a literal, so nothing is resolved a second time; the name
/// stays in `Host` and in TLS.
async fn request(place: &Place, address: SocketAddr) -> Result<Answer, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let config = TLS.clone().ok_or("TLS is not available in this build")?;
    let name = ServerName::try_from(place.host.clone()).map_err(|error| format!("not a host name: {error}"))?;
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    let builder = if place.https { builder.https_only() } else { builder.https_or_http() };
    let connector =
        builder.with_server_name_resolver(FixedServerNameResolver::new(name)).enable_http1().wrap_connector(tcp);
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .http1_max_buf_size(HEAD_BYTES)
        .build::<_, Empty<Bytes>>(connector);

    let scheme = if place.https { "https" } else { "http" };
    let host = HeaderValue::from_str(&place.authority).map_err(|error| error.to_string())?;
    let request = Request::get(format!("{scheme}://{address}{}", place.path))
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("toolgate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    client.request(request).await.map_err(|error| chain(&error))
}

async fn body(response: Answer) -> Result<Bytes, String> {
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

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The kind of an address that must not be connected to, or `None`. Addresses of cloud metadata are never permitted.
fn refusal(ip: IpAddr, allow_local: bool) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => refusal_v4(ip, allow_local),
        IpAddr::V6(ip) => refusal_v6(ip, allow_local),
    }
}

fn refusal_v4(ip: Ipv4Addr, allow_local: bool) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => (!allow_local).then_some("loopback"),
        (0, ..) => Some("unspecified"),
        (169, 254, _) => Some("link-local"), // 169.254.169.254 and .170.2 are cloud metadata.
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("private"),
        (100, 64..=127, _) => Some("carrier-grade NAT"), // 100.100.100.200 is cloud metadata too.
        (192, 0, 0) | (198, 18..=19, _) => Some("special-purpose"),
        (224..=239, ..) => Some("multicast"),
        (240..=255, ..) => Some("reserved"),
        _ => None,
    }
}

fn refusal_v6(ip: Ipv6Addr, allow_local: bool) -> Option<&'static str> {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        // A translator would reach the IPv4 host behind it; loopback through one is never this machine's own.
        refusal_v4(Ipv4Addr::new(a, b, c, d), false)
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => (!allow_local).then_some("loopback"),
        [0, 0, 0, 0, 0, 0, ..] => Some("IPv4-compatible"),
        // NAT64 (RFC 6052) and 6to4 (RFC 3056).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some("local NAT64"), // RFC 8215
        [0x2001, 0, ..] => Some("Teredo"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("site-local"),
        [0xfc00..=0xfdff, ..] => Some("private"), // fd00:ec2::254 is cloud metadata.
        [0xff00..=0xffff, ..] => Some("multicast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        let refused = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2001:0:1::1",
            "2002:7f00:1::",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
        ];
        for ip in refused {
            assert!(refusal(ip.parse().unwrap(), false).is_some(), "{ip}");
        }
        for ip in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.2.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert_eq!(refusal(ip.parse().unwrap(), false), None, "{ip}");
        }
        let local: Vec<_> = refused.iter().filter(|ip| refusal(ip.parse().unwrap(), true).is_none()).copied().collect();
        assert_eq!(local, ["127.0.0.1", "127.8.8.8", "::1"]);
    }
}
