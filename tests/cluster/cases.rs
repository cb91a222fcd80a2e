//! One object on either side of every CEL rule of the definitions, as data: nothing but JSON.
//!
//! Read by two tiers: the unit tests of `src/api` evaluate the rules here and now, and hold the table complete; the
//! tests beside this file ask the API server.

#![allow(clippy::needless_pass_by_value)] // Cases read better with `json!` in place.

use serde_json::{Value, json};

/// One rule: kind, its message, an object that holds and one that breaks it (both as the `spec`).
pub(crate) struct Case {
    pub(crate) kind: &'static str,
    pub(crate) message: &'static str,
    pub(crate) holds: Value,
    pub(crate) breaks: Value,
}

fn server(container: Value) -> Value {
    let mut container = container;
    container["image"] = "x".into();
    json!({"source": {"container": container}})
}

/// An object with further members.
fn with(mut object: Value, members: Value) -> Value {
    object.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    object
}

fn remote(members: Value) -> Value {
    with(json!({"source": {"remote": {"url": "https://a"}}}), members)
}

fn rule(members: Value) -> Value {
    json!({"rules": [with(json!({"effect": "Allow", "servers": ["a"], "tools": ["b"]}), members)]})
}

fn tool(members: Value) -> Value {
    with(json!({"serverRef": {"name": "a"}, "toolName": "b"}), members)
}

fn issuers(urls: &[&str]) -> Value {
    let issuers: Vec<Value> =
        urls.iter().enumerate().map(|(i, url)| json!({"name": format!("i{i}"), "oidc": {"url": url}})).collect();
    json!({"issuers": issuers})
}

fn jwks(jwks: Value) -> Value {
    json!({"issuers": [{"name": "a", "oidc": {"url": "https://a", "jwks": jwks}}]})
}

#[rustfmt::skip]
pub(crate) fn cases() -> Vec<Case> {
    let case = |kind, message, holds, breaks| Case { kind, message, holds, breaks };
    let stdio = |more: Value| server(with(json!({"transport": "Stdio", "command": ["x"]}), more));
    let window = |start, end| rule(json!({"timeWindow": {"start": start, "end": end, "timeZone": "UTC"}}));
    let argument = |condition: Value| rule(json!({"arguments": [with(json!({"path": "/a"}), condition)]}));
    let subject = |subject| json!({"subjects": [subject]});
    let bundle = json!({"configMapRef": {"name": "a", "key": "ca.crt"}});
    vec![
        case("McpServer", "exactly one of container, service and remote", stdio(json!({})), json!({"source": {}})),
        case("McpServer", "exactly one of container, service and remote", json!({"source": {"remote": {"url": "https://a"}}}),
            json!({"source": {"remote": {"url": "https://a"}, "container": {"image": "x", "transport": "Stdio", "command": ["x"]}}})),
        case("McpServer", "exactly one of container, service and remote", json!({"source": {"service": {"name": "a", "port": 80}}}),
            json!({"source": {"service": {"name": "a", "port": 80}, "remote": {"url": "https://a"}}})),
        case("McpServer", "caBundle has a meaning only", json!({"source": {"remote": {"url": "https://a", "caBundle": bundle}}}),
            json!({"source": {"remote": {"url": "http://localhost", "caBundle": bundle}}})),
        case("McpServer", "caBundle has a meaning only", json!({"source": {"remote": {"url": "https://a:8443/mcp", "caBundle": bundle}}}),
            json!({"source": {"remote": {"url": "http://localhost:80/", "caBundle": bundle}}})),
        case("McpServer", "sandbox.filesystem and sandbox.isolation", remote(json!({"sandbox": {"runtimeClassName": "gvisor"}})),
            remote(json!({"sandbox": {"filesystem": "Scratch"}}))),
        case("McpServer", "sandbox.filesystem and sandbox.isolation", with(stdio(json!({})), json!({"sandbox": {"filesystem": "Scratch"}})),
            remote(json!({"sandbox": {"isolation": "NetworkPolicy"}}))),
        case("McpServer", "have a meaning only with source.container", remote(json!({"sandbox": {"egress": []}})),
            remote(json!({"sandbox": {"isolation": "Process"}}))),
        case("McpServer", "must be an IPv4 or IPv6 prefix", remote(json!({"sandbox": {"egress": [{"cidr": "2001:db8::/32"}, {"cidr": "10.0.0.0/8"}]}})),
            remote(json!({"sandbox": {"egress": [{"cidr": "10.0.0.1"}]}}))),
        case("McpServer", "must be an IPv4 or IPv6 prefix", with(stdio(json!({})), json!({"sandbox": {"egress": [{"cidr": "140.82.112.0/20", "port": 443}]}})),
            with(stdio(json!({})), json!({"sandbox": {"egress": [{"cidr": "140.82.112.0"}]}}))),
        case("McpServer", "seconds is required with mode DenyAfter", remote(json!({"disconnectedPolicy": {"mode": "DenyAfter", "seconds": 30}})),
            remote(json!({"disconnectedPolicy": {"mode": "DenyAfter"}}))),
        case("McpServer", "seconds is required with mode DenyAfter", remote(json!({"disconnectedPolicy": {"mode": "KeepLastKnownGood"}})),
            remote(json!({"disconnectedPolicy": {"mode": "KeepLastKnownGood", "seconds": 30}}))),
        case("McpServer", "command is required", stdio(json!({})), server(json!({"transport": "Stdio"}))),
        case("McpServer", "port is required", server(json!({"transport": "StreamableHttp", "port": 80})), server(json!({"transport": "StreamableHttp"}))),
        case("McpServer", "port and path have no meaning", stdio(json!({"args": ["y"]})), stdio(json!({"port": 80}))),
        case("McpServer", "port and path have no meaning", stdio(json!({})), stdio(json!({"path": "/mcp"}))),
        case("McpServer", "sessions has a meaning only", stdio(json!({"sessions": "Shared"})),
            server(json!({"transport": "StreamableHttp", "port": 80, "sessions": "Shared"}))),
        case("McpServer", "must be an https URL", json!({"source": {"remote": {"url": "http://localhost:8000/mcp"}}}),
            json!({"source": {"remote": {"url": "http://example.com/mcp"}}})),
        case("McpServer", "must be an https URL", json!({"source": {"remote": {"url": "http://[::1]:80/"}}}),
            json!({"source": {"remote": {"url": "https://user@example.com/"}}})),
        case("McpServer", "must be an https URL", json!({"source": {"remote": {"url": "https://example.com:8443/a?b=c"}}}),
            json!({"source": {"remote": {"url": "http://localhost:80@example.com/"}}})),
        case("McpTool", "deprecation has an effect only", tool(json!({"lifecycle": "Deprecated", "deprecation": {"message": "m"}})),
            tool(json!({"deprecation": {"message": "m"}}))),
        case("McpTool", "readOnly cannot be destructive", tool(json!({"annotations": {"readOnly": true, "destructive": false}})),
            tool(json!({"annotations": {"readOnly": true, "destructive": true}}))),
        case("McpRole", "readOnly cannot be destructive", rule(json!({"toolSelector": {"annotations": {"readOnly": true}}})),
            rule(json!({"toolSelector": {"annotations": {"readOnly": true, "destructive": true}}}))),
        case("McpRole", "at which servers", json!({"rules": [{"effect": "Deny", "serverSelector": {"matchLabels": {"a": "b"}}, "tools": ["b"]}]}),
            json!({"rules": [{"effect": "Allow", "tools": ["b"]}]})),
        case("McpRole", "what it is about", json!({"rules": [{"effect": "Allow", "servers": ["a"], "resources": ["b"]}]}),
            json!({"rules": [{"effect": "Allow", "servers": ["a"]}]})),
        case("McpRole", "claim and values are required", subject(json!({"kind": "Claim", "claim": "c", "values": ["v"]})),
            subject(json!({"kind": "Claim", "claim": "c"}))),
        case("McpRole", "claim and values are required", subject(json!({"kind": "Group", "name": "g"})),
            subject(json!({"kind": "Group", "name": "g", "claim": "c"}))),
        case("McpRole", "name is required", subject(json!({"kind": "Scope", "name": "s", "issuer": "i"})), subject(json!({"kind": "User"}))),
        case("McpRole", "name is required", subject(json!({"kind": "User", "name": "s"})),
            subject(json!({"kind": "Claim", "claim": "c", "values": ["v"], "name": "n"}))),
        case("McpRole", "namespace is required", subject(json!({"kind": "ServiceAccount", "name": "s", "namespace": "n"})),
            subject(json!({"kind": "ServiceAccount", "name": "s"}))),
        case("McpRole", "namespace is required", subject(json!({"kind": "User", "name": "s"})),
            subject(json!({"kind": "User", "name": "s", "namespace": "n"}))),
        case("McpRole", "must say what is permitted", argument(json!({"in": ["x", 1]})), argument(json!({}))),
        case("McpRole", "must not be above maximum", argument(json!({"minimum": 1, "maximum": 1})), argument(json!({"minimum": 2, "maximum": 1}))),
        case("McpRole", "cannot be combined", argument(json!({"below": ["/a"]})), argument(json!({"below": ["/a"], "in": ["/a/b"]}))),
        case("McpRole", "start and end must differ", window("22:00", "06:00"), window("09:00", "09:00")),
        case("McpGateway", "must be an https URL", json!({"url": "https://mcp.example.com/mcp"}), json!({"url": "ftp://example.com"})),
        case("McpGateway", "must be an https URL", issuers(&["http://127.0.0.1:9/"]), issuers(&["http://idp.example.com"])),
        case("McpGateway", "must be an https URL", jwks(json!({"url": "https://a/jwks"})), jwks(json!({"url": "http://a/jwks"}))),
        case("McpGateway", "same oidc.url", issuers(&["https://a", "https://b"]), issuers(&["https://a", "https://a"])),
        case("McpGateway", "same oidc.url", json!({"issuers": [{"name": "a", "oidc": {"url": "https://a"}}, {"name": "b", "serviceAccounts": {}}]}),
            issuers(&["https://a", "https://b", "https://a"])),
        case("McpGateway", "exactly one of url, inline and configMapRef", jwks(json!({"inline": "{}"})), jwks(json!({}))),
        case("McpGateway", "exactly one of url, inline and configMapRef", jwks(json!({"url": "https://a"})), jwks(json!({"url": "https://a", "inline": "{}"}))),
        case("McpGateway", "exactly one of url, inline and configMapRef", jwks(bundle.clone()),
            jwks(with(bundle.clone(), json!({"inline": "{}"})))),
        case("McpGateway", "exactly one of url, inline and configMapRef", jwks(bundle.clone()),
            jwks(with(bundle.clone(), json!({"url": "https://a"})))),
        case("McpGateway", "exactly one of oidc and serviceAccounts", json!({"issuers": [{"name": "a", "serviceAccounts": {}}]}),
            json!({"issuers": [{"name": "a", "serviceAccounts": {}, "oidc": {"url": "https://a"}}]})),
        case("McpGateway", "exactly one of oidc and serviceAccounts", issuers(&["https://a"]), json!({"issuers": [{"name": "a"}]})),
        case("McpGateway", "two issuers are the cluster's", json!({"issuers": [{"name": "a", "serviceAccounts": {}}, {"name": "b", "oidc": {"url": "https://b"}}]}),
            json!({"issuers": [{"name": "a", "serviceAccounts": {}}, {"name": "b", "serviceAccounts": {}}]})),
        case("McpGateway", "two issuers are the cluster's", json!({"issuers": [{"name": "a", "serviceAccounts": {}}]}),
            json!({"issuers": [{"name": "a", "oidc": {"url": "https://a"}}, {"name": "b", "serviceAccounts": {}}, {"name": "c", "serviceAccounts": {}}]})),
        case("McpGateway", "roleRef is required", json!({"anonymous": {"mode": "Role", "roleRef": {"name": "r"}}}), json!({"anonymous": {"mode": "Role"}})),
        case("McpGateway", "roleRef is required", json!({}), json!({"anonymous": {"roleRef": {"name": "r"}}})),
    ]
}

/// One rule about a change: an object as it was, a change that the rule permits and one that it forbids.
pub(crate) struct Change {
    pub(crate) kind: &'static str,
    pub(crate) message: &'static str,
    pub(crate) before: Value,
    pub(crate) holds: Value,
    pub(crate) breaks: Value,
}

/// A case, or more, for each rule that compares with the object as it was.
pub(crate) fn changes() -> Vec<Change> {
    let change = |message, breaks| {
        let (before, holds) = (tool(json!({})), tool(json!({"title": "t"})));
        Change { kind: "McpTool", message, before, holds, breaks }
    };
    vec![
        change("toolName is immutable", tool(json!({"toolName": "c"}))),
        change("serverRef is immutable", tool(json!({"serverRef": {"name": "c"}}))),
    ]
}

/// One rule about the name of an object: names that are permitted and names that are not.
pub(crate) struct Naming {
    pub(crate) kind: &'static str,
    pub(crate) message: &'static str,
    pub(crate) spec: Value,
    pub(crate) holds: Vec<String>,
    pub(crate) breaks: Vec<String>,
}

/// A case, or more, for each rule about names.
pub(crate) fn namings() -> Vec<Naming> {
    let name = |text: &str| text.to_owned();
    vec![Naming {
        kind: "McpServer",
        message: "a Service will bear it",
        spec: json!({"source": {"remote": {"url": "https://a"}}}),
        holds: vec![name("github"), "a".repeat(63)],
        breaks: vec![name("a.b"), name("1a"), "a".repeat(64)],
    }]
}
