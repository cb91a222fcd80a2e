//! Folders of manifests, as short to write as they are to read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::fixture;

/// A temporary folder of manifests with an overlay.
pub struct Folder {
    directory: TempDir,
    overlay: Value,
}

impl Folder {
    /// A gateway with one issuer, three identities (ada of engineering, grace of sre, guest of nothing), no server.
    pub fn new() -> Self {
        let directory = TempDir::new().expect("a temporary folder");
        let overlay = json!({
            "listen": "127.0.0.1:0",
            "servers": {},
            "identities": {
                "ada": {"subject": "ada@example.com", "groups": ["engineering"]},
                "grace": {"subject": "grace@example.com", "groups": ["sre"]},
                "guest": {"subject": "guest@example.com", "groups": []},
            },
        });
        let folder = Self { directory, overlay };
        folder.write(
            "gateway.yaml",
            &object(
                "McpGateway",
                "default",
                &json!({
                    "url": "https://mcp.example.com/mcp",
                    "issuers": [{"name": "corp", "oidc": {"url": "https://login.example.com"}}],
                }),
            ),
        );
        folder
    }

    /// A copy of an example, with other words in its overlay.
    pub fn example(name: &str, replace: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a temporary folder");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        copy(&from, directory.path());
        let folder = Self { directory, overlay: Value::Null };
        let overlay = folder.path().join("toolgate.local.yaml");
        let mut text = std::fs::read_to_string(&overlay).expect("the example has an overlay");
        for (old, new) in replace {
            assert!(text.contains(old), "{old} is not in the overlay");
            text = text.replace(old, new);
        }
        folder.write("toolgate.local.yaml", &text);
        folder
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file as an editor does: beside it, then in its place.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.path().join(format!(".{name}.tmp"));
        std::fs::write(&beside, text).expect("the folder is writable");
        std::fs::rename(beside, self.path().join(name)).expect("the folder is writable");
    }

    fn write_overlay(&self) {
        self.write("toolgate.local.yaml", &self.overlay.to_string());
    }

    /// A path for a file beside the manifests that is no manifest.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A server that runs already.
    pub fn remote(self, name: &str, url: &str) -> Self {
        self.remote_with(name, url, json!({"registration": "Auto"}))
    }

    /// A server that runs already, with further fields of its spec.
    pub fn remote_with(mut self, name: &str, url: &str, mut spec: Value) -> Self {
        spec["source"] = json!({"remote": {"url": "https://mcp.example.com/mcp"}});
        spec["gatewayRef"] = json!({"name": "default"});
        self.write(&format!("server-{name}.yaml"), &object("McpServer", name, &spec));
        self.overlay["servers"][name] = json!({"url": url});
        self.write_overlay();
        self
    }

    /// A child process that speaks stdio.
    pub fn stdio(self, name: &str, command: &[&str]) -> Self {
        self.stdio_with(name, command, json!({"registration": "Auto"}))
    }

    /// A child process that speaks stdio, with further fields of its spec.
    pub fn stdio_with(mut self, name: &str, command: &[&str], mut spec: Value) -> Self {
        let mut container = json!({"image": "example.com/server:1", "transport": "Stdio", "command": ["/server"]});
        if let Some(sessions) = spec.as_object_mut().and_then(|spec| spec.remove("sessions")) {
            container["sessions"] = sessions;
        }
        spec["source"] = json!({"container": container});
        spec["gatewayRef"] = json!({"name": "default"});
        self.write(&format!("server-{name}.yaml"), &object("McpServer", name, &spec));
        self.overlay["servers"][name] = json!({"command": command});
        self.write_overlay();
        self
    }

    /// Another field of a server in the overlay.
    pub fn overlay(mut self, server: &str, field: &str, value: Value) -> Self {
        self.overlay["servers"][server][field] = value;
        self.write_overlay();
        self
    }

    /// The hostile fixture over stdio, with flags.
    pub fn hostile_stdio(self, name: &str, flags: &[&str], spec: Value) -> Self {
        let program = fixture("fixture-hostile");
        let program = program.to_str().expect("a path in UTF-8");
        self.stdio_with(name, &[&[program, "--stdio"], flags].concat(), spec)
    }

    /// Declares tools of a server.
    pub fn tools(self, server: &str, names: &[&str]) -> Self {
        let mut text = String::new();
        for name in names {
            let slug = name.replace('_', "-");
            let spec = json!({"serverRef": {"name": server}, "toolName": name});
            let _ = writeln!(text, "---\n{}", object("McpTool", &format!("{server}-{slug}"), &spec));
        }
        self.write(&format!("tools-{server}.yaml"), &text);
        self
    }

    /// A role for one group (or user with an `@`), with rules as JSON.
    pub fn role(self, name: &str, subject: &str, rules: &Value) -> Self {
        self.write(&format!("role-{name}.yaml"), &role(name, subject, rules));
        self
    }

    /// Everything at every server for ada's group.
    pub fn all_for_ada(self) -> Self {
        self.role("everything", "engineering", &everything())
    }

    /// Another McpGateway instead of the usual one.
    pub fn gateway(self, spec: &Value) -> Self {
        self.write("gateway.yaml", &object("McpGateway", "default", spec));
        self
    }
}

/// Copies what lies in a folder, but for what a gateway left there.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the folder exists").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_name() == ".toolgate" {
            continue;
        }
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("a new folder");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Rules that allow everything at every server.
pub fn everything() -> Value {
    json!([{"effect": "Allow", "servers": ["*"], "tools": ["*"], "prompts": ["*"], "resources": ["*"]}])
}

/// An McpRole as YAML.
pub fn role(name: &str, subject: &str, rules: &Value) -> String {
    let kind = if subject.contains('@') { "User" } else { "Group" };
    object(
        "McpRole",
        name,
        &json!({
            "subjects": [{"kind": kind, "name": subject, "issuer": "corp"}],
            "rules": rules,
        }),
    )
}

/// One object as YAML; JSON is YAML.
pub fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "toolgate.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": "agents"}, "spec": spec,
    })
    .to_string()
}
