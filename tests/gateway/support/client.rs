//! A plain MCP client of both eras, which shows every answer as it came.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::{Value, json};

use super::http::{self, Answer, Stream};

/// The modern revision.
pub const MODERN: &str = "2026-07-28";
/// The latest legacy revision.
pub const LEGACY: &str = "2025-11-25";

/// A client of one endpoint.
#[derive(Clone, Debug)]
pub struct Client {
    pub url: String,
    pub token: Option<String>,
    pub version: &'static str,
    pub session: Option<String>,
    /// What it can do for servers.
    pub capabilities: Value,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

impl Client {
    /// A modern client. Nothing is sent.
    pub fn modern(url: &str, token: Option<&str>) -> Self {
        Self {
            url: url.to_owned(),
            token: token.map(str::to_owned),
            version: MODERN,
            session: None,
            capabilities: json!({}),
        }
    }

    /// A legacy client with a session.
    pub async fn legacy(url: &str, token: Option<&str>) -> Self {
        Self::legacy_with(url, token, json!({})).await
    }

    /// A legacy client with a session, which declares capabilities.
    pub async fn legacy_with(url: &str, token: Option<&str>, capabilities: Value) -> Self {
        let mut client = Self { version: LEGACY, capabilities, ..Self::modern(url, token) };
        let answer = client.initialize().await;
        assert_eq!(answer.status, 200, "initialize: {answer}");
        client.session = Some(answer.header("mcp-session-id").to_owned()).filter(|session| !session.is_empty());
        let done = client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()).await;
        assert_eq!(done.status, 202, "initialized: {done}");
        client
    }

    /// Sends `initialize` without a session.
    pub async fn initialize(&self) -> Answer {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": self.version,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "test", "version": "1"},
        }});
        let mut headers = self.headers();
        headers.remove("mcp-protocol-version");
        http::send(Method::POST, &self.url, headers, body.to_string()).await
    }

    /// The headers that every POST has.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = http::headers(&[
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", self.version),
        ]);
        if let Some(token) = &self.token {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(session) = &self.session {
            headers.insert("mcp-session-id", session.parse().unwrap());
        }
        headers
    }

    /// The headers for a message: the modern era mirrors method and name.
    pub fn headers_for(&self, method: &str, name: Option<&str>) -> HeaderMap {
        let mut headers = self.headers();
        if self.version == MODERN {
            headers.insert("mcp-method", method.parse().unwrap());
            if let Some(name) = name {
                headers.insert("mcp-name", name.parse().unwrap());
            }
        }
        headers
    }

    /// Sends these bytes with the era's common headers.
    pub async fn post(&self, body: impl Into<Bytes>) -> Answer {
        http::send(Method::POST, &self.url, self.headers(), body).await
    }

    /// A request of this client's era, as text, and its headers.
    pub fn message(&self, method: &str, mut params: Value) -> (HeaderMap, String) {
        if self.version == MODERN {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = ["name", "uri", "taskId"].iter().find_map(|key| params[*key].as_str().map(str::to_owned));
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        (self.headers_for(method, name.as_deref()), body.to_string())
    }

    /// Sends a request and gives the whole answer.
    pub async fn request(&self, method: &str, params: Value) -> Answer {
        self.open(method, params).await.rest().await
    }

    /// Sends a request and gives the answer as it comes.
    pub async fn open(&self, method: &str, params: Value) -> Stream {
        let (headers, body) = self.message(method, params);
        http::open(Method::POST, &self.url, headers, body).await
    }

    /// Calls a tool.
    pub async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.request("tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    /// The names (or URIs) that a list holds, in order.
    pub async fn list(&self, what: &str) -> Vec<String> {
        let result = self.request(&format!("{what}/list"), json!({})).await.result();
        let entries = result[what].as_array().unwrap_or_else(|| panic!("no {what} in {result}")).clone();
        let key = if what == "resources" { "uri" } else { "name" };
        entries.iter().map(|entry| entry[key].as_str().expect("entries have names").to_owned()).collect()
    }
}
