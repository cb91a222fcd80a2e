//! Holds the edges between rooms: who may name whom, who may build a `Permit`, how a file begins and how long it is.
//!
//! The rules are data ([`EDGES`]); `architecture/paths.rs` finds every path that a file names. Each rule is shown to
//! bite on a source that breaks it. Test code may name anything.

// Helpers of tests, not only tests, may stop by a panic.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

#[path = "architecture/paths.rs"]
mod paths;

use std::collections::BTreeSet;
use std::path::Path;

use syn::visit::{self, Visit};

/// Files under `src`, below this prefix, name nothing that starts with one of these paths.
struct Edge {
    /// Prefix of file names relative to `src`.
    within: &'static str,
    /// Files of the room that may.
    but: &'static [&'static str],
    /// Forbidden path prefixes, by whole segments.
    forbids: &'static [&'static str],
    /// Exact paths, and what lies below them, that are fine all the same.
    allows: &'static [&'static str],
}

/// Runtimes, clients, files, sockets and clocks.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures",
    "hyper",
    "hyper_util",
    "hyper_rustls",
    "rustls",
    "axum",
    "tower",
    "kube",
    "notify",
    "tracing",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::time::SystemTime",
    "std::time::Instant",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
];

/// Who may name whom (`src/lib.rs` says why).
const EDGES: &[Edge] = &[
    // Pure rooms: what they compute depends on their arguments alone.
    Edge { within: "policy/", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "gateway/protocol/", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "status/", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "json.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "json.rs", but: &[], forbids: &["crate"], allows: &["crate::json"] },
    // A deeper stack for the parser is all that a thread is for: it is joined where it is made.
    Edge { within: "policy/", but: &["policy/condition.rs"], forbids: &["std::thread"], allows: &[] },
    Edge { within: "gateway/protocol/", but: &[], forbids: &["std::thread"], allows: &[] },
    // One seam between what users write and what is enforced.
    Edge { within: "policy/", but: &["policy/parse.rs", "policy/parse/"], forbids: &["crate::api"], allows: &[] },
    Edge { within: "policy/", but: &[], forbids: &["crate::gateway", "crate::local", "crate::telemetry"], allows: &[] },
    // The data plane knows no manifests and no Kubernetes.
    Edge {
        within: "gateway/",
        but: &[],
        forbids: &[
            "crate::api",
            "crate::local",
            "crate::controllers",
            "crate::kubernetes",
            "crate::policyserver",
            "crate::status",
            "kube",
            "kube_core",
            "k8s_openapi",
            "schemars",
        ],
        allows: &[],
    },
    // Which snapshot is taken, and what a report says, depends on what is handed in.
    Edge { within: "gateway/layers/remembered.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "gateway/source/judge.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "gateway/source/pace.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "wire/validity.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "gateway/report/offer.rs", but: &[], forbids: IMPURE, allows: &[] },
    // Addresses are values there; no socket is opened.
    Edge { within: "gateway/report/listeners.rs", but: &[], forbids: IMPURE, allows: &["std::net"] },
    // It runs in other people's images: nothing of ours comes with it.
    Edge {
        within: "shim/",
        but: &[],
        forbids: &[
            "tokio",
            "crate::api",
            "crate::controllers",
            "crate::gateway",
            "crate::kubernetes",
            "crate::local",
            "crate::policy",
            "crate::policyserver",
            "crate::status",
            "crate::telemetry",
            "crate::wire",
        ],
        allows: &[],
    },
    // Wire formats know no policy.
    Edge { within: "gateway/protocol/", but: &[], forbids: &["crate::policy"], allows: &[] },
    // Metrics know of the gateway only its closed sets (label values) and the audit log (whose state they show).
    Edge {
        within: "telemetry/",
        but: &[],
        forbids: &["crate::api", "crate::local", "crate::policy", "crate::gateway"],
        allows: &[
            "crate::gateway::audit::Outcome",
            "crate::gateway::audit::Audit",
            "crate::gateway::protocol::methods::Class",
        ],
    },
    // What is said of objects is made from plain data; of the policy server only from what it hands out.
    Edge {
        within: "status/",
        but: &[],
        forbids: &[
            "crate::controllers",
            "crate::gateway",
            "crate::kubernetes",
            "crate::local",
            "crate::policyserver",
            "crate::telemetry",
            "crate::wire",
            "std::thread",
        ],
        allows: &[
            "crate::policyserver::fleet::Acked",
            "crate::policyserver::fleet::Offer",
            "crate::policyserver::fleet::OfferedTool",
            "crate::policyserver::fleet::Report",
            "crate::policyserver::index::Published",
            "crate::policyserver::index::Reach",
            "crate::policyserver::index::Refusal",
        ],
    },
    // Who calls the API server decides nothing: what to write is the controllers' plan.
    Edge {
        within: "kubernetes/",
        but: &[],
        forbids: &[
            "crate::controllers",
            "crate::gateway",
            "crate::local",
            "crate::policy",
            "crate::policyserver",
            "crate::status",
            "crate::wire",
        ],
        allows: &[],
    },
    // Policy reaches gateways without controllers, and every replica serves it, whoever leads.
    Edge {
        within: "policyserver/",
        but: &[],
        forbids: &["crate::controllers", "crate::gateway", "crate::local", "crate::status"],
        allows: &[],
    },
    Edge { within: "controllers/", but: &[], forbids: &["crate::gateway", "crate::local"], allows: &[] },
    // What is planned depends on the server and on what is around it alone.
    Edge { within: "controllers/mcpserver/plan.rs", but: &[], forbids: IMPURE, allows: &["kube::Resource"] },
    Edge { within: "controllers/mcpserver/pods.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "controllers/mcpserver/template.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "controllers/mcpserver/network.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "controllers/mcpserver/catalogue.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "controllers/mcpserver/revision.rs", but: &[], forbids: IMPURE, allows: &[] },
    Edge { within: "controllers/mcpserver/registration.rs", but: &[], forbids: IMPURE, allows: &["kube::Resource"] },
    Edge {
        within: "api/",
        but: &[],
        forbids: &[
            "crate::policy",
            "crate::gateway",
            "crate::local",
            "crate::telemetry",
            "crate::status",
            "crate::policyserver",
            "crate::kubernetes",
            "crate::controllers",
        ],
        allows: &[],
    },
];

/// The one file that may build a `Permit`.
const AUTHORIZE: &str = "gateway/layers/authorize.rs";
/// A file beyond this is two files.
const LINES: usize = 500;

impl Edge {
    fn covers(&self, file: &str) -> bool {
        file.starts_with(self.within) && !self.but.iter().any(|but| file.starts_with(but))
    }

    fn forbids(&self, path: &str) -> bool {
        let below =
            |prefix: &&str| path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        self.forbids.iter().any(below) && !self.allows.iter().any(below)
    }
}

/// `FILE:LINE names PATH` for every edge that a source crosses.
fn crossings(file: &str, source: &str) -> Vec<String> {
    let edges: Vec<&Edge> = EDGES.iter().filter(|edge| edge.covers(file)).collect();
    let named = paths::named(file, source).into_iter();
    let bad = named.filter(|named| edges.iter().any(|edge| edge.forbids(&named.path)));
    bad.map(|named| format!("{file}:{} names {}", named.line, named.path)).collect()
}

/// Every `.rs` file below `src` as (name relative to `src`, text).
fn sources() -> Vec<(String, String)> {
    fn walk(root: &Path, folder: &Path, out: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                out.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut out = Vec::new();
    walk(&root, &root, &mut out);
    out.sort();
    assert!(out.len() > 20, "the walk found {} files below {}", out.len(), root.display());
    out
}

/// The sources that are part of the program: without modules that exist in test builds alone.
fn program() -> Vec<(String, String)> {
    let mut all = sources();
    let tests: BTreeSet<Vec<String>> = all.iter().flat_map(|(file, text)| paths::test_modules(file, text)).collect();
    all.retain(|(file, _)| !tests.iter().any(|test| paths::module_of(file).starts_with(test)));
    all
}

/// Lines on which a source builds a value of the type `Permit`.
fn permits_built(file: &str, source: &str) -> Vec<usize> {
    struct Built {
        within_impl: bool,
        lines: Vec<usize>,
    }
    impl Built {
        fn check(&mut self, path: &syn::Path) {
            let Some(last) = path.segments.last() else { return };
            if last.ident == "Permit" || (self.within_impl && last.ident == "Self") {
                self.lines.push(last.ident.span().start().line);
            }
        }
    }
    impl<'ast> Visit<'ast> for Built {
        fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
            let own = matches!(&*item.self_ty, syn::Type::Path(own) if own.path.segments.last().is_some_and(|last| last.ident == "Permit"));
            let outer = std::mem::replace(&mut self.within_impl, own);
            visit::visit_item_impl(self, item);
            self.within_impl = outer;
        }

        fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
            self.check(&literal.path);
            visit::visit_expr_struct(self, literal);
        }

        fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
            if let syn::Expr::Path(function) = &*call.func {
                self.check(&function.path);
            }
            visit::visit_expr_call(self, call);
        }
    }
    let mut built = Built { within_impl: false, lines: Vec::new() };
    built.visit_file(&syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}")));
    built.lines
}

/// Definitions of `struct Permit`, and what about them would let others make one.
fn permit_definitions(file: &str, source: &str) -> Vec<Vec<String>> {
    let syntax = syn::parse_file(source).unwrap_or_else(|error| panic!("{file}: {error}"));
    let structs = syntax.items.iter().filter_map(|item| match item {
        syn::Item::Struct(item) if item.ident == "Permit" => Some(item),
        _ => None,
    });
    structs
        .map(|item| {
            let public = item.fields.iter().filter(|field| !matches!(field.vis, syn::Visibility::Inherited));
            let mut doors: Vec<String> = public.map(|_| "a field that others can set".to_owned()).collect();
            for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("derive")) {
                let _ = attribute.parse_nested_meta(|derived| {
                    if ["Default", "Clone", "Copy", "Deserialize"].iter().any(|name| derived.path.is_ident(name)) {
                        doors.push(format!("derives {}", derived.path.get_ident().unwrap()));
                    }
                    Ok(())
                });
            }
            if item.fields.is_empty() {
                doors.push("no field: a unit struct can be built wherever it is named".to_owned());
            }
            doors
        })
        .collect()
}

#[test]
fn no_room_names_what_it_may_not() {
    let found: Vec<String> = program().iter().flat_map(|(file, text)| crossings(file, text)).collect();

    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_permit_is_built_by_authorize_alone() {
    let sources = program();
    let elsewhere: Vec<String> = sources
        .iter()
        .filter(|(file, _)| file != AUTHORIZE)
        .flat_map(|(file, text)| permits_built(file, text).into_iter().map(move |line| format!("{file}:{line}")))
        .collect();
    let defined: Vec<(&str, Vec<String>)> = sources
        .iter()
        .flat_map(|(file, text)| permit_definitions(file, text).into_iter().map(move |doors| (file.as_str(), doors)))
        .collect();
    let authorize = sources.iter().find(|(file, _)| file == AUTHORIZE).expect(AUTHORIZE);

    assert_eq!(elsewhere, Vec::<String>::new(), "built outside {AUTHORIZE}");
    assert_eq!(defined, [(AUTHORIZE, Vec::new())], "one definition, without a back door");
    assert!(!permits_built(AUTHORIZE, &authorize.1).is_empty(), "nothing builds a permit: this test looks at nothing");
}

/// Test modules speak through the names of their tests.
#[test]
fn every_file_says_what_it_owns() {
    let begins = |text: &str| text.lines().next().is_some_and(|line| line.starts_with("//! "));
    let silent: Vec<String> = program().into_iter().filter(|(_, text)| !begins(text)).map(|(file, _)| file).collect();

    assert!(silent.is_empty(), "these files do not begin with `//! `: {silent:?}");
}

#[test]
fn no_file_is_longer_than_one_idea() {
    let lengths = sources().into_iter().map(|(file, text)| (text.lines().count(), file));
    let long: Vec<(usize, String)> = lengths.filter(|(lines, _)| *lines > LINES).collect();

    assert!(long.is_empty(), "files of more than {LINES} lines: {long:?}");
}

/// Positive control: each way to name a thing, in each room that may not.
#[test]
fn a_forbidden_name_is_found_however_it_is_written() {
    for (file, source, expected) in [
        ("policy/decide.rs", "use tokio::sync::Mutex;", "tokio::sync::Mutex"),
        ("policy/decide.rs", "fn f() { std::thread::spawn(g); }", "std::thread::spawn"),
        ("policy/decide.rs", "use tokio;", "tokio::self"),
        ("policy/decide.rs", "use std::{fmt, time::{Duration, SystemTime as Clock}};", "std::time::SystemTime"),
        ("policy/decide.rs", "use std::time; fn f() { time::Instant::now(); }", "std::time::Instant::now"),
        ("policy/decide.rs", "fn f() -> ::std::net::IpAddr { todo!() }", "std::net::IpAddr"),
        ("policy/decide.rs", "use jiff::Timestamp as T; fn f() { T::now(); }", "jiff::Timestamp::now"),
        ("policy/decide.rs", "fn f() { drop(vec![std::fs::read(\"/etc\")]); }", "std::fs::read"),
        ("policy/decide.rs", "#[tokio::main] fn main() {}", "tokio::main"),
        ("policy/decide.rs", "#[derive(kube::CustomResource)] struct S;", "kube::CustomResource"),
        ("policy/decide.rs", "extern crate tokio;", "tokio::self"),
        ("policy/decide.rs", "use super::super::api::McpServer;", "crate::api::McpServer"),
        ("policy/load/globs.rs", "use super::super::super::api::*;", "crate::api::*"),
        ("policy/mod.rs", "mod inner { use super::super::api; fn f(_: api::McpTool) {} }", "crate::api::McpTool"),
        ("policy/parse.rs", "use crate::gateway::limits;", "crate::gateway::limits"),
        ("gateway/stack.rs", "use crate::{policy::Policy, api::McpRole};", "crate::api::McpRole"),
        ("gateway/stack.rs", "struct S { role: crate::local::manifests::Loader }", "crate::local::manifests::Loader"),
        ("gateway/stack.rs", "impl kube::Resource for S {}", "kube::Resource"),
        (
            "gateway/protocol/sse.rs",
            "async fn f() { tokio::select! { _ = tokio::time::sleep(D) => {} } }",
            "tokio::select",
        ),
        ("gateway/protocol/sse.rs", "fn f() { assert!(x, \"{}\", tokio::time::sleep(D)); }", "tokio::time::sleep"),
        ("telemetry/metrics.rs", "use crate::gateway::audit::{Outcome, Record};", "crate::gateway::audit::Record"),
        ("api/mod.rs", "pub use crate::policy::Snapshot;", "crate::policy::Snapshot"),
        ("status/server.rs", "use crate::policyserver::fleet::Fleet;", "crate::policyserver::fleet::Fleet"),
        ("status/mod.rs", "fn f() { jiff::Timestamp::now(); }", "jiff::Timestamp::now"),
    ] {
        let found = crossings(file, source);
        assert!(found.iter().any(|found| found == &format!("{file}:1 names {expected}")), "{source}: {found:?}");
    }
}

/// Negative control: what is permitted, or only looks alike, is left alone.
#[test]
fn a_permitted_name_is_not_found() {
    for (file, source) in [
        ("policy/parse.rs", "use crate::api::McpServer;"),
        ("status/server.rs", "use crate::policyserver::fleet::{Offer, Report};"),
        ("policy/decide.rs", "use std::time::Duration; fn f(tokio: u8) -> u8 { tokio }"),
        ("policy/decide.rs", "#[cfg(test)] mod tests { use crate::api::McpServer; use std::fs; }"),
        ("policy/decide.rs", "mod tokio { pub fn f() {} } fn g() { tokio::f(); self::tokio::f(); }"),
        ("policy/decide.rs", "use jiff::Timestamp; fn f(now: Timestamp) -> bool { now > Timestamp::MIN }"),
        ("telemetry/metrics.rs", "use crate::gateway::audit::Outcome; fn f() { Outcome::Ok.as_str(); }"),
        ("gateway/stack.rs", "use tokio::sync::watch; use crate::policy::Policy;"),
        ("gateway/apiary.rs", "use crate::apiary::Bee;"),
    ] {
        assert_eq!(crossings(file, source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn a_permit_is_found_however_it_is_built() {
    for source in [
        "fn f() -> Permit { Permit { server: 1 } }",
        "fn f() { super::authorize::Permit(()); }",
        "impl Permit { fn new() -> Self { Self { server: 1 } } }",
    ] {
        assert_eq!(permits_built("x.rs", source), [1], "{source}");
    }
    assert_eq!(permits_built("x.rs", "fn f(permit: &Permit) { g(permit) }"), Vec::<usize>::new());
    assert_eq!(permit_definitions("x.rs", "#[derive(Clone)] pub struct Permit { pub server: u8 }")[0].len(), 2);
    assert_eq!(permit_definitions("x.rs", "pub struct Permit;")[0].len(), 1);
    assert_eq!(permit_definitions("x.rs", "#[derive(Debug)] pub struct Permit { server: u8 }"), [Vec::<String>::new()]);
}
