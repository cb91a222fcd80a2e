//! What operators of the gateway ask: is it alive, is it ready, how does it fare. Answers alone, since anybody may ask:
//! nothing here changes the gateway.

use std::sync::atomic::Ordering;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::body::Body;
use super::memory;
use super::server::Shared;
use super::upstream::Upstream;

/// `/metrics`, `/healthz`, `/startupz`, `/readyz`.
pub(super) fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let (status, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, metrics(shared)),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if shared.drain.is_on() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        "/readyz" => ready(shared),
        // A pod's server is started only once its gateway is: so this waits for less.
        "/startupz" => policies(shared),
        _ => (StatusCode::NOT_FOUND, "try /metrics, /healthz, /startupz or /readyz\n".to_owned()),
    };
    let mut response = Response::new(Body::Full(text.into()));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Whether callers should come: the server is there, calls are decided, and callers can verify by whom. Who comes all the
/// same, and ignores certificates, is served.
fn ready(shared: &Shared) -> (StatusCode, String) {
    match policies(shared) {
        (StatusCode::OK, _) if !shared.is_server_up.load(Ordering::Relaxed) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the server does not take connections yet\n".to_owned())
        }
        (StatusCode::OK, _) if !shared.is_vouched_for() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "callers cannot verify the certificate: no policy server has signed one that is valid now\n".to_owned(),
        ),
        known => known,
    }
}

/// Whether every server has a policy in force.
fn policies(shared: &Shared) -> (StatusCode, String) {
    match shared.endpoints.load().values().find(|endpoint| endpoint.force.load().is_none()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(endpoint) => (StatusCode::SERVICE_UNAVAILABLE, format!("no policy is in force for {}\n", endpoint.name)),
    }
}

fn metrics(shared: &Shared) -> String {
    for endpoint in shared.endpoints.load().values() {
        if let Some(link) = endpoint.link.load_full() {
            link.measure();
        }
        if let Some(force) = endpoint.force.load_full() {
            force.metrics.sessions.set(endpoint.sessions.count());
            force.metrics.streams.set(endpoint.streams.count());
            if let Upstream::Stdio(upstream) = &endpoint.upstream {
                force.metrics.children.set(upstream.children());
                force.metrics.children_ended(upstream.take_exits());
            }
        }
    }
    shared.metrics.held(memory::budget().held());
    shared.metrics.render()
}
