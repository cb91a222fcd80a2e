//! Which files of a folder may hold manifests, and their text.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most files that are looked at.
const MAX_FILES: usize = 10_000;
/// Largest file that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What is in a folder.
pub(super) struct Found {
    /// Files by path, in the order of their paths.
    pub(super) files: Vec<PathBuf>,
    /// Whether a bound left something out.
    pub(super) incomplete: Option<String>,
}

/// Files that hold no manifests whatever they contain.
const NOT_MANIFESTS: [&str; 3] = ["toolgate.local.yaml", "kustomization.yaml", "kustomization.yml"];

/// Finds all manifests of a folder; a file stands for itself. Hidden files are left out, and so are the folders in the
/// folder, as with `kubectl apply -f`: they hold what servers work on, and a server that may write files must not be
/// able to write policy.
pub(super) fn find(root: &Path) -> io::Result<Found> {
    let mut found = Found { files: Vec::new(), incomplete: None };
    if fs::metadata(root)?.is_file() {
        found.files.push(root.to_owned());
        return Ok(found);
    }
    let describe = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", root.display()));
    for entry in fs::read_dir(root).map_err(describe)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || !is_candidate(&name) || !path.is_file() {
            continue;
        }
        if found.files.len() == MAX_FILES {
            found.incomplete = Some(format!("more than {MAX_FILES} files: the rest is not read"));
            break;
        }
        found.files.push(path);
    }
    found.files.sort();
    Ok(found)
}

fn is_candidate(name: &str) -> bool {
    let manifest = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
    manifest && !NOT_MANIFESTS.contains(&name)
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Text that mentions one of our objects.
    Text(String),
    /// Nothing at all: often an editor that has cleared the file and not written it yet.
    Empty,
    /// Other people's file.
    Foreign,
    /// It cannot be read: line and reason.
    Unreadable(usize, String),
}

/// Reads a file; `None` if it has gone.
pub(super) fn read(path: &Path) -> Option<Content> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Content::Unreadable(0, format!("cannot be read ({error}): check its permissions"))),
        Ok(_) => Some(classify(bytes)),
    }
}

/// A file that mentions neither our group nor our kinds is never an error of ours, whatever is wrong with it.
pub(super) fn classify(bytes: Vec<u8>) -> Content {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Content::Empty;
    }
    let wide = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    let ours = ["toolgate.dev", "McpServer", "McpTool", "McpRole", "McpGateway"];
    if !wide && !ours.iter().any(|word| contains(&bytes, word.as_bytes())) {
        return Content::Foreign;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Content::Unreadable(0, format!("is larger than {} MiB: split it", MAX_BYTES / 1024 / 1024));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
            Content::Unreadable(line, "is not UTF-8: save it as UTF-8".to_owned())
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}
