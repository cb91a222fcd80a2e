//! What operators of the gateway ask: is it alive, is it ready, how does it fare; and that it prepare to end.

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::body::Body;
use super::server::Shared;
use super::upstream::Upstream;

/// `/metrics`, `/healthz`, `/startupz`, `/readyz`; and `/drain` where the gateway is one of a pod.
pub(super) async fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let (status, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, metrics(shared)),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if shared.drain.is_on() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        "/readyz" => ready(shared),
        "/startupz" => policies(shared),
        "/drain" if shared.sole.is_some() => (StatusCode::OK, drain(shared).await),
        _ => (StatusCode::NOT_FOUND, "try /metrics, /healthz, /startupz or /readyz\n".to_owned()),
    };
    let mut response = Response::new(Body::Full(text.into()));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Whether callers should come: calls are decided, and callers can verify by whom. Who comes all the same, and ignores
/// certificates, is served.
fn ready(shared: &Shared) -> (StatusCode, String) {
    match policies(shared) {
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
    shared.metrics.render()
}

async fn drain(shared: &Shared) -> String {
    tracing::info!("draining");
    match shared.drain.run(|| running(shared)).await {
        0 => "drained\n".to_owned(),
        left => {
            tracing::warn!(left, "calls were still running at the end of the drain");
            format!("{left} still running\n")
        }
    }
}

/// Exchanges that run and have an end of their own.
fn running(shared: &Shared) -> usize {
    let running = |endpoint: &super::endpoint::Endpoint| {
        let active = endpoint.force.load_full().map_or(0, |force| force.metrics.active.get());
        active.saturating_sub(endpoint.streams.count())
    };
    shared.endpoints.load().values().map(|endpoint| running(endpoint)).sum()
}
