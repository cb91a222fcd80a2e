//! A proxy that adds the bearer token to requests of programs that cannot be given one, and counts what it saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

/// A running proxy; it ends with the test's runtime.
#[derive(Clone)]
pub struct Injector {
    /// What the program is told instead of the gateway's URL.
    pub url: String,
    target: Arc<str>,
    token: Option<Arc<str>>,
    sent: Arc<AtomicUsize>,
    statuses: Arc<Mutex<BTreeMap<u16, usize>>>,
}

impl Injector {
    /// Starts in front of an endpoint.
    pub async fn start(target: &str, token: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
        let injector = Self {
            url,
            target: target.into(),
            token: token.map(Into::into),
            sent: Arc::default(),
            statuses: Arc::default(),
        };
        let router = axum::Router::new().fallback(forward).with_state(injector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        injector
    }

    /// How many requests it passed on.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// How often each status was answered.
    pub fn statuses(&self) -> BTreeMap<u16, usize> {
        self.statuses.lock().clone()
    }
}

async fn forward(State(injector): State<Injector>, mut request: Request) -> Response {
    let (authority, path) = injector.target.trim_start_matches("http://").split_once('/').expect("an absolute URL");
    if let Some(token) = &injector.token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    }
    *request.uri_mut() = format!("/{path}").parse().expect("a path");
    let stream = TcpStream::connect(authority).await.expect("the gateway listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    injector.sent.fetch_add(1, Ordering::SeqCst);
    match sender.send_request(request).await {
        Ok(response) => {
            *injector.statuses.lock().entry(response.status().as_u16()).or_default() += 1;
            response.map(Body::new)
        }
        Err(error) => (axum::http::StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
