//! Whatever a server sends, no client reads in it what policy did not check: a whole gateway stands between a server
//! that answers with the input and a client, whose every message is read by a reference reader of its own.
//!
//! The first byte of the input says what is asked (see [`Case`]), the second how the rest is cut into packets.

#![no_main]
#![allow(unreachable_pub)] // Its modules are its own.
#![allow(clippy::panic, clippy::expect_used, clippy::indexing_slicing)] // A panic is how a finding is told.

#[path = "../reference/mod.rs"]
#[allow(dead_code)] // A test dumps what it reads.
mod reference;

#[path = "server-message/wire.rs"]
mod wire;

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use reference::{Json, Reader};
use tokio::runtime::Runtime;
use toolgate::gateway::audit::Sink;
use toolgate::gateway::reach::Reach;
use toolgate::gateway::upstream::{self, http};
use toolgate::gateway::{Gateway, Settings};
use toolgate::policy::Policy;
use toolgate::telemetry::traces::Tracer;
use wire::{Client, Script, Server};

/// Callers without a token see the tool, the prompt and the resource that are called visible; by default a server may
/// ask for forms alone.
const POLICY: &str = r#"{"format":1,"target":{"namespace":"d","server":"s"},"urls":[],"registration":"Auto",
 "serverRequests":{"elicitation":"Form","sampling":"Deny","roots":"Deny"},"tools":[],"roles":[{"name":"guest",
 "subjects":[],"rules":[{"index":0,"effect":"Allow","tools":["visible"],"prompts":["visible"],
 "resources":["visible:*"]}]}],"anonymous":"guest","issuers":[],"inputs":[]}"#;

/// What is asked.
#[derive(Clone, Copy)]
struct Case {
    method: &'static str,
    params: &'static str,
    modern: bool,
    /// The answer is an event stream, else one message.
    events: bool,
    /// The answer to a list is replayed, after another request, on a stream of the session.
    late: bool,
}

impl Case {
    const fn of(byte: u8) -> Self {
        let (method, params) = match byte & 7 {
            2 | 4 => ("tools/call", r#""name":"visible","arguments":{}"#),
            5 => ("prompts/list", ""),
            7 => ("resources/list", ""),
            _ => ("tools/list", ""),
        };
        let (modern, events, late) = match byte & 7 {
            0 => (true, false, false),
            1 | 2 | 7 => (true, true, false),
            5 => (false, false, false),
            6 => (false, true, true),
            _ => (false, true, false),
        };
        Self { method, params, modern, events, late }
    }

    fn message(self, method: &str, id: u32, params: &str) -> String {
        let comma = if params.is_empty() { "" } else { "," };
        let meta = if self.modern {
            r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"f","version":"1"}}"#
        } else {
            r#""_meta":{}"#
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}{comma}{meta}}}}}"#)
    }

    fn headers(self) -> String {
        if !self.modern {
            return "mcp-protocol-version: 2025-11-25\r\n".to_owned();
        }
        let name = if self.method == "tools/call" { "mcp-name: visible\r\n" } else { "" };
        format!("mcp-protocol-version: 2026-07-28\r\nmcp-method: {}\r\n{name}", self.method)
    }
}

struct Bench {
    runtime: Runtime,
    client: Client,
    server: Server,
    _gateway: Gateway,
}

impl Bench {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (gateway, client, server) = runtime.block_on(async {
            let server = Server::start().await;
            let settings = Settings {
                listen: ([127, 0, 0, 1], 0).into(),
                admin: None,
                audit: Sink::File("/dev/null".into()),
                allow_local_fetch: false,
                tracer: Tracer::off(),
                hosts: Vec::new(),
                tls: None,
                sole: None,
                memory: None,
            };
            let gateway = Gateway::start(settings).await.expect("it starts");
            let url = format!("http://{}/mcp", server.address);
            let config = upstream::Config::Http(http::Config { url, ca: None, reach: Reach::MACHINE });
            gateway.put_server("s", config).await.expect("a server");
            gateway.publish("s", Arc::new(Policy::from_json(POLICY.as_bytes()).expect("a policy")));
            let client = Client::new(gateway.address());
            (gateway, client, server)
        });
        Self { runtime, client, server, _gateway: gateway }
    }

    /// What the client gets: (is it an event stream, its bytes, is it of a stream where lists answer other requests).
    fn run(&mut self, case: Case, packets: usize, input: &[u8]) -> Vec<(bool, Vec<u8>, bool)> {
        let Self { runtime, client, server, .. } = self;
        let (first, replayed) = match input.windows(2).position(|pair| pair == [0xff, 0xff]) {
            Some(at) if case.late => (&input[..at], &input[at + 2..]),
            _ => (input, input),
        };
        let cut = |bytes: &[u8]| bytes.chunks(packets).map(<[u8]>::to_vec).collect();
        *server.script.lock() = Script { events: case.events, answer: cut(first), replayed: cut(replayed) };
        runtime.block_on(async {
            let mut headers = case.headers();
            if !case.modern {
                let hello =
                    r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"f","version":"1"}"#;
                let opened = client.send("POST", &headers, &case.message("initialize", 0, hello)).await;
                let session = opened.session.expect("a session");
                headers = format!("{headers}mcp-session-id: {session}\r\n");
            }
            let answer = client.send("POST", &headers, &case.message(case.method, 1, case.params)).await;
            let mut all = vec![(answer.events, answer.body, false)];
            if case.late {
                // A stream that ends without an answer.
                let cut = client.send("POST", &headers, &case.message("ping", 2, "")).await;
                all.push((cut.events, cut.body, true));
                let rest = client.send("GET", &headers, "").await;
                all.push((rest.events, rest.body, true));
            }
            if !case.modern {
                client.send("DELETE", &headers, "").await;
            }
            all
        })
    }
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// Checks one message as a client reads it.
fn check(message: &Json, case: Case, late: bool, reader: Reader) {
    let some = |key: &str| message.some(key, reader);
    assert_eq!(some("jsonrpc").and_then(Json::text).as_deref(), Some("2.0"), "{message:?}");
    let text = |value: &Json, key: &str| value.some(key, reader).and_then(Json::text);
    let params = some("params").cloned().unwrap_or(Json::Null);
    if let Some(method) = some("method").and_then(Json::text) {
        if some("id").is_some() {
            assert!(!case.modern, "a request in the modern era: {message:?}");
            asked(&method, &params, reader);
        } else {
            assert!(method.starts_with("notifications/"), "{message:?}");
            if method == "notifications/resources/updated" {
                assert!(text(&params, "uri").is_some_and(|uri| is_visible(&uri)), "{message:?}");
            }
            if method == "notifications/tasks" {
                inputs(&params, reader);
            }
        }
        assert!(some("result").is_none() && some("error").is_none(), "two messages in one: {message:?}");
        return;
    }
    let (result, error) = (some("result"), some("error"));
    assert!(result.is_some() != error.is_some(), "{message:?}");
    if let Some(error) = error {
        assert_ne!(error.some("code", reader), Some(&Json::Number(-32042.0)), "{message:?}");
        return;
    }
    let result = result.expect("checked above");
    let id = some("id");
    assert!(id == Some(&Json::Number(1.0)) || late || id == Some(&Json::Text(vec![0x31])), "{message:?}");
    inputs(result, reader);
    let list = |key: &str, name: &str, is_visible: fn(&str) -> bool| {
        let Some(Json::List(entries)) = result.some(key, reader) else { return };
        for entry in entries {
            let name = text(entry, name).unwrap_or_else(|| panic!("an entry without a name: {message:?}"));
            assert!(is_visible(&name), "{name} is not visible: {message:?}");
        }
    };
    let visible: fn(&str) -> bool = |name| name == "visible";
    if case.method == "tools/list" || late {
        list("tools", "name", visible);
    }
    if case.method == "prompts/list" || late {
        list("prompts", "name", visible);
    }
    if case.method == "resources/list" || late {
        list("resources", "uri", is_visible);
    }
}

/// Whether a resource may be seen; the case of a scheme does not count.
fn is_visible(uri: &str) -> bool {
    uri.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("visible:"))
}

/// What a server may ask.
fn asked(method: &str, params: &Json, reader: Reader) {
    match method {
        "ping" => {}
        "elicitation/create" => {
            let mode = params.get("mode", reader);
            assert!(mode.is_none_or(|mode| mode.text().as_deref() == Some("form")), "{params:?}");
        }
        _ => panic!("the server may not ask {method}"),
    }
}

/// What it may ask in an answer.
fn inputs(holder: &Json, reader: Reader) {
    match holder.some("inputRequests", reader) {
        None => {}
        Some(Json::Object(requests)) => {
            for (_, request) in requests {
                let method = request.some("method", reader).and_then(Json::text).unwrap_or_default();
                asked(&method, request.some("params", reader).unwrap_or(&Json::Null), reader);
            }
        }
        Some(other) => panic!("inputRequests that is no object: {other:?}"),
    }
}

/// Nothing of ours is in a `_meta`, at depths that clients read.
fn unforged(value: &Json, is_meta: bool, depth: usize) {
    match value {
        Json::Object(members) if depth < 60 => {
            for (key, value) in members {
                let key = String::from_utf16_lossy(key);
                assert!(!(is_meta && key.starts_with("toolgate.dev/")), "forged: {key}");
                unforged(value, key.eq_ignore_ascii_case("_meta"), depth + 1);
            }
        }
        Json::List(items) if depth < 60 => items.iter().for_each(|item| unforged(item, false, depth + 1)),
        _ => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let [what, cut, rest @ ..] = input else { return };
    let case = Case::of(*what);
    let answers = BENCH
        .with_borrow_mut(|bench| bench.get_or_insert_with(Bench::start).run(case, usize::from(*cut % 32) + 1, rest));
    for (events, body, late) in answers {
        let messages: Vec<String> = if events {
            let events = reference::events(&body);
            // A client that ignores names, or one that follows them, reads the same.
            assert!(events.iter().all(|event| event.is_message() || event.data.is_empty()), "{events:?}");
            events.into_iter().map(|event| event.data).filter(|data| !data.is_empty()).collect()
        } else if body.is_empty() {
            Vec::new()
        } else {
            vec![reference::decode(&body)]
        };
        for text in messages {
            let message = reference::parse(&text).unwrap_or_else(|| panic!("no JSON: {text}"));
            unforged(&message, false, 0);
            for reader in [Reader::Exact, Reader::Folded] {
                check(&message, case, late, reader);
            }
        }
    }
});
