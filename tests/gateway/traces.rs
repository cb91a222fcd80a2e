//! Spans leave the process, and the server learns of them.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Folder, Hostile, Toolgate};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Bytes>) {
    let (heard, exports) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/v1/traces", post(async move |body: Bytes| _ = heard.send(body)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, exports)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_sampled_callers_trace_goes_on_through_the_gateway() {
    let (address, mut exports) = collector().await;
    let hostile = Hostile::start(&[]);
    let folder = Folder::new().remote("h", &hostile.server.url).all_for_ada();
    let toolgate = Toolgate::start_with(folder, &["--otlp-endpoint", &format!("http://{address}")]).await;
    let client = toolgate.modern("h", "ada");

    let parent = format!("00-{TRACE}-{CALLER}-01");
    let call = json!({"name": "ok", "arguments": {"traced": true}, "_meta": {"traceparent": parent}});
    client.request("tools/call", call).await.result();
    client.call("ok", json!({"traced": false})).await.result();

    let sent = hostile.arrivals.messages().into_iter().find(|message| message.contains("\"traced\":true")).unwrap();
    assert!(sent.contains(TRACE) && !sent.contains(CALLER), "the server gets the gateway's span as parent: {sent}");
    let export = tokio::time::timeout(std::time::Duration::from_secs(20), exports.recv()).await.unwrap().unwrap();
    assert!(contains(&export, &0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()));
    assert!(contains(&export, b"tools/call ok") && contains(&export, b"toolgate.request.id"));
    let untraced =
        hostile.arrivals.messages().into_iter().find(|message| message.contains("\"traced\":false")).unwrap();
    assert!(!untraced.contains("traceparent"), "a call that nobody samples has no span: {untraced}");
}
