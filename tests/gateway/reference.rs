//! The reference reader of fuzzing reads as Node does: `JSON.parse` and the event stream parser of the MCP SDK.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::support::tools;

#[path = "../../fuzz/reference/mod.rs"]
#[allow(dead_code)] // Fuzzing uses the rest.
mod reader;

fn files(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn json(text: &str) -> String {
    let mut out = String::new();
    match reader::parse(text) {
        Some(value) => value.dump(&mut out),
        None => out.push_str("none"),
    }
    out
}

#[tokio::test]
async fn the_reference_reads_what_node_reads() {
    let files: Vec<PathBuf> = ["server-message", "sse", "envelope"].into_iter().flat_map(files).collect();
    assert!(files.len() > 70, "{}", files.len());
    let mut ours = String::new();
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let bytes = bytes.get(2..).unwrap_or_default();
        let _ = writeln!(ours, "body {}", json(&reader::decode(bytes)));
        for event in reader::events(bytes) {
            let mut data = String::new();
            reader::Json::Text(event.data.encode_utf16().collect()).dump(&mut data);
            let _ = writeln!(ours, "event {} {data} {}", event.is_message(), json(&event.data));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/reference/check.mjs");
    let mut node = tokio::process::Command::new(tools::node());
    node.arg(script).arg(tools::module("eventsource-parser/dist/index.js")).args(&files);

    let theirs = tools::output(&mut node).await;

    for (at, (one, other)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(one, other, "line {at}");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}
