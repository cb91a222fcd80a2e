//! Files for others: the ready file for scripts and `mcp.json` for clients. Both hold tokens.
//!
//! They are written whole or not at all (a new file, then a rename), and only their owner may read them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

/// What scripts need: written once everything answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ready {
    /// By name of the server.
    pub servers: BTreeMap<String, Endpoint>,
    /// Tokens by name of the identity.
    pub tokens: BTreeMap<String, String>,
    /// Base URL of `/metrics`, `/healthz` and `/readyz`.
    pub admin: Option<String>,
}

/// One server as callers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its MCP endpoint.
    pub url: String,
    /// Why it did not answer at start.
    pub error: Option<String>,
}

impl Ready {
    /// The document for `--ready-file`.
    pub fn to_json(&self) -> Value {
        let server = |(name, endpoint): (&String, &Endpoint)| {
            let mut entry = json!({"url": endpoint.url});
            if let (Some(error), Some(fields)) = (&endpoint.error, entry.as_object_mut()) {
                fields.insert("error".to_owned(), error.clone().into());
            }
            (name.clone(), entry)
        };
        let identity = |(name, token): (&String, &String)| (name.clone(), json!({"token": token}));
        let mut document = json!({
            "servers": self.servers.iter().map(server).collect::<serde_json::Map<_, _>>(),
            "identities": self.tokens.iter().map(identity).collect::<serde_json::Map<_, _>>(),
        });
        if let (Some(admin), Some(fields)) = (&self.admin, document.as_object_mut()) {
            fields.insert("admin".to_owned(), admin.clone().into());
        }
        document
    }

    /// The document that MCP clients read, for one identity.
    pub fn to_mcp_json(&self, identity: &str) -> Option<Value> {
        let authorization = format!("Bearer {}", self.tokens.get(identity)?);
        let server = |(name, endpoint): (&String, &Endpoint)| {
            let headers = json!({"Authorization": authorization});
            (name.clone(), json!({"type": "http", "url": endpoint.url, "headers": headers}))
        };
        Some(json!({"mcpServers": self.servers.iter().map(server).collect::<serde_json::Map<_, _>>()}))
    }
}

/// Replaces `file` by `document`, readable by its owner alone. Makes the folder if it is missing.
pub fn write_private(file: &Path, document: &Value) -> io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(folder)?;
    let name = file.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    // Beside the target: a rename is atomic only within one file system.
    let draft = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = write_new(&draft, document).and_then(|()| std::fs::rename(&draft, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft); // The first error is the one to tell.
    }
    written
}

fn write_new(file: &Path, document: &Value) -> io::Result<()> {
    // A left-over of a process that was killed, or a link that someone planted: never written through.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut handle = options.open(file)?;
    writeln!(handle, "{document:#}")
}

/// Removes a file of an earlier run; one that does not exist is fine.
pub fn remove_stale(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the folder for this tool's own files, kept out of version control: they hold tokens.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let ignore = folder.join(".gitignore");
    if ignore.exists() { Ok(()) } else { std::fs::write(ignore, "*\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        let endpoint = |name: &str, error: Option<&str>| Endpoint {
            url: format!("http://127.0.0.1:1/servers/{name}/mcp"),
            error: error.map(str::to_owned),
        };
        Ready {
            servers: [
                ("files".to_owned(), endpoint("files", None)),
                ("slow".to_owned(), endpoint("slow", Some("no answer"))),
            ]
            .into(),
            tokens: [("ada".to_owned(), "T1".to_owned()), ("bob".to_owned(), "T2".to_owned())].into(),
            admin: Some("http://127.0.0.1:2".to_owned()),
        }
    }

    #[test]
    fn the_ready_file_has_a_url_per_server_and_a_token_per_identity() {
        let expected = json!({
            "servers": {
                "files": {"url": "http://127.0.0.1:1/servers/files/mcp"},
                "slow": {"url": "http://127.0.0.1:1/servers/slow/mcp", "error": "no answer"},
            },
            "identities": {"ada": {"token": "T1"}, "bob": {"token": "T2"}},
            "admin": "http://127.0.0.1:2",
        });
        assert_eq!(ready().to_json(), expected);
    }

    #[test]
    fn mcp_json_carries_the_token_of_one_identity() {
        let document = ready().to_mcp_json("bob").unwrap();

        let files = &document["mcpServers"]["files"];
        assert_eq!(files["type"], "http");
        assert_eq!(files["headers"]["Authorization"], "Bearer T2");
        assert!(!document.to_string().contains("T1"));
        assert_eq!(ready().to_mcp_json("eve"), None);
    }

    #[cfg(unix)]
    #[test]
    fn files_with_tokens_are_replaced_whole_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made/ready.json");

        write_private(&file, &json!({"a": 1})).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&file, &json!({"a": 2})).unwrap();

        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\n  \"a\": 2\n}\n");
        let left: Vec<_> = std::fs::read_dir(file.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no draft is left: {left:?}");
    }

    #[test]
    fn a_stale_file_goes_and_a_missing_one_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready.json");
        std::fs::write(&file, "{}").unwrap();
        remove_stale(&file).unwrap();
        remove_stale(&file).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn the_private_folder_is_kept_out_of_version_control() {
        let folder = tempfile::tempdir().unwrap();
        private_folder(&folder.path().join(".toolgate")).unwrap();
        private_folder(&folder.path().join(".toolgate")).unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join(".toolgate/.gitignore")).unwrap(), "*\n");
    }
}
