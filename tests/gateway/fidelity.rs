//! Same-era traffic passes byte for byte but for what policy changes: key order, unknown fields, large integers,
//! exponents, `_meta`, unknown content types; over HTTP (JSON and events) and stdio, in both directions.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::support::client::{LEGACY, MODERN};
use crate::support::{Arrivals, Client, Folder, Hostile, Toolgate, http};

/// The text of a message's id, a slice of the message.
fn id_text(message: &str) -> Option<&str> {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow)]
        id: Option<&'a RawValue>,
    }
    serde_json::from_str::<Id<'_>>(message).expect("a message").id.map(RawValue::get)
}

/// A message whose id's text is replaced: on a connection that callers share, the gateway gives ids of its own.
fn without_id(message: &str) -> String {
    let Some(id) = id_text(message) else { return message.to_owned() };
    let at = id.as_ptr() as usize - message.as_ptr() as usize;
    format!("{}@ID@{}", &message[..at], &message[at + id.len()..])
}

/// One server and the way in which its messages are compared.
struct Lane {
    name: &'static str,
    client: Client,
    arrivals: Arrivals,
    replay: std::path::PathBuf,
    /// Ids are the gateway's own there.
    shared: bool,
    events: bool,
}

impl Lane {
    /// Sends a request, has the server answer with exactly these bytes, and compares what arrived on both sides.
    async fn exchange(
        &self,
        key: &str,
        method: &str,
        name: Option<&str>,
        request: &str,
        response: &str,
    ) -> Result<(), String> {
        let recorded = if self.events {
            // A comment, an unknown field and CRLF must not disturb the message.
            format!(": hello\n\nevent: message\ndata: {response}\nx-unknown: 1\n\n")
        } else {
            format!("{response}\n")
        };
        std::fs::write(self.replay.join(key), recorded).expect("the folder is writable");
        let mut headers = self.client.headers_for(method, name);
        if self.client.version == LEGACY && method == "initialize" {
            headers.remove("mcp-session-id");
        }
        let answer = http::send(hyper::Method::POST, &self.client.url, headers, request.to_owned()).await;

        let id = id_text(request).unwrap_or_default();
        let expected = response.replace("@ID@", id);
        let messages = answer.messages();
        let got =
            messages.last().map(|it| String::from_utf8_lossy(it).trim_end_matches('\n').to_owned()).unwrap_or_default();
        same(self.name, "answer", &expected, &got)?;

        let arrived = self.arrivals.messages();
        let compare = |message: &String| if self.shared { without_id(message) } else { message.clone() };
        let sent = compare(&request.to_owned());
        let last = arrived.iter().rev().find(|it| it.contains(method)).map(compare).unwrap_or_default();
        same(self.name, "request", &sent, &last)
    }
}

fn same(lane: &str, what: &str, expected: &str, got: &str) -> Result<(), String> {
    if expected == got {
        Ok(())
    } else {
        Err(format!("{lane}: the {what} changed\nexpected {expected}\ngot      {got}"))
    }
}

struct Lanes {
    all: Vec<Lane>,
    _hostiles: Vec<Hostile>,
    _toolgate: Toolgate,
}

impl Lanes {
    async fn start() -> Self {
        let (json, events) = (Hostile::start(&[]), Hostile::start(&[]));
        let folder = Folder::new();
        let (log, replay) = (folder.scratch("stdio.log"), folder.scratch("stdio-replay"));
        std::fs::create_dir(&replay).expect("a folder");
        let flags = ["--log", log.to_str().unwrap(), "--replay", replay.to_str().unwrap()].map(str::to_owned);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let folder = folder
            .remote("json", &json.server.url)
            .remote("events", &events.server.url)
            .hostile_stdio("stdio", &flags, json!({"registration": "Auto", "sessions": "PerClient"}))
            .all_for_ada();
        let toolgate = Toolgate::start(folder).await;
        let arrivals = |path: &Path| Arrivals::at(path);
        let mut lanes = Vec::new();
        for (name, server, from) in
            [("JSON", "json", Some(&json)), ("events", "events", Some(&events)), ("stdio", "stdio", None)]
        {
            for client in [toolgate.modern(server, "ada"), toolgate.legacy(server, "ada").await] {
                lanes.push(Lane {
                    name,
                    client,
                    arrivals: from.map_or_else(|| arrivals(&log), |hostile| Arrivals::at(hostile.log())),
                    replay: from.map_or_else(|| replay.clone(), |hostile| hostile.replay.clone()),
                    shared: from.is_none(),
                    events: server == "events",
                });
            }
        }
        Self { all: lanes, _hostiles: vec![json, events], _toolgate: toolgate }
    }
}

/// JSON text that parsers like to change.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|it| it.to_string()),
        "[1-9][0-9]{22}",
        "-?[1-9]\\.[0-9]{1,3}0",
        Just("1e2".to_owned()),
        Just("1E+2".to_owned()),
        Just("-0".to_owned()),
        Just("0.10".to_owned()),
    ];
    let text = prop_oneof![
        "[ -!#-\\[\\]-~]{0,12}".prop_map(|it| format!("\"{it}\"")),
        Just(r#""\u00e9\/\u0001\"\\""#.to_owned()),
        Just("\"h\u{e9}llo \u{1f310}\u{2028}\"".to_owned()),
        Just(r#""\ud83c\udf10""#.to_owned()),
    ];
    let leaf = prop_oneof![
        number,
        text,
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("{ }".to_owned())
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(", ")));
        let object = prop::collection::btree_map("[a-z$_/]{1,6}", inner, 0..4).prop_shuffle_members();
        prop_oneof![list, object]
    })
}

trait Members: Strategy<Value = std::collections::BTreeMap<String, String>> + Sized + 'static {
    /// The text of an object with these members in any order.
    fn prop_shuffle_members(self) -> BoxedStrategy<String> {
        let pairs =
            self.prop_map(|all| all.into_iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect::<Vec<_>>());
        pairs.prop_shuffle().prop_map(|all| format!("{{{}}}", all.join(","))).boxed()
    }
}
impl<S: Strategy<Value = std::collections::BTreeMap<String, String>> + Sized + 'static> Members for S {}

/// An object of these members, in any order.
fn shuffled(members: Vec<String>) -> impl Strategy<Value = String> {
    Just(members).prop_shuffle().prop_map(|all| format!("{{{}}}", all.join(",")))
}

/// A request and the answer to it; `@META@` stands for the era's own members of `_meta`.
fn exchange() -> impl Strategy<Value = (String, String)> {
    let id = prop_oneof![
        (0u32..1_000_000).prop_map(|it| it.to_string()),
        Just("\"\\u0061 b\"".to_owned()),
        Just("12345678901234567".to_owned())
    ];
    let request = (id, value(), value(), value(), value()).prop_flat_map(|(id, argument, meta, extra, odd)| {
        let arguments = format!(r#"{{"z":{argument},"replay":"case","a":{odd}}}"#);
        let params = vec![
            r#""name":"replay""#.to_owned(),
            format!(r#""arguments":{arguments}"#),
            format!(r#""_meta":{{"z.example/m":{meta}@META@}}"#),
            format!(r#""unknown":{extra}"#),
        ];
        shuffled(params).prop_flat_map(move |params| {
            shuffled(vec![
                r#""jsonrpc":"2.0""#.to_owned(),
                format!(r#""id": {id}"#),
                r#""method":"tools/call""#.to_owned(),
                format!(r#""params":{params}"#),
                format!(r#""extension" : {extra}"#),
            ])
        })
    });
    let response = (value(), value(), value()).prop_flat_map(|(content, structured, meta)| {
        let result = vec![
            format!(
                r#""content":[{{"type":"hologram","data":{content}}},{{"type":"text","text":"x","extra":{meta}}}]"#
            ),
            r#""resultType":"complete""#.to_owned(),
            format!(r#""structuredContent":{structured}"#),
            format!(r#""_meta":{{"example.com/z":{meta},"example.com/a":1e2}}"#),
        ];
        shuffled(result).prop_flat_map(|result| {
            shuffled(vec![r#""jsonrpc":"2.0""#.to_owned(), r#""id":@ID@"#.to_owned(), format!(r#""result": {result}"#)])
        })
    });
    (request, response)
}

#[test]
fn generated_messages_pass_byte_for_byte() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lanes = runtime.block_on(Lanes::start());
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&exchange(), |(request, response)| {
        for lane in &lanes.all {
            let own = if lane.client.version == MODERN {
                r#","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/protocolVersion":"2026-07-28""#
            } else {
                ""
            };
            let request = request.replace("@META@", own);
            let done = runtime.block_on(lane.exchange("case", "tools/call", Some("replay"), &request, &response));
            done.map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn recorded_messages_pass_byte_for_byte() {
    #[derive(Deserialize)]
    struct Recorded {
        request: String,
        response: String,
    }
    let lanes = Lanes::start().await;
    let text = include_str!("recorded/server-everything.jsonl");
    let recorded: Vec<Recorded> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(recorded.len() > 15);
    for lane in lanes.all.iter().filter(|lane| lane.client.version == LEGACY) {
        for exchange in &recorded {
            let request = http::parse(exchange.request.as_bytes());
            let method = request["method"].as_str().unwrap();
            if method == "initialize" && lane.shared {
                continue; // The gateway itself initializes a child.
            }
            let response = without_id(&exchange.response);
            let key = method.replace('/', "_");
            lane.exchange(&key, method, None, &exchange.request, &response)
                .await
                .unwrap_or_else(|error| panic!("{error}"));
            std::fs::remove_file(lane.replay.join(&key)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_filtered_list_keeps_the_bytes_of_its_entries() {
    let hostile = Hostile::start(&[]);
    let folder = Folder::new().remote("h", &hostile.server.url).role(
        "some",
        "engineering",
        &json!([{"effect": "Allow", "servers": ["h"], "tools": ["first", "third"]}]),
    );
    let first =
        r#"{"x-unknown":12345678901234567890123,"name":"first","inputSchema":{"type":"object","b":1e2,"a":0.10}}"#;
    let second = r#"{"name":"second","inputSchema":{"type":"object"}}"#;
    let third = r#"{ "inputSchema" : {"type":"object"}, "n\u0061me":"third" }"#;
    let list = |entries: &str| {
        format!(
            r#"{{"result":{{"x":1,"tools":[{entries}],"ttlMs":0,"cacheScope":"private","resultType":"complete"}},"jsonrpc":"2.0","id":@ID@}}"#
        )
    };
    std::fs::write(hostile.replay.join("tools_list"), list(&[first, second, third].join(","))).unwrap();
    let toolgate = Toolgate::start(folder).await;

    let answer = toolgate.modern("h", "ada").request("tools/list", json!({})).await;

    let id = answer.response()["id"].to_string();
    assert_eq!(String::from_utf8_lossy(&answer.body), list(&[first, third].join(",")).replace("@ID@", &id));
}
