use tokio::io::{AsyncWriteExt as _, duplex};
use tokio::time::Instant;

use super::*;

/// Bytes that lie between the two ends of a connection.
const ROOM: usize = 1 << 10;

async fn gateway() -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        admin: None,
        audit: Sink::File(folder.path().join("audit")),
        allow_local_fetch: false,
        tracer: Tracer::off(),
        hosts: Vec::new(),
        memory: None,
        tls: None,
        sole: None,
    });
    (gateway.await.unwrap(), folder)
}

/// How long a connection lives whose client sends this and reads nothing.
async fn lives(requests: &str, callers: bool) -> Duration {
    let (gateway, _folder) = gateway().await;
    let (here, mut there) = duplex(ROOM);
    let requests = requests.to_owned();
    let client = tokio::spawn(async move {
        let _ = there.write_all(requests.as_bytes()).await; // It is cut off before all is taken.
        std::future::pending::<()>().await;
    });
    let begun = Instant::now();
    connection(Progress::new(here), gateway.shared.clone(), callers).await;
    client.abort();
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_that_pipelines_and_does_not_read_is_cut_off() {
    let request = "GET /.well-known/oauth-protected-resource/servers/a/mcp HTTP/1.1\r\nhost: localhost\r\n\r\n";

    let lived = lives(&request.repeat(1000), true).await;

    assert!(lived <= limits::WRITE_TIMEOUT + Duration::from_secs(1), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn the_admin_page_is_not_kept_open_for_whoever_does_not_read_it() {
    let lived = lives("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n", false).await;

    assert!(lived.abs_diff(limits::WRITE_TIMEOUT) <= Duration::from_secs(1), "{lived:?}");
}
