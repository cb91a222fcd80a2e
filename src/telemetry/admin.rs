//! The operator's own page: `/metrics`, `/healthz`, `/readyz`.
//!
//! Answers GET alone, to few connections at once and for a short time: it is for probes and for Prometheus.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::operator::Metrics;

/// Connections at once; more wait.
const CONNECTIONS: usize = 64;
/// Time for the headers of a request.
const HEADERS: Duration = Duration::from_secs(5);
/// A connection ends after this time, whatever it does.
const LIFE: Duration = Duration::from_mins(1);

/// Whether this process can do its work; the text says what it waits for.
pub type Ready = Arc<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, ready: Ready, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await;
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await; // Out of descriptors, mostly: it passes.
            continue;
        };
        let (metrics, ready) = (metrics.clone(), ready.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&request, &metrics, &ready);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(LIFE, connection).await; // Whoever called is gone, or stayed too long.
            drop(place);
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, ready: &Ready) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics.render()),
        (&Method::GET, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => match ready() {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, path: &str, ready: Result<(), &'static str>) -> u16 {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let ready: Ready = Arc::new(move || ready);
        answer(&request, &Metrics::new().unwrap(), &ready).status().as_u16()
    }

    #[test]
    fn readiness_waits_and_health_does_not() {
        assert_eq!(status("GET", "/readyz", Err("waiting")), 503);
        assert_eq!(status("GET", "/readyz", Ok(())), 200);
        assert_eq!(status("GET", "/healthz", Err("waiting")), 200);
        assert_eq!(status("GET", "/metrics", Err("waiting")), 200);
    }

    #[test]
    fn nothing_else_is_answered() {
        assert_eq!(status("GET", "/", Ok(())), 404);
        assert_eq!(status("POST", "/metrics", Ok(())), 405);
    }
}
