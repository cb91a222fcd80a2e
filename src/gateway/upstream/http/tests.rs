//! Against a server that plays a script over a loopback socket.

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::era::Era;
use crate::gateway::upstream::Reached;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

fn post(message: &str) -> Outbound {
    let verb = Verb::Post(Envelope::parse(message.to_owned().into()).unwrap());
    Outbound { verb, era: Era::Legacy, caller: None, session: None, headers: HeaderMap::new() }
}

fn at(url: &str, ca: Option<String>) -> Config {
    Config { url: url.to_owned(), ca, reach: Reach::MACHINE }
}

fn upstream(port: u16) -> HttpUpstream {
    let bounds = Bounds { connect: Duration::from_secs(5), idle: Duration::from_millis(300), message: 1024 };
    HttpUpstream::bounded(&at(&format!("http://127.0.0.1:{port}/mcp"), None), bounds).unwrap()
}

/// Reads one request with its body. `None` when the peer closes.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if text.len() >= end + 4 + length {
                return Some(String::from_utf8(text).unwrap());
            }
        }
        if socket.read_buf(&mut text).await.unwrap() == 0 {
            return None;
        }
    }
}

/// A server that answers every request with the same bytes and, if `close`, then closes. Requests are reported, and
/// `None` when a connection ended.
async fn scripted(answer: impl Into<Vec<u8>>, close: bool) -> (u16, mpsc::UnboundedReceiver<Option<String>>) {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (seen, answer) = (seen.clone(), answer.clone());
            tokio::spawn(async move {
                while let Some(text) = request(&mut socket).await {
                    let _ = seen.send(Some(text));
                    socket.write_all(&answer).await.unwrap();
                    if close {
                        return;
                    }
                }
                let _ = seen.send(None);
            });
        }
    });
    (port, requests)
}

fn json(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn fails(answer: impl Into<Vec<u8>>, close: bool) -> UpstreamError {
    let (port, _requests) = scripted(answer, close).await;
    upstream(port).send(post(CALL)).await.err().expect("an error")
}

#[tokio::test]
async fn a_message_travels_as_it_is_and_its_answer_too() {
    let (port, mut requests) =
        scripted(json("200 OK", "mcp-session-id: s1\r\nset-cookie: a=b\r\nallow: POST\r\n", ANSWER), false).await;
    let mut outbound = post(CALL);
    outbound.session = Some("s0".into());
    outbound.headers.insert("mcp-protocol-version", "2025-11-25".parse().unwrap());

    let reply = upstream(port).send(outbound).await.unwrap();

    assert!(matches!(reply.content, Content::Json(text) if text == ANSWER));
    assert_eq!(reply.session.as_deref(), Some("s1"));
    assert_eq!(reply.headers.keys().collect::<Vec<_>>(), ["allow"]);
    let sent = requests.recv().await.unwrap().unwrap();
    assert!(sent.starts_with("POST /mcp HTTP/1.1\r\n") && sent.ends_with(CALL), "{sent}");
    for line in [
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        "mcp-session-id: s0",
        "mcp-protocol-version: 2025-11-25",
        &format!("host: 127.0.0.1:{port}"),
    ] {
        assert!(sent.contains(&format!("\r\n{line}\r\n")), "{line} in {sent}");
    }
}

#[tokio::test]
async fn connections_are_kept_and_reused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = upstream(listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            request(&mut socket).await.unwrap();
            socket.write_all(json("200 OK", "", ANSWER).as_bytes()).await.unwrap();
        }
    });

    for _ in 0..3 {
        upstream.send(post(CALL)).await.unwrap();
    }

    server.await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_says_that_nothing_was_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);

    let error = upstream(port).send(post(CALL)).await.err().unwrap();

    assert!(matches!(&error, UpstreamError::Unreachable(why) if why.contains("refused")), "{error:?}");
    assert_eq!(error.reached_server(), Reached::No);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_named() {
    let error = fails("HTTP/1.1 302 Found\r\nlocation: http://other/mcp\r\ncontent-length: 0\r\n\r\n", false).await;

    assert!(
        matches!(&error, UpstreamError::Garbage(why) if why.contains("redirected to http://other/mcp")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_cut_body_is_a_server_that_went_away() {
    let cut = json("200 OK", "", ANSWER).replace("}}", "");

    assert!(matches!(fails(cut, true).await, UpstreamError::Gone));
    let error = fails("", true).await;
    assert!(matches!(error, UpstreamError::Gone));
    assert_eq!(error.reached_server(), Reached::Maybe, "it read the request and closed");
    assert!(matches!(fails("HTTP/1.1 200 OK\r\ncont", true).await, UpstreamError::Gone));
}

#[tokio::test]
async fn a_message_is_not_sent_twice_when_the_connection_ends() {
    let (port, mut requests) = scripted("", true).await;

    assert!(matches!(upstream(port).send(post(CALL)).await, Err(UpstreamError::Gone)));

    assert!(requests.recv().await.unwrap().is_some());
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_that_is_no_http_or_no_mcp_is_garbage() {
    assert!(matches!(fails("hello\r\n\r\n", true).await, UpstreamError::Garbage(_)));
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi";
    assert!(matches!(fails(html, false).await, UpstreamError::Garbage(why) if why.contains("text/html")));
    assert!(matches!(fails(json("200 OK", "", ""), false).await, UpstreamError::Garbage(why) if why.contains("empty")));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_refused_declared_or_not() {
    let large = "x".repeat(2000);
    let chunked = STREAM.replace("text/event-stream", "application/json") + &chunk(&large) + "0\r\n\r\n";

    assert!(matches!(fails(json("200 OK", "", &large), false).await, UpstreamError::TooLarge(1024)));
    assert!(matches!(fails(chunked, false).await, UpstreamError::TooLarge(1024)));
}

#[tokio::test]
async fn an_answer_in_many_frames_is_put_together() {
    let split = STREAM.replace("text/event-stream", "Application/JSON; charset=utf-8");
    let text: String = ANSWER.chars().map(|one| chunk(&one.to_string())).collect();
    let (port, _requests) = scripted(split + &text + "0\r\n\r\n", false).await;

    let reply = upstream(port).send(post(CALL)).await.unwrap();

    assert!(matches!(reply.content, Content::Json(text) if text == ANSWER));
}

#[tokio::test]
async fn a_silent_server_times_out_before_and_within_an_answer() {
    assert!(matches!(fails("", false).await, UpstreamError::Timeout));
    assert!(matches!(fails(json("200 OK", "", ANSWER).replace("}}", ""), false).await, UpstreamError::Timeout));
}

#[tokio::test]
async fn errors_keep_their_status_and_a_lost_session_is_a_404() {
    let (port, _requests) = scripted(json("404 Not Found", "retry-after: 3\r\n", ANSWER), false).await;
    let reply = upstream(port).send(post(CALL)).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.headers.len()), (404, 1));
    assert!(matches!(reply.content, Content::Json(_)));

    let (port, _requests) = scripted("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", false).await;
    let reply = upstream(port).send(post(CALL)).await.unwrap();
    assert!(matches!(reply.content, Content::Opaque(text) if text == "busy"));

    let (port, _requests) = scripted("HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n", false).await;
    let reply = upstream(port).send(Outbound { verb: Verb::Get, ..post(CALL) }).await.unwrap();
    assert!(matches!((reply.status.as_u16(), reply.content), (405, Content::Empty)));
}

#[tokio::test]
async fn a_notice_needs_no_answer() {
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    for body in ["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    {
        let (port, _requests) = scripted(body, false).await;

        assert!(matches!(upstream(port).send(post(notice)).await.unwrap().content, Content::Empty));
    }
}

#[tokio::test]
async fn events_come_one_by_one_with_their_bytes() {
    let (port, _requests) =
        scripted(STREAM.to_owned() + &chunk("id: 1\ndata: {}\n\n: hi\n\n") + "0\r\n\r\n", false).await;

    let Content::Events(events) = upstream(port).send(post(CALL)).await.unwrap().content else { panic!("no events") };
    let events: Vec<_> = events.map(Result::unwrap).collect().await;

    assert_eq!((events[0].id.as_deref(), events[0].data.as_deref()), (Some(&b"1"[..]), Some(&b"{}"[..])));
    assert_eq!(events[0].data.as_deref(), Some(&b"{}"[..]));
    assert_eq!((events[1].data.as_deref(), events.len()), (None, 2));
}

#[tokio::test]
async fn a_stream_that_is_cut_oversized_or_silent_ends_in_an_error() {
    let long = format!("data: {}", "x".repeat(2000));
    let cut_event = STREAM.to_owned() + &chunk("data: 1\n\ndata: 2\n") + "0\r\n\r\n";
    let cut_body = STREAM.to_owned() + &chunk("data: 1\n\n");
    for (answer, close, expected) in [
        (cut_event, false, "Gone"),
        (cut_body.clone(), true, "Gone"),
        (cut_body.clone(), false, "Timeout"),
        (cut_body + &chunk(&long), false, "TooLarge(1024)"),
    ] {
        let (port, _requests) = scripted(answer, close).await;
        let upstream = upstream(port);

        let Content::Events(events) = upstream.send(post(CALL)).await.unwrap().content else { panic!("no events") };
        let mut events: Vec<_> = events.collect().await;

        assert_eq!(format!("{:?}", events.pop().unwrap().unwrap_err()), expected);
        assert_eq!(events.len(), 1);
    }
}

#[tokio::test]
async fn a_stream_for_notifications_may_be_quiet() {
    let (port, _requests) = scripted(STREAM, false).await;
    let upstream = upstream(port);
    let outbound = Outbound { verb: Verb::Get, ..post(CALL) };

    let Content::Events(mut events) = upstream.send(outbound).await.unwrap().content else { panic!("no events") };

    assert!(timeout(Duration::from_millis(500), events.next()).await.is_err());
}

#[tokio::test]
async fn dropping_a_stream_or_a_call_closes_the_connection() {
    let (port, mut requests) = scripted(STREAM.to_owned() + &chunk("data: 1\n\n"), false).await;
    let one = upstream(port);
    let Content::Events(mut events) = one.send(post(CALL)).await.unwrap().content else { panic!("no events") };
    events.next().await.unwrap().unwrap();
    requests.recv().await.unwrap().unwrap();

    drop(events);

    assert_eq!(requests.recv().await.unwrap(), None);

    let (port, mut requests) = scripted("", false).await;
    let other = upstream(port);
    let call = tokio::spawn(async move { other.send(post(CALL)).await.map(|_| ()) });
    requests.recv().await.unwrap().unwrap();

    call.abort();

    assert_eq!(requests.recv().await.unwrap(), None);
}

#[test]
fn a_url_that_cannot_work_is_refused_with_its_reason() {
    for (url, why) in [
        ("ftp://a/mcp", "http:// or https://"),
        ("/mcp", "no host"),
        ("http://", "cannot be parsed"),
        ("http://me:secret@a/mcp", "password"),
    ] {
        let error = HttpUpstream::new(&at(url, None)).err().unwrap();

        assert!(error.to_string().contains(why), "{url}: {error}");
    }
}

#[tokio::test]
async fn tls_to_a_peer_that_speaks_none_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { listener.accept().await.unwrap().0.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await });
    let upstream = HttpUpstream::new(&at(&format!("https://127.0.0.1:{port}/mcp"), None)).unwrap();

    let error = upstream.send(post(CALL)).await.err().unwrap();

    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_private_authority_counts_where_it_is_named_and_is_the_only_one() {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = certified.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let (acceptor, listener) =
        (tokio_rustls::TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("https://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                let _ = stream.write_all(answer).await;
            }
        }
    });
    let send = async |ca: Option<String>| HttpUpstream::new(&at(&url, ca))?.send(post(CALL)).await;

    assert!(send(Some(certified.cert.pem())).await.is_ok());
    assert!(matches!(send(None).await, Err(UpstreamError::Unreachable(_))));
    let another = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.pem();
    assert!(matches!(send(Some(another.clone())).await, Err(UpstreamError::Unreachable(_))));
    assert!(matches!(send(Some("no PEM".to_owned())).await, Err(UpstreamError::Unreachable(_))), "nobody is trusted");

    let upstream = HttpUpstream::new(&at(&url, Some(certified.cert.pem()))).unwrap();
    assert!(upstream.send(post(CALL)).await.is_ok());
    assert!(upstream.trust("no PEM").is_err());
    assert!(upstream.send(post(CALL)).await.is_ok(), "whom it trusted stays");
    upstream.trust(&another).unwrap();
    assert!(
        matches!(upstream.send(post(CALL)).await, Err(UpstreamError::Unreachable(_))),
        "also not on an open connection"
    );
    upstream.trust(&(another + &certified.cert.pem())).unwrap();
    assert!(upstream.send(post(CALL)).await.is_ok());
}

#[tokio::test]
async fn a_server_within_the_gateways_own_machine_is_not_reached_as_a_remote_one() {
    let (port, mut requests) = scripted(json("200 OK", "", ANSWER), false).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let remote = Config { reach: Reach::NETWORKS, ..at(&format!("http://{host}:{port}/mcp"), None) };
        let error = HttpUpstream::new(&remote).unwrap().send(post(CALL)).await.err().unwrap();

        assert!(matches!(&error, UpstreamError::Unreachable(why) if why.contains("never connected to")), "{error:?}");
    }
    assert!(requests.try_recv().is_err());

    upstream(port).send(post(CALL)).await.unwrap(); // The positive control.
}

#[test]
fn only_loopback_is_beside_the_gateway() {
    for url in ["http://127.0.0.1:8000/mcp", "http://localhost/", "http://[::1]:1/", "http://[::ffff:127.0.0.1]/"] {
        assert!(is_loopback(url), "{url}");
    }
    for url in ["https://mcp.example.com/", "http://10.0.0.1/", "http://localhost.example.com/", "nonsense"] {
        assert!(!is_loopback(url), "{url}");
    }
}
