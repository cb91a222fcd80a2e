//! First layer: is this an HTTP request for us at all? Host, origin, path, type, size.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::gateway::limits;
use crate::gateway::memory::{Budget, Gathered, NoRoom, Owner};
use crate::gateway::protocol::error::Reject;

/// What a path names.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::gateway) enum Page<'a> {
    /// The MCP endpoint of a server.
    Mcp(&'a str),
    /// Its protected resource metadata (RFC 9728 §3.1: the well-known part goes before the path).
    Metadata(&'a str),
}

/// Where a path leads at the gateway of one server.
pub(in crate::gateway) fn sole_page<'a>(path: &str, server: &'a str) -> Option<Page<'a>> {
    match path {
        "/mcp" => Some(Page::Mcp(server)),
        "/.well-known/oauth-protected-resource/mcp" => Some(Page::Metadata(server)),
        _ => None,
    }
}

/// Where a path leads.
pub(in crate::gateway) fn page(path: &str) -> Option<Page<'_>> {
    let server = |rest: &'static str, path| -> Option<&str> {
        let name = str::strip_suffix(str::strip_prefix(path, rest)?, "/mcp")?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    };
    server("/servers/", path)
        .map(Page::Mcp)
        .or_else(|| server("/.well-known/oauth-protected-resource/servers/", path).map(Page::Metadata))
}

/// Host names that requests may be addressed to, and come from.
#[derive(Clone, Debug)]
pub(in crate::gateway) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Loopback names, the listen address and `more`.
    pub(in crate::gateway) fn new(listen: SocketAddr, more: &[String]) -> Self {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into();
        let ip = listen.ip();
        names.push(if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
        names.extend(more.iter().map(|name| name.to_ascii_lowercase()));
        Self { names }
    }

    fn contains(&self, authority: &str) -> bool {
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => authority,
        };
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Refuses foreign `Host` and `Origin` headers: a web page must not reach a gateway on the user's machine by
    /// rebinding a name (MCP transports, security warning).
    pub(in crate::gateway) fn check(&self, headers: &HeaderMap) -> Result<(), Reject> {
        let forbidden = |what: &str| Reject::http(StatusCode::FORBIDDEN, format!("{what} is not allowed here"));
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next().map(http::HeaderValue::to_str), hosts.next()) {
            (Some(Ok(host)), None) if self.contains(host) => {}
            _ => return Err(forbidden("this Host")),
        }
        for origin in headers.get_all(header::ORIGIN) {
            let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
            if !authority.is_some_and(|authority| self.contains(authority)) {
                return Err(forbidden("this Origin"));
            }
        }
        Ok(())
    }
}

/// The size of the head. The HTTP parser has a bound of its own, but reads up to twice as much before it applies it.
pub(in crate::gateway) fn check_size(head: &Parts) -> Result<(), Reject> {
    let lines = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if lines.sum::<usize>() + target <= limits::HEADER_BYTES {
        return Ok(());
    }
    let message = format!("the request head is larger than {} bytes", limits::HEADER_BYTES);
    Err(Reject::http(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message))
}

/// The `Content-Type` of a message.
pub(in crate::gateway) fn check_type(head: &Parts) -> Result<(), Reject> {
    let json = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
    });
    let plain = head.headers.get(header::CONTENT_ENCODING).is_none();
    match (json, plain) {
        (true, true) => Ok(()),
        (false, _) => Err(Reject::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json")),
        (_, false) => Err(Reject::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not supported")),
    }
}

/// Reads the body of a caller, bounded in size, time and silence. It is held in that caller's share of the memory, by
/// the length that it announces: whoever holds bytes back uses up nobody else's.
pub(in crate::gateway) async fn read(
    body: &mut Incoming,
    budget: &Budget,
    caller: Option<Arc<str>>,
) -> Result<Bytes, Reject> {
    let most = budget.largest_body();
    let too_large = || Reject::http(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {most} bytes"));
    let late = |_| Reject::http(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    let no_room = |NoRoom| Reject::no_room(format!("{NoRoom}: nothing was done, try again"));
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > most {
        return Err(too_large());
    }
    let mut gathered = Gathered::new(budget.hold(Owner::Caller(caller)), 2); // As it came, and as it goes on.
    gathered.expect(announced).await.map_err(no_room)?;
    let arriving = async {
        while let Some(frame) = timeout(limits::BODY_IDLE, body.frame()).await.map_err(late)? {
            let frame = frame.map_err(|_| Reject::http(StatusCode::BAD_REQUEST, "the body did not arrive whole"))?;
            let Ok(piece) = frame.into_data() else { continue };
            if gathered.len() + piece.len() > most {
                return Err(too_large());
            }
            gathered.push(piece, most).await.map_err(no_room)?;
        }
        Ok(())
    };
    timeout(limits::READ_TIMEOUT, arriving).await.map_err(late)??;
    Ok(gathered.finish())
}

/// Takes what is left of a body that no layer wanted to read, and says whether that was all. A connection with unread
/// bytes is closed after the answer, under the next request of a client that was told nothing of it: every first
/// request without a token is one such.
pub(in crate::gateway) async fn discard(body: &mut Incoming) -> bool {
    let mut left = limits::BODY_BYTES;
    let rest = async {
        while let Some(frame) = body.frame().await {
            let Some(rest) = frame.ok().and_then(|frame| left.checked_sub(frame.data_ref().map_or(0, Bytes::len)))
            else {
                return false;
            };
            left = rest;
        }
        true
    };
    tokio::time::timeout(limits::DISCARD_TIMEOUT, rest).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn paths_name_servers() {
        assert_eq!(page("/servers/a.b/mcp"), Some(Page::Mcp("a.b")));
        assert_eq!(page("/.well-known/oauth-protected-resource/servers/a/mcp"), Some(Page::Metadata("a")));
        for path in ["/", "/servers//mcp", "/servers/a/b/mcp", "/servers/a/mcp/", "/mcp"] {
            assert_eq!(page(path), None, "{path}");
        }
    }

    #[test]
    fn the_gateway_of_one_server_has_one_path() {
        assert_eq!(sole_page("/mcp", "a"), Some(Page::Mcp("a")));
        assert_eq!(sole_page("/.well-known/oauth-protected-resource/mcp", "a"), Some(Page::Metadata("a")));
        for path in ["/", "/mcp/", "/servers/a/mcp", "/.well-known/oauth-protected-resource"] {
            assert_eq!(sole_page(path, "a"), None, "{path}");
        }
    }

    #[test]
    fn only_known_hosts_and_origins_pass() {
        let hosts = Hosts::new(([127, 0, 0, 1], 8811).into(), &["gate.example".to_owned()]);

        for host in ["localhost:8811", "LOCALHOST", "127.0.0.1:1", "[::1]:8811", "gate.example"] {
            assert!(hosts.check(&headers(&[(header::HOST, host)])).is_ok(), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "localhost:evil", ""] {
            assert!(hosts.check(&headers(&[(header::HOST, host)])).is_err(), "{host}");
        }
        for origin in ["null", "https://evil.example", "http://localhost@evil.example"] {
            let sent = headers(&[(header::HOST, "localhost"), (header::ORIGIN, origin)]);
            assert!(hosts.check(&sent).is_err(), "{origin}");
        }
        assert!(hosts.check(&HeaderMap::new()).is_err());
    }
}
