//! The shipped definitions: structural, bounded, free of drift, and every CEL rule with a case on either side.

#![allow(clippy::needless_pass_by_value)] // Cases read better with `json!` in place.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::schema::{Definition, FILES, definitions};

fn definition(kind: &str) -> Definition {
    definitions().into_iter().find(|definition| definition.kind == kind).unwrap()
}

/// Visits every schema below this one, with its path.
fn walk<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(values, &format!("{path}{{}}"), visit);
    }
}

fn each_schema(mut visit: impl FnMut(&str, &Value)) {
    for definition in definitions() {
        walk(definition.schema(), &definition.kind, &mut |path, schema| visit(path, schema));
    }
}

#[test]
fn every_schema_is_structural() {
    let keywords = BTreeSet::from([
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ]);
    let formats = BTreeSet::from(["int32", "int64", "date-time"]);
    each_schema(|path, schema| {
        for keyword in schema.as_object().unwrap().keys() {
            assert!(keywords.contains(keyword.as_str()), "{path}: {keyword}");
        }
        let either = schema["x-kubernetes-int-or-string"] == json!(true);
        assert!(schema["type"].is_string() != either, "{path}: exactly one of type and int-or-string");
        assert!(schema["format"].is_null() || formats.contains(schema["format"].as_str().unwrap()), "{path}");
        assert!(
            schema.get("properties").is_none() || schema.get("additionalProperties").is_none(),
            "{path}: properties and additionalProperties exclude each other"
        );
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"].get(required.as_str().unwrap()).is_some(), "{path}: {required}");
        }
    });
}

#[test]
fn every_string_list_and_map_is_bounded_and_every_list_states_its_type() {
    each_schema(|path, schema| match schema["type"].as_str() {
        Some("string") if schema.get("enum").is_none() && schema.get("format").is_none() => {
            assert!(schema["maxLength"].is_u64(), "{path}");
        }
        Some("array") => {
            assert!(schema["maxItems"].is_u64(), "{path}");
            let list = schema["x-kubernetes-list-type"].as_str().unwrap_or_else(|| panic!("{path}: no list type"));
            if list == "map" {
                for key in schema["x-kubernetes-list-map-keys"].as_array().unwrap() {
                    assert!(schema["items"]["required"].as_array().unwrap().contains(key), "{path}: key {key}");
                }
            }
            if list == "set" {
                assert_eq!(schema["items"]["type"], "string", "{path}: a set holds scalars");
            }
        }
        Some("object") if schema.get("additionalProperties").is_some() => {
            assert!(schema["maxProperties"].is_u64(), "{path}");
        }
        _ => {}
    });
}

#[test]
fn every_field_is_documented() {
    for definition in definitions() {
        walk(definition.schema(), &definition.kind, &mut |path, schema| {
            let item = path.ends_with(']') || path.ends_with('}');
            assert!(item || schema["description"].as_str().is_some_and(|text| text.len() > 10), "{path}");
        });
    }
}

/// The documentation of an enum takes the place of that of an optional field: it must serve both.
#[test]
fn every_value_of_an_enum_is_explained() {
    each_schema(|path, schema| {
        // Days and the status of a condition need no words.
        for value in schema["enum"].as_array().into_iter().flatten().filter(|_| !path.contains(".days")) {
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.contains(&format!("`{}`", value.as_str().unwrap())), "{path}: {value}");
        }
    });
}

#[test]
fn enums_are_in_pascal_case() {
    each_schema(|path, schema| {
        for value in schema["enum"].as_array().into_iter().flatten() {
            let value = value.as_str().unwrap();
            let pascal =
                value.starts_with(|c: char| c.is_ascii_uppercase()) && value.chars().all(char::is_alphanumeric);
            assert!(pascal, "{path}: {value}");
        }
    });
}

#[test]
fn names_and_sizes_follow_the_conventions() {
    let mut short = Vec::new();
    for definition in definitions() {
        let size = definition.crd.to_string().len();
        assert!(size < 200_000, "{}: {size} bytes", definition.kind);
        let spec = &definition.crd["spec"];
        assert_eq!(spec["group"], super::GROUP);
        assert_eq!(spec["scope"], "Namespaced");
        assert_eq!(spec["names"]["categories"], json!(["mcp"]));
        assert_eq!(spec["versions"][0]["name"], super::VERSION);
        short.push(spec["names"]["shortNames"][0].as_str().unwrap().to_owned());
    }
    assert_eq!(short, ["mcpg", "mcpr", "mcps", "mcpt"]);
}

/// One rule: kind, its message, an object that holds and one that breaks it (both as the `spec`).
struct Case {
    kind: &'static str,
    message: &'static str,
    holds: Value,
    breaks: Value,
}

fn server(container: Value) -> Value {
    let mut container = container;
    container["image"] = "x".into();
    json!({"source": {"container": container}})
}

fn rule(members: Value) -> Value {
    let mut rule = json!({"effect": "Allow", "servers": ["a"], "tools": ["b"]});
    rule.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({"rules": [rule]})
}

fn tool(members: Value) -> Value {
    let mut spec = json!({"serverRef": {"name": "a"}, "toolName": "b"});
    spec.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    spec
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
fn cases() -> Vec<Case> {
    let case = |kind, message, holds, breaks| Case { kind, message, holds, breaks };
    let stdio = |more: Value| {
        let mut container = json!({"transport": "Stdio", "command": ["x"]});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server(container)
    };
    let window = |start, end| rule(json!({"timeWindow": {"start": start, "end": end, "timeZone": "UTC"}}));
    let argument = |condition: Value| {
        let mut argument = json!({"path": "/a"});
        argument.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
        rule(json!({"arguments": [argument]}))
    };
    let subject = |subject| json!({"subjects": [subject]});
    let remote = |remote: Value| json!({"source": {"remote": remote}});
    let bundle = json!({"configMapRef": {"name": "ca", "key": "ca.crt"}});
    let with_spec = |mut spec: Value, more: Value| {
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    vec![
        case("McpServer", "exactly one of container, service and remote", stdio(json!({})), json!({"source": {}})),
        case("McpServer", "exactly one of container, service and remote", json!({"source": {"service": {"name": "a", "port": 80}}}),
            json!({"source": {"remote": {"url": "https://a"}, "service": {"name": "a", "port": 80}}})),
        case("McpServer", "exactly one of container, service and remote", json!({"source": {"remote": {"url": "https://a"}}}),
            json!({"source": {"remote": {"url": "https://a"}, "container": {"image": "x", "transport": "Stdio", "command": ["x"]}}})),
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
        case("McpServer", "caBundle has a meaning only", remote(json!({"url": "https://a", "caBundle": bundle})),
            remote(json!({"url": "http://localhost:80/", "caBundle": bundle}))),
        case("McpServer", "have a meaning only with source.container", with_spec(stdio(json!({})), json!({"sandbox": {"filesystem": "Scratch"}})),
            with_spec(remote(json!({"url": "https://a"})), json!({"sandbox": {"filesystem": "Scratch"}}))),
        case("McpServer", "have a meaning only with source.container", with_spec(remote(json!({"url": "https://a"})), json!({"sandbox": {"egress": []}})),
            with_spec(remote(json!({"url": "https://a"})), json!({"sandbox": {"isolation": "Process"}}))),
        case("McpServer", "must be an IPv4 or IPv6 prefix", with_spec(stdio(json!({})), json!({"sandbox": {"egress": [{"cidr": "140.82.112.0/20", "port": 443}, {"cidr": "2001:db8::/32"}]}})),
            with_spec(stdio(json!({})), json!({"sandbox": {"egress": [{"cidr": "140.82.112.0"}]}}))),
        case("McpServer", "seconds is required", with_spec(stdio(json!({})), json!({"disconnectedPolicy": {"mode": "DenyAfter", "seconds": 60}})),
            with_spec(stdio(json!({})), json!({"disconnectedPolicy": {"mode": "DenyAfter"}}))),
        case("McpServer", "seconds is required", with_spec(stdio(json!({})), json!({"disconnectedPolicy": {"mode": "KeepLastKnownGood"}})),
            with_spec(stdio(json!({})), json!({"disconnectedPolicy": {"mode": "KeepLastKnownGood", "seconds": 60}}))),
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
        case("McpGateway", "two issuers are the cluster's", json!({"issuers": [{"name": "a", "serviceAccounts": {}}]}),
            json!({"issuers": [{"name": "a", "serviceAccounts": {}}, {"name": "b", "serviceAccounts": {}}]})),
        case("McpGateway", "exactly one of oidc and serviceAccounts", json!({"issuers": [{"name": "a", "oidc": {"url": "https://a"}}]}),
            json!({"issuers": [{"name": "a"}]})),
        case("McpGateway", "exactly one of oidc and serviceAccounts", json!({"issuers": [{"name": "a", "serviceAccounts": {}}]}),
            json!({"issuers": [{"name": "a", "serviceAccounts": {}, "oidc": {"url": "https://a"}}]})),
        case("McpGateway", "exactly one of url, inline and configMapRef", jwks(json!({"inline": "{}"})), jwks(json!({}))),
        case("McpGateway", "exactly one of url, inline and configMapRef", jwks(json!({"configMapRef": {"name": "a", "key": "b"}})),
            jwks(json!({"url": "https://a", "configMapRef": {"name": "a", "key": "b"}}))),
        case("McpGateway", "roleRef is required", json!({"anonymous": {"mode": "Role", "roleRef": {"name": "r"}}}), json!({"anonymous": {"mode": "Role"}})),
        case("McpGateway", "roleRef is required", json!({}), json!({"anonymous": {"roleRef": {"name": "r"}}})),
    ]
}

fn failures(kind: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let object = |spec: &Value| json!({"metadata": {"name": "a"}, "spec": spec});
    let validator = kube_cel::Validator::new();
    match validator.validate(definition(kind).schema(), &object(new), old.map(object).as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

#[test]
fn every_rule_holds_and_breaks_where_it_should() {
    for Case { kind, message, holds, breaks } in cases() {
        assert_eq!(failures(kind, &holds, None), Vec::<String>::new(), "{kind}: {holds}");
        let failed = failures(kind, &breaks, None);
        assert!(failed.len() == 1 && failed[0].contains(message), "{kind}: {breaks}: {failed:?}");
    }
}

#[test]
fn what_a_tool_is_about_cannot_change() {
    let old = tool(json!({}));
    assert!(failures("McpTool", &tool(json!({"title": "t"})), Some(&old)).is_empty());
    let renamed = failures("McpTool", &tool(json!({"toolName": "c"})), Some(&old));
    assert!(renamed.len() == 1 && renamed[0].contains("toolName is immutable"), "{renamed:?}");
    let moved = failures("McpTool", &tool(json!({"serverRef": {"name": "c"}})), Some(&old));
    assert!(moved.len() == 1 && moved[0].contains("serverRef is immutable"), "{moved:?}");
}

#[test]
fn a_server_name_is_fit_for_a_service() {
    let validator = kube_cel::Validator::new();
    let schema = definition("McpServer");
    let check = |name: &str| {
        let object = json!({"metadata": {"name": name}, "spec": {"source": {"remote": {"url": "https://a"}}}});
        validator.validate(schema.schema(), &object, None).is_ok()
    };
    assert!(check("github") && check(&"a".repeat(63)));
    assert!(!check("a.b") && !check("1a") && !check(&"a".repeat(64)));
}

/// A rule without a case above would be untested: each message of the schemas is met by one.
#[test]
fn no_rule_is_without_a_case() {
    let elsewhere = ["is immutable", "a Service will bear it"];
    let tested: Vec<(&str, &str)> = cases().iter().map(|case| (case.kind, case.message)).collect();
    each_schema(|path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap();
            let kind = path.split('.').next().unwrap();
            let met = tested.iter().any(|(of, part)| *of == kind && message.contains(part))
                || elsewhere.iter().any(|part| message.contains(part));
            assert!(met, "{path}: {message}");
        }
    });
}

/// Every definition as the text of its file.
fn rendered() -> impl Iterator<Item = (String, String)> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    definitions().into_iter().map(move |definition| {
        let yaml = serde_saphyr::to_string_with_options(&definition.crd, options.clone()).unwrap();
        (format!("toolgate.dev_{}.yaml", definition.plural), format!("# Written by `make crds`.\n{yaml}"))
    })
}

/// With `WRITE_CRDS` in the environment it writes them: that is what `make crds` does.
#[test]
fn the_definitions_in_the_repository_are_those_of_the_types() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    if std::env::var_os("WRITE_CRDS").is_some() {
        rendered().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        return;
    }
    let mut files: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, FILES.map(|(name, _)| name));
    assert_eq!(files, rendered().map(|(name, _)| name).collect::<Vec<_>>());
    for ((name, text), (_, shipped)) in rendered().zip(FILES) {
        assert!(shipped == text, "crds/{name} differs from the types: run `make crds`");
    }
}

#[test]
fn the_yaml_says_the_same_as_the_definition() {
    for ((_, text), definition) in FILES.into_iter().zip(definitions()) {
        let read: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(read, definition.crd);
    }
}
