//! HTTP/1.1, as much as the target needs: a server that sends what it is told, and a client that keeps what it gets.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the server answers.
#[derive(Default)]
pub struct Script {
    /// As an event stream, else as one message.
    pub events: bool,
    /// Packets of the answer.
    pub answer: Vec<Vec<u8>>,
    /// Packets of the session's stream.
    pub replayed: Vec<Vec<u8>>,
}

pub struct Server {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, script }
    }
}

async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut stream = BufReader::new(stream);
    loop {
        let head = Head::read(&mut stream).await?;
        let body = String::from_utf8_lossy(&head.body(&mut stream).await?).into_owned();
        let asks = |method: &str| head.first.starts_with("POST") && body.contains(&format!("\"method\":\"{method}\""));
        let json = |text: &str, more: &str| {
            let length = text.len();
            format!("HTTP/1.1 200 OK\r\n{more}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{text}")
        };
        let (events, packets) = {
            let script = script.lock();
            if head.first.starts_with("GET") {
                (true, script.replayed.clone())
            } else if asks("ping") {
                (true, vec![b": cut\n\n".to_vec()])
            } else {
                (script.events, script.answer.clone())
            }
        };
        let reply = if asks("initialize") {
            let hello = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"f","version":"1"}}}"#;
            json(hello, "mcp-session-id: s\r\n").into_bytes()
        } else if head.first.starts_with("DELETE") {
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()
        } else if !(asks("tools/list")
            || asks("tools/call")
            || asks("prompts/list")
            || asks("resources/list")
            || asks("ping")
            || head.first.starts_with("GET"))
        {
            b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()
        } else {
            let kind = if events { "text/event-stream" } else { "application/json" };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut all = head.into_bytes();
            for packet in packets {
                all.extend_from_slice(format!("{:x}\r\n", packet.len()).as_bytes());
                all.extend_from_slice(&packet);
                all.extend_from_slice(b"\r\n");
            }
            all.extend_from_slice(b"0\r\n\r\n");
            all
        };
        stream.write_all(&reply).await.ok()?;
    }
}

/// An answer.
pub struct Answer {
    pub events: bool,
    pub session: Option<String>,
    pub body: Vec<u8>,
}

pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(&mut self, verb: &str, headers: &str, body: &str) -> Answer {
        let request = format!(
            "{verb} /servers/s/mcp HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}accept: application/json, text/event-stream\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        for _ in 0..2 {
            let mut stream = if let Some(stream) = self.stream.take() {
                stream
            } else {
                let stream = TcpStream::connect(self.address).await.expect("the gateway listens");
                stream.set_nodelay(true).expect("a socket");
                BufReader::new(stream)
            };
            // A connection that was kept may have been closed meanwhile.
            if stream.write_all(request.as_bytes()).await.is_err() {
                continue;
            }
            let Some(head) = Head::read(&mut stream).await else { continue };
            let body = head.body(&mut stream).await.expect("a whole answer");
            let events = head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
            if head.header("connection").is_none_or(|kept| kept != "close") {
                self.stream = Some(stream);
            }
            return Answer { events, session: head.header("mcp-session-id"), body };
        }
        panic!("the gateway closed a fresh connection");
    }
}

struct Head {
    first: String,
    lines: Vec<(String, String)>,
}

impl Head {
    async fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut first = String::new();
        stream.read_line(&mut first).await.ok().filter(|read| *read > 0)?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => lines.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None => return Some(Self { first, lines }),
            }
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        self.lines.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    async fn body(&self, stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if self.header("transfer-encoding").is_none() {
            let length: usize = self.header("content-length").map_or(Some(0), |length| length.parse().ok())?;
            body.resize(length, 0);
            stream.read_exact(&mut body).await.ok()?;
            return Some(body);
        }
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            if length == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..length]);
        }
    }
}
