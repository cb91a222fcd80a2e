//! Spans as a collector gets them.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn incoming(text: &str) -> Incoming<'_> {
    Incoming { traceparent: Some(text), tracestate: Some("vendor=1") }
}

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// A collector that hands out the body of each request.
async fn collector() -> (String, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut chunk).await.unwrap();
                bytes.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&bytes).to_lowercase();
                let Some(head) = memchr::memmem::find(&bytes, b"\r\n\r\n") else { continue };
                let length = text.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                if bytes.len() >= head + 4 + length.parse::<usize>().unwrap() {
                    assert!(text.starts_with("post /v1/traces http/1.1"), "{text}");
                    sender.send(bytes.split_off(head + 4)).unwrap();
                    break;
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        }
    });
    (url, receiver)
}

/// The length-delimited fields of a protobuf message, by number; others are skipped.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        match tag & 7 {
            0 => drop(varint(&mut bytes)),
            1 => bytes = &bytes[8..],
            5 => bytes = &bytes[4..],
            _ => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                found.push((tag >> 3, value));
                bytes = rest;
            }
        }
    }
    found
}

fn nested<'a>(bytes: &'a [u8], path: &[u64]) -> Vec<&'a [u8]> {
    path.iter().fold(vec![bytes], |level, number| {
        level
            .iter()
            .flat_map(|bytes| fields(bytes))
            .filter(|(found, _)| found == number)
            .map(|(_, value)| value)
            .collect()
    })
}

/// A span of `ExportTraceServiceRequest`.
struct Exported {
    trace: String,
    id: String,
    parent: String,
    name: String,
    attributes: HashMap<String, String>,
}

fn spans(body: &[u8]) -> Vec<Exported> {
    let hex = |found: Vec<&[u8]>| found.concat().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let text = |bytes: &[u8], path: &[u64]| {
        String::from_utf8(nested(bytes, path).first().copied().unwrap_or_default().to_vec()).unwrap()
    };
    nested(body, &[1, 2, 2])
        .into_iter()
        .map(|span| Exported {
            trace: hex(nested(span, &[1])),
            id: hex(nested(span, &[2])),
            parent: hex(nested(span, &[4])),
            name: text(span, &[5]),
            attributes: nested(span, &[9]).into_iter().map(|pair| (text(pair, &[1]), text(pair, &[2, 1]))).collect(),
        })
        .collect()
}

#[tokio::test]
async fn a_collector_gets_the_span_with_its_parent_and_attributes() {
    let (url, mut bodies) = collector().await;
    let tracer = Tracer::new(Some(&url), 0.0).unwrap();

    let mut span = tracer.start("tools/call", incoming(&sampled()));
    span.server("default", "files");
    span.tool("tools/call", "write");
    span.request_id("id-1");
    span.decision("deny", "sha256:00");
    let outgoing = span.outgoing().unwrap();
    span.end(Outcome::Denied, Some(-32602));
    tracer.shutdown().await;

    let body = bodies.recv().await.unwrap();
    let resource: HashMap<_, _> = nested(&body, &[1, 1, 1])
        .into_iter()
        .map(|pair| (nested(pair, &[1]).concat(), nested(pair, &[2, 1]).concat()))
        .collect();
    assert_eq!(resource[&b"service.name"[..]], b"toolgate-gateway");
    let exported = spans(&body);
    assert_eq!(exported.len(), 1);
    let span = &exported[0];
    assert_eq!((span.trace.as_str(), span.parent.as_str(), span.name.as_str()), (TRACE, PARENT, "tools/call write"));
    assert_eq!(outgoing.traceparent, format!("00-{TRACE}-{}-01", span.id), "the server sees our span as parent");
    assert_eq!(outgoing.tracestate.as_deref(), Some("vendor=1"));
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "write"),
        ("error.type", "-32602"),
        ("rpc.response.status_code", "-32602"),
        ("toolgate.server", "files"),
        ("toolgate.server.namespace", "default"),
        ("toolgate.request.id", "id-1"),
        ("toolgate.decision", "deny"),
        ("toolgate.snapshot", "sha256:00"),
        ("toolgate.outcome", "denied"),
    ] {
        assert_eq!(span.attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[tokio::test]
async fn a_dropped_span_ends_as_cancelled() {
    let (url, mut bodies) = collector().await;
    let tracer = Tracer::new(Some(&url), 1.0).unwrap();
    drop(tracer.start("tools/list", Incoming::default()));
    tracer.shutdown().await;

    let exported = spans(&bodies.recv().await.unwrap());
    assert_eq!(exported[0].parent, "", "a trace begins here");
    assert_eq!(exported[0].attributes["error.type"], "cancelled");
}

#[tokio::test]
async fn without_a_reason_there_is_no_span() {
    let off = Tracer::new(None, 1.0).unwrap();
    assert!(!off.start("tools/call", incoming(&sampled())).exists());

    let (url, _bodies) = collector().await;
    let tracer = Tracer::new(Some(&url), 0.0).unwrap();
    let unsampled = sampled().replace("-01", "-00");
    for text in [unsampled.as_str(), "garbage"] {
        let span = tracer.start("tools/call", incoming(text));
        assert!(!span.exists() && span.outgoing().is_none(), "{text}");
    }
    assert!(!tracer.start("tools/call", Incoming::default()).exists());
}

#[tokio::test(start_paused = true)]
async fn strangers_get_at_most_twenty_spans_a_second() {
    let tracer = Tracer::new(Some("http://127.0.0.1:1"), 0.0).unwrap();
    let burst = || (0..100).filter(|_| tracer.start("tools/call", incoming(&sampled())).exists()).count();

    assert_eq!(burst(), 20);
    assert_eq!(burst(), 0);
    tokio::time::advance(Duration::from_millis(500)).await;
    assert_eq!(burst(), 10);
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(burst(), 20);
    tracer.shutdown().await;
}

#[test]
fn the_sampler_takes_its_share() {
    for (ratio, expected) in
        [(0.0, 0..=0), (1.0, 10_000..=10_000), (0.25, 2_200..=2_800), (f64::NAN, 0..=0), (9.0, 10_000..=10_000)]
    {
        let sampler = Sampler::new(ratio);
        let taken = (0..10_000).filter(|_| sampler.takes_new()).count();
        assert!(expected.contains(&taken), "{ratio}: {taken}");
    }
    let half = Sampler::new(0.5);
    assert!(half.takes([0; 16]) && !half.takes([0xff; 16]));
}

#[tokio::test]
async fn a_bad_endpoint_is_refused_at_the_start() {
    assert!(matches!(Tracer::new(Some("collector:4317"), 0.0), Err(ExportError::Endpoint(_))));
}
