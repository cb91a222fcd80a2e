//! Clients that others wrote, on the quickstart with its servers that others wrote, through the gateway.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Folder, Toolgate, tools};

/// The quickstart. Only how its servers start is another: from `tests/tools`, so that no network is needed.
async fn start() -> Toolgate {
    let run = |package: &str| {
        let program = tools::module(&format!("@modelcontextprotocol/{package}/dist/index.js"));
        format!("\"{}\", \"{}\"", tools::node().display(), program.display())
    };
    let old = |package: &str| format!("npx, -y, \"@modelcontextprotocol/{package}@2026.8.31\"");
    let [files, everything] = ["server-filesystem", "server-everything"];
    let folder = Folder::example(
        "quickstart",
        &[("127.0.0.1:8811", "127.0.0.1:0"), (&old(files), &run(files)), (&old(everything), &run(everything))],
    );
    Toolgate::start(folder).await
}

fn data(toolgate: &Toolgate, name: &str) -> std::path::PathBuf {
    toolgate.folder.path().join("data").join(name)
}

async fn python(toolgate: &Toolgate, server: &str, who: &str, mode: &str, tool: &str, arguments: Value) -> Value {
    let mut command = tools::python("list_and_call.py");
    command.args([&toolgate.url(server), &toolgate.token(who), mode, tool, &arguments.to_string()]);
    serde_json::from_str(&tools::output(&mut command).await).expect("the script prints JSON")
}

#[tokio::test]
async fn the_python_sdk_lists_and_calls_on_both_servers() {
    let toolgate = start().await;
    let reading = json!(["list_allowed_directories", "list_directory", "read_text_file"]);
    for mode in ["auto", "legacy"] {
        let mut read =
            python(&toolgate, "files", "guest", mode, "read_text_file", json!({"path": "handbook.md"})).await;
        let tools = read["tools"].as_array_mut().expect("a list");
        tools.sort_by_key(Value::to_string);
        assert_eq!(read["tools"], reading, "{mode}");
        assert!(read["text"].as_str().is_some_and(|text| text.starts_with("# Handbook")), "{mode}: {read}");
        let sum = python(&toolgate, "everything", "ada", mode, "get-sum", json!({"a": 2, "b": 3})).await;
        assert_eq!(sum["tools"], json!(["echo", "get-sum"]), "{mode}");
        assert!(sum["text"].as_str().is_some_and(|text| text.contains('5')), "{sum}");
    }
}

#[tokio::test]
async fn the_python_sdk_writes_only_below_the_allowed_folder() {
    let toolgate = start().await;
    python(&toolgate, "files", "ada", "auto", "write_file", json!({"path": "drafts/note.md", "content": "written"}))
        .await;
    assert_eq!(std::fs::read_to_string(data(&toolgate, "drafts/note.md")).unwrap(), "written");

    for outside in ["handbook.md", "drafts/../handbook.md", "/etc/hostname"] {
        let mut command = tools::python("list_and_call.py");
        let arguments = json!({"path": outside, "content": "overwritten"}).to_string();
        command.args([&toolgate.url("files"), &toolgate.token("ada"), "auto", "write_file", &arguments]);
        let refused = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{outside}");
        assert!(said.contains("refused by policy: /path must be"), "{outside}: {said}");
    }
    assert!(std::fs::read_to_string(data(&toolgate, "handbook.md")).unwrap().starts_with("# Handbook"));
}

async fn inspector(toolgate: &Toolgate, server: &str, who: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new(tools::node());
    command.arg(tools::module("@modelcontextprotocol/inspector/clients/launcher/build/index.js"));
    command.arg("--cli").arg(toolgate.url(server)).args(["--transport", "http", "--header"]);
    command.arg(format!("Authorization: Bearer {}", toolgate.token(who))).args(arguments);
    serde_json::from_str(&tools::output(&mut command).await).expect("the inspector prints JSON")
}

#[tokio::test]
async fn the_inspector_lists_and_calls_on_both_servers() {
    let toolgate = start().await;
    let names = |list: &Value| -> Vec<String> {
        let tools = list["tools"].as_array().unwrap();
        let mut names: Vec<String> = tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let listed = inspector(&toolgate, "files", "guest", &["--method", "tools/list"]).await;
    assert_eq!(names(&listed), ["list_allowed_directories", "list_directory", "read_text_file"]);
    let listed = inspector(&toolgate, "everything", "ada", &["--method", "tools/list"]).await;
    assert_eq!(names(&listed), ["echo", "get-sum"]);

    let call = ["--method", "tools/call", "--tool-name", "read_text_file", "--tool-arg", "path=handbook.md"];
    let read = inspector(&toolgate, "files", "guest", &call).await;
    assert!(read["content"][0]["text"].as_str().is_some_and(|text| text.starts_with("# Handbook")), "{read}");
    let call = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hi"];
    let echoed = inspector(&toolgate, "everything", "ada", &call).await;
    assert!(echoed["content"][0]["text"].as_str().is_some_and(|text| text.contains("hi")), "{echoed}");
}
