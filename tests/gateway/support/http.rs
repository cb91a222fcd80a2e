//! A small HTTP client: one connection a request, nothing added, nothing hidden.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::tls;
pub use super::tls::route;

/// Longest time that a test waits for one answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The messages in it, as their bytes: the body itself, or the data of each event.
    pub fn messages(&self) -> Vec<Bytes> {
        let stream = self.headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        if !stream {
            return if self.body.is_empty() { Vec::new() } else { vec![self.body.clone()] };
        }
        events(&self.body)
    }

    /// The response in it: the last message with an id and without a method.
    pub fn response(&self) -> Value {
        let parsed = self.messages().into_iter().map(|message| parse(&message));
        let response = parsed.filter(|it| it.get("method").is_none() && it.get("id").is_some()).last();
        response.unwrap_or_else(|| panic!("no response in {self}"))
    }

    /// The result in it.
    pub fn result(&self) -> Value {
        let response = self.response();
        response.get("result").cloned().unwrap_or_else(|| panic!("no result in {self}"))
    }

    /// Text of the first content block of a tool's result.
    pub fn text(&self) -> String {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {self}")).to_owned()
    }

    /// Asserts that this is an error with this status and code, whose message contains `words` and whose data names
    /// the request; returns the error.
    #[track_caller]
    pub fn refused(&self, status: u16, code: i64, words: &str) -> Value {
        let error = self.response()["error"].clone();
        let message = error["message"].as_str().unwrap_or_default();
        assert_eq!((self.status, error["code"].as_i64()), (status, Some(code)), "{self}");
        assert!(message.contains(words), "{message:?} does not contain {words:?}");
        assert!(error["data"]["requestId"].is_string(), "no request id in {self}");
        error
    }

    /// A header as text, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// Parses JSON that must be valid.
pub fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// The data of each event that has some.
pub fn events(stream: &[u8]) -> Vec<Bytes> {
    let text = std::str::from_utf8(stream).expect("an event stream is UTF-8").replace("\r\n", "\n");
    let data = |event: &str| {
        let lines: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
        let lines: Vec<&str> = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        (!lines.is_empty()).then(|| Bytes::from(lines.join("\n")))
    };
    text.split("\n\n").filter_map(data).filter(|data| !data.is_empty()).collect()
}

/// An answer whose body is still coming.
pub struct Stream {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    seen: Vec<u8>,
    given: usize,
}

impl Stream {
    /// The next message; panics where the stream ends or nothing comes.
    pub async fn next(&mut self) -> Value {
        let next = self.next_or_end().await;
        next.unwrap_or_else(|| panic!("no further message in {} {}", self.status, String::from_utf8_lossy(&self.seen)))
    }

    /// The next message, `None` at the end of the stream.
    pub async fn next_or_end(&mut self) -> Option<Value> {
        loop {
            let end = self.seen.windows(2).rposition(|window| window == b"\n\n").map_or(0, |at| at + 2);
            if let Some(message) = events(&self.seen[..end]).get(self.given) {
                self.given += 1;
                return Some(parse(message));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("a message comes in time");
            let data = frame?.ok()?.into_data().ok()?;
            self.seen.extend_from_slice(&data);
        }
    }

    /// The rest of the body.
    pub async fn rest(self) -> Answer {
        let rest = tokio::time::timeout(PATIENCE, self.body.collect()).await.expect("the answer ends in time");
        // A connection that was cut gives what came before.
        let rest = rest.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Answer { status: self.status, headers: self.headers, body: [self.seen, rest.to_vec()].concat().into() }
    }
}

/// Sends a request and gives the answer once its head is there.
pub async fn open(method: Method, url: &str, headers: HeaderMap, body: impl Into<Bytes>) -> Stream {
    open_body(method, url, headers, Full::new(body.into())).await.expect("the server answers")
}

/// Like [`open`], with any body; an error where the connection ends before a head came.
pub async fn open_body<B>(method: Method, url: &str, headers: HeaderMap, body: B) -> Result<Stream, hyper::Error>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let uri: Uri = url.parse().expect("a URL");
    let authority = uri.authority().expect("an absolute URL").clone();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Pin<Box<B>>>(TokioIo::new(tls::connect(&uri).await))
            .await
            .expect("HTTP/1.1");
    tokio::spawn(connection);
    let mut request = Request::new(Box::pin(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri.path_and_query().map_or("/", |path| path.as_str()).parse().expect("a path");
    let host = HeaderValue::from_str(authority.as_str()).expect("a host");
    request.headers_mut().insert(hyper::header::HOST, host);
    request.headers_mut().extend(headers);
    let response =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer comes in time")?;
    let (parts, body) = response.into_parts();
    Ok(Stream { status: parts.status.as_u16(), headers: parts.headers, body, seen: Vec::new(), given: 0 })
}

/// Sends a request and gives the whole answer.
pub async fn send(method: Method, url: &str, headers: HeaderMap, body: impl Into<Bytes>) -> Answer {
    open(method, url, headers, body).await.rest().await
}

/// GET without more.
pub async fn get(url: &str) -> Answer {
    send(Method::GET, url, HeaderMap::new(), "").await
}

/// Headers from pairs.
pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    pairs.iter().map(pair).collect()
}
