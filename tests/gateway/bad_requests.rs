//! Bad requests: each gets its own clear error, and never reaches the server.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::Method;
use hyper::body::Frame;
use hyper::header::HeaderMap;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::MODERN;
use crate::support::{Client, Folder, Hostile, Toolgate, http};

struct Case {
    hostile: Hostile,
    toolgate: Toolgate,
}

impl Case {
    async fn start() -> Self {
        let hostile = Hostile::start(&[]);
        let toolgate = hostile.behind_gateway().await;
        Self { hostile, toolgate }
    }

    fn modern(&self) -> Client {
        self.toolgate.modern("h", "ada")
    }

    /// A modern call of `ok`, with the text of its arguments.
    fn call(arguments: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"ok","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        )
    }

    async fn post(&self, body: impl Into<Bytes>) -> http::Answer {
        let client = self.modern();
        http::send(Method::POST, &client.url, client.headers_for("tools/call", Some("ok")), body).await
    }

    async fn post_with(&self, change: impl FnOnce(&mut HeaderMap), body: impl Into<Bytes>) -> http::Answer {
        let client = self.modern();
        let mut headers = client.headers_for("tools/call", Some("ok"));
        change(&mut headers);
        http::send(Method::POST, &client.url, headers, body).await
    }

    fn nothing_arrived(&self) {
        assert!(!self.hostile.arrivals.contain("tools/call"), "{:?}", self.hostile.arrivals.messages());
    }
}

#[tokio::test]
async fn arguments_that_no_rule_reads_reach_the_server_as_they_came() {
    let case = Case::start().await;
    for arguments in [r#"{"Accept":1,"accept":{"x":"\ud800"}}"#, r#"{"\udfff":"\ud83d","a":"\ud83d\ude00"}"#] {
        case.post(Case::call(arguments)).await; // The fixture itself may refuse half a surrogate pair.
        assert!(case.hostile.arrivals.contain(arguments), "{:?}", case.hostile.arrivals.messages());
    }
}

#[tokio::test]
async fn arguments_that_a_server_may_read_otherwise_are_refused_where_a_rule_reads_them() {
    let hostile = Hostile::start(&[]);
    let path = json!([{"path": "/path", "in": ["a"]}]);
    let rules = json!([{"effect": "Allow", "servers": ["h"], "tools": ["ok"], "arguments": path}]);
    let folder = Folder::new().remote("h", &hostile.server.url).role("some", "engineering", &rules);
    let toolgate = Toolgate::start(folder).await;
    let client = toolgate.modern("h", "ada");
    let send = async |arguments: &str| {
        let headers = client.headers_for("tools/call", Some("ok"));
        http::send(Method::POST, &client.url, headers, Case::call(arguments)).await
    };
    for arguments in [r#"{"path":"a","Path":"b"}"#, r#"{"x":1,"X":2,"path":"a"}"#, r#"{"path":"\ud800"}"#] {
        send(arguments).await.refused(200, -31001, "where a rule reads");
        assert!(!hostile.arrivals.contain(arguments), "{arguments}");
    }
    let elsewhere = r#"{"path":"a","other":{"x":1,"X":"2"}}"#;
    assert!(send(elsewhere).await.text().starts_with("ok"));
    assert!(hostile.arrivals.contain(elsewhere));
}

#[tokio::test]
async fn malformed_messages_are_refused_by_kind_and_never_reach_the_server() {
    let case = Case::start().await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let good = Case::call("{}");
    let cases: &[(&str, Bytes, u16, i64, &str)] = &[
        ("not JSON", "{\"jsonrpc\":".into(), 400, -32700, ""),
        ("empty", "".into(), 400, -32700, ""),
        ("two values", format!("{good}{good}").into(), 400, -32700, ""),
        (
            "invalid UTF-8",
            Bytes::from([b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"", &[0xff, 0xfe][..], b"\"}"].concat()),
            400,
            -32700,
            "UTF-8",
        ),
        ("too deep", Case::call(&deep).into(), 400, -32700, "64"),
        ("duplicate key", good.replacen("\"id\":1,", "\"id\":1,\"id\":2,", 1).into(), 400, -32700, "id"),
        (
            "duplicate name",
            good.replacen("\"name\":\"ok\"", "\"name\":\"ok\",\"name\":\"secret\"", 1).into(),
            400,
            -32700,
            "name",
        ),
        (
            "escaped duplicate",
            good.replacen("\"name\":\"ok\"", "\"name\":\"ok\",\"n\\u0061me\":\"secret\"", 1).into(),
            400,
            -32700,
            "name",
        ),
        ("duplicate argument", Case::call(r#"{"x":{"a":1,"\u0061":2}}"#).into(), 400, -32700, "duplicate"),
        (
            "name in another case",
            good.replacen("\"name\":\"ok\"", "\"name\":\"ok\",\"Name\":\"secret\"", 1).into(),
            400,
            -32700,
            "case",
        ),
        (
            "half a pair in a name",
            good.replacen("\"name\":\"ok\"", "\"name\":\"\\ud800\"", 1).into(),
            400,
            -32700,
            "half",
        ),
        ("batch", format!("[{good}]").into(), 400, -32600, ""),
        ("a number", "1".into(), 400, -32600, ""),
        ("no method and no id", r#"{"jsonrpc":"2.0"}"#.into(), 400, -32600, ""),
        (
            "params is a list",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["ok"]}"#.into(),
            400,
            -32602,
            "",
        ),
        ("name is a number", good.replacen("\"name\":\"ok\"", "\"name\":7", 1).into(), 400, -32602, "name"),
        ("name is missing", good.replacen("\"name\":\"ok\",", "", 1).into(), 400, -32602, "name"),
    ];
    for (what, body, status, code, words) in cases {
        let client = case.modern();
        let mut headers = client.headers_for("tools/call", Some("ok"));
        if what.starts_with("name is") {
            headers.remove("mcp-name");
        }
        let answer = http::send(Method::POST, &client.url, headers, body.clone()).await;
        let error = answer.response()["error"].clone();
        assert_eq!((answer.status, error["code"].as_i64()), (*status, Some(*code)), "{what}: {answer}");
        let message = error["message"].as_str().unwrap_or_default().to_lowercase();
        assert!(message.contains(&words.to_lowercase()), "{what}: {message:?} does not contain {words:?}");
    }
    case.nothing_arrived();
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_its_length_is_declared_or_not() {
    let case = Case::start().await;
    let body = Case::call(&format!("{:?}", "x".repeat(4 << 20)));

    case.post(body.clone()).await.refused(413, -31008, "4194304");

    let client = case.modern();
    let chunks = body.into_bytes().chunks(64 << 10).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let frames = futures::stream::iter(chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))));
    let headers = client.headers_for("tools/call", Some("ok"));
    // The gateway may close before all is sent; an answer that came is the right one.
    if let Ok(stream) = http::open_body(Method::POST, &client.url, headers, StreamBody::new(frames)).await {
        stream.rest().await.refused(413, -31008, "4194304");
    }
    case.nothing_arrived();
}

#[tokio::test]
async fn headers_over_the_limit_are_431() {
    let case = Case::start().await;
    for kilobytes in [33, 40, 200] {
        let large = "y".repeat(kilobytes << 10);
        let answer =
            case.post_with(|headers| drop(headers.insert("x-large", large.parse().unwrap())), Case::call("{}")).await;
        assert_eq!(answer.status, 431, "{kilobytes} KiB: {answer}");
    }
    case.nothing_arrived();
    let fits = "y".repeat(20 << 10);
    let answer =
        case.post_with(|headers| drop(headers.insert("x-large", fits.parse().unwrap())), Case::call("{}")).await;
    assert_eq!(answer.status, 200, "{answer}");
}

#[tokio::test]
async fn another_content_type_is_415() {
    let case = Case::start().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let answer = case
            .post_with(|headers| drop(headers.insert("content-type", kind.parse().unwrap())), Case::call("{}"))
            .await;
        answer.refused(415, -31008, "application/json");
    }
    case.post_with(|headers| drop(headers.remove("content-type")), Case::call("{}")).await.refused(
        415,
        -31008,
        "Content-Type",
    );
    let zipped = case
        .post_with(|headers| drop(headers.insert("content-encoding", "gzip".parse().unwrap())), Case::call("{}"))
        .await;
    zipped.refused(415, -31008, "Content-Encoding");
    case.nothing_arrived();
}

#[tokio::test]
async fn headers_that_disagree_with_the_body_are_refused() {
    let case = Case::start().await;
    let set = |name: &'static str, value: &'static str| {
        move |headers: &mut HeaderMap| {
            headers.insert(name, value.parse().unwrap());
        }
    };
    let body = || Case::call("{}");
    case.post_with(set("mcp-name", "slow"), body()).await.refused(400, -32020, "Mcp-Name");
    case.post_with(set("mcp-name", "OK"), body()).await.refused(400, -32020, "Mcp-Name");
    case.post_with(set("mcp-name", "=?base64?%%%?="), body()).await.refused(400, -32020, "Mcp-Name");
    case.post_with(set("mcp-method", "tools/list"), body()).await.refused(400, -32020, "Mcp-Method");
    case.post_with(|headers| drop(headers.remove("mcp-method")), body()).await.refused(400, -32020, "Mcp-Method");
    case.post_with(|headers| drop(headers.remove("mcp-name")), body()).await.refused(400, -32020, "Mcp-Name");
    case.post_with(set("mcp-protocol-version", "2025-11-25"), body()).await.refused(
        400,
        -32020,
        "MCP-Protocol-Version",
    );
    case.post_with(|headers| drop(headers.remove("mcp-protocol-version")), body()).await.refused(400, -32020, "");
    case.post_with(|headers| assert!(headers.append("mcp-name", "ok".parse().unwrap())), body())
        .await
        .refused(400, -32020, "repeated");
    let unknown = case.post_with(set("mcp-protocol-version", "2099-01-01"), body().replace(MODERN, "2099-01-01")).await;
    let unknown = unknown.refused(400, -32022, "2099-01-01");
    assert!(unknown["data"]["supported"].as_array().is_some_and(|all| all.contains(&json!(MODERN))), "{unknown}");
    case.nothing_arrived();

    // The sentinel form of the same name agrees.
    assert_eq!(case.post_with(set("mcp-name", "=?base64?b2s=?="), body()).await.text(), "ok {}");
}

#[tokio::test]
async fn an_unknown_method_is_refused_in_both_eras() {
    let case = Case::start().await;
    let (modern, legacy) = (case.modern(), case.toolgate.legacy("h", "ada").await);
    for method in ["tools/Call", "sampling/createMessage", "admin/reset", "tools/call/"] {
        modern.request(method, json!({"name": "ok"})).await.refused(404, -32601, method);
        legacy.request(method, json!({"name": "ok"})).await.refused(200, -32601, method);
        assert!(!case.hostile.arrivals.contain(method), "{method}");
    }
    for removed in ["ping", "logging/setLevel", "resources/subscribe"] {
        modern.request(removed, json!({})).await.refused(404, -32601, removed);
    }
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_403() {
    let case = Case::start().await;
    let set = |name: &'static str, value: &'static str| {
        move |headers: &mut HeaderMap| {
            headers.insert(name, value.parse().unwrap());
        }
    };
    for host in ["evil.example", "127.0.0.1.evil.example", "evil.example:8811"] {
        case.post_with(set("host", host), Case::call("{}")).await.refused(403, -31008, "Host");
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        case.post_with(set("origin", origin), Case::call("{}")).await.refused(403, -31008, "Origin");
    }
    case.nothing_arrived();
    assert_eq!(case.post_with(set("origin", "http://localhost:3000"), Case::call("{}")).await.status, 200);
}

#[tokio::test]
async fn other_paths_and_verbs_are_refused() {
    let case = Case::start().await;
    let (base, client) = (case.toolgate.base(), case.modern());
    for path in ["/", "/servers/h", "/servers/h/mcp/", "/servers/absent/mcp", "/servers/../h/mcp", "/admin"] {
        let answer = http::send(Method::POST, &format!("{base}{path}"), client.headers(), Case::call("{}")).await;
        assert_eq!(answer.status, 404, "{path}: {answer}");
    }
    for method in [Method::PUT, Method::PATCH, Method::OPTIONS] {
        let answer = http::send(method.clone(), &client.url, client.headers(), "").await;
        assert_eq!(answer.status, 405, "{method}: {answer}");
        assert!(answer.header("allow").contains("POST"), "{method}");
    }
    case.nothing_arrived();
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_408() {
    let case = Case::start().await;
    let client = case.modern();
    let authority = client.url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let mut connection = tokio::net::TcpStream::connect(&authority).await.unwrap();
    let token = client.token.unwrap();
    let head = format!(
        "POST /servers/h/mcp HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"jsonrpc\":"
    );
    connection.write_all(head.as_bytes()).await.unwrap();

    let mut answer = String::new();
    tokio::time::timeout(http::PATIENCE, connection.read_to_string(&mut answer))
        .await
        .expect("the gateway gives up")
        .unwrap();

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("-31008") && answer.contains("in time"), "{answer}");
    case.nothing_arrived();
}
