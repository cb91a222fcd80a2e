//! Clients that others wrote, on servers that others wrote, through the gateway.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Folder, Toolgate, tools};

/// The quickstart's two servers: ada may write below one folder, guest may only read.
async fn start() -> Toolgate {
    let folder = Folder::new();
    let data = folder.scratch("data");
    std::fs::create_dir_all(data.join("drafts")).expect("a folder");
    std::fs::write(data.join("hello.txt"), "hello from a file").expect("a file");
    let data = data.canonicalize().expect("a real path");
    let path = |path: std::path::PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (node, data) = (path(tools::node()), path(data));
    let files = path(tools::module("@modelcontextprotocol/server-filesystem/dist/index.js"));
    let everything = path(tools::module("@modelcontextprotocol/server-everything/dist/index.js"));
    let reading = json!({"effect": "Allow", "servers": ["files"], "tools": ["list_directory", "read_text_file"]});
    let drafts = format!("^{data}/drafts/[a-z]+\\.txt$");
    let folder = folder
        .stdio_with("files", &[&node, &files, &data], json!({"registration": "Auto"}))
        .stdio_with("everything", &[&node, &everything, "stdio"], json!({"registration": "Auto"}))
        .role("reader", "guest@example.com", &json!([reading]))
        .role("writer", "engineering", &json!([
            reading,
            {"effect": "Allow", "servers": ["files"], "tools": ["write_file"], "when": format!("arguments.path.matches({})", json!(drafts))},
            {"effect": "Allow", "servers": ["everything"], "tools": ["echo", "get-sum"]},
        ]));
    Toolgate::start(folder).await
}

impl Toolgate {
    fn data(&self, name: &str) -> String {
        let path = self.folder.path().canonicalize().expect("a real path").join("data").join(name);
        path.to_str().expect("UTF-8").to_owned()
    }
}

async fn python(toolgate: &Toolgate, server: &str, who: &str, mode: &str, tool: &str, arguments: Value) -> Value {
    let mut command = tools::python("list_and_call.py");
    command.args([&toolgate.url(server), &toolgate.token(who), mode, tool, &arguments.to_string()]);
    serde_json::from_str(&tools::output(&mut command).await).expect("the script prints JSON")
}

#[tokio::test]
async fn the_python_sdk_lists_and_calls_on_both_servers() {
    let toolgate = start().await;
    for mode in ["auto", "legacy"] {
        let read =
            python(&toolgate, "files", "guest", mode, "read_text_file", json!({"path": toolgate.data("hello.txt")}))
                .await;
        assert_eq!(read["tools"], json!(["read_text_file", "list_directory"]), "{mode}");
        assert_eq!(read["text"], "hello from a file", "{mode}");
        let sum = python(&toolgate, "everything", "ada", mode, "get-sum", json!({"a": 2, "b": 3})).await;
        assert_eq!(sum["tools"], json!(["echo", "get-sum"]), "{mode}");
        assert!(sum["text"].as_str().is_some_and(|text| text.contains('5')), "{sum}");
    }
}

#[tokio::test]
async fn the_python_sdk_writes_only_below_the_allowed_folder() {
    let toolgate = start().await;
    let draft = toolgate.data("drafts/note.txt");
    python(&toolgate, "files", "ada", "auto", "write_file", json!({"path": draft, "content": "written"})).await;
    assert_eq!(std::fs::read_to_string(&draft).unwrap(), "written");

    let outside = toolgate.data("outside.txt");
    let mut command = tools::python("list_and_call.py");
    let arguments = json!({"path": outside, "content": "x"}).to_string();
    command.args([&toolgate.url("files"), &toolgate.token("ada"), "auto", "write_file", &arguments]);
    let refused = command.output().await.unwrap();
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("refused by policy"),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    assert!(!std::path::Path::new(&outside).exists());
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
        list["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let listed = inspector(&toolgate, "files", "guest", &["--method", "tools/list"]).await;
    assert_eq!(names(&listed), ["read_text_file", "list_directory"]);
    let listed = inspector(&toolgate, "everything", "ada", &["--method", "tools/list"]).await;
    assert_eq!(names(&listed), ["echo", "get-sum"]);

    let path = format!("path={}", toolgate.data("hello.txt"));
    let call = ["--method", "tools/call", "--tool-name", "read_text_file", "--tool-arg", &path];
    let read = inspector(&toolgate, "files", "guest", &call).await;
    assert_eq!(read["content"][0]["text"], "hello from a file", "{read}");
    let call = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hi"];
    let echoed = inspector(&toolgate, "everything", "ada", &call).await;
    assert!(echoed["content"][0]["text"].as_str().is_some_and(|text| text.contains("hi")), "{echoed}");
}
