//! `toolgate.local.yaml`: what a laptop does differently from a cluster.
//!
//! Owns the file's syntax and what one file can say wrongly by itself. Whether its names exist is judged where the
//! manifests are known ([`super::plan`]). An overlay with an error is wholly out of force.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::gateway::limits;
use crate::policy::Severity;

use super::manifests::Problem;

/// Name of the overlay in a folder of manifests.
pub const FILE: &str = "toolgate.local.yaml";

/// Claims that tokens get from elsewhere: an overlay cannot set them.
const RESERVED_CLAIMS: [&str; 11] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "groups", "scope", "scp", "cnf"];

/// Longest name of an identity, in bytes.
const NAME_BYTES: usize = 63;

/// A valid overlay.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Overlay {
    /// Where callers connect.
    pub listen: Option<SocketAddr>,
    /// How servers are reached here, by name of the McpServer.
    pub servers: BTreeMap<String, Server>,
    /// Who gets a token, by a name of the user's choice.
    pub identities: BTreeMap<String, Identity>,
}

/// How one server is reached on this machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Server {
    /// Line of the entry, for messages.
    pub line: usize,
    /// What to do.
    pub launch: Launch,
}

/// Instead of what the manifest says.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Launch {
    /// A child process that speaks MCP on its standard input and output.
    Command {
        /// Program and arguments; no shell is involved. Replaces the image, its command and its arguments.
        command: Vec<String>,
        /// Environment variables besides those of the manifest, which they override.
        env: BTreeMap<String, String>,
        /// Working directory; relative ones count from the folder of the manifests, which is the default.
        directory: Option<PathBuf>,
        /// How many processes there may be.
        children: Children,
    },
    /// A Streamable HTTP endpoint that runs already.
    Url(String),
}

/// How many processes one server may have.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Children {
    /// In all: `maxChildren`.
    pub most: usize,
    /// For one caller: `childrenPerCaller`.
    pub per_caller: usize,
}

/// Most processes that an overlay may ask for.
const CHILDREN: usize = 256;

/// Someone who gets a token.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Identity {
    /// Line of the entry, for messages.
    pub line: usize,
    /// Subject that roles name.
    pub subject: String,
    /// Groups that roles name.
    pub groups: Vec<String>,
    /// Further claims.
    pub claims: Map<String, Value>,
    /// OAuth scopes.
    pub scopes: Vec<String>,
    /// Name of one of the gateways' issuers; needed where there are several.
    pub issuer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOverlay {
    listen: Option<Spanned<String>>,
    #[serde(default)]
    servers: BTreeMap<String, Spanned<RawServer>>,
    #[serde(default)]
    identities: BTreeMap<String, Spanned<RawIdentity>>,
    secrets: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServer {
    command: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    directory: Option<PathBuf>,
    url: Option<Spanned<String>>,
    #[serde(rename = "maxChildren")]
    max_children: Option<usize>,
    #[serde(rename = "childrenPerCaller")]
    children_per_caller: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    subject: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    claims: Map<String, Value>,
    #[serde(default)]
    scopes: Vec<String>,
    issuer: Option<String>,
}

/// Line and message of what is wrong.
type Fault = (usize, String);

impl Overlay {
    /// Reads the overlay of a folder; a folder without one has an empty overlay.
    pub fn read(directory: &Path) -> Result<Self, Vec<Problem>> {
        let file = directory.join(FILE);
        let faults = match std::fs::read_to_string(&file) {
            Ok(text) => match Self::parse(&text) {
                Ok(overlay) => return Ok(overlay),
                Err(faults) => faults,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => vec![(0, format!("failed to read the overlay: {error}"))],
        };
        let problem = |(line, message)| Problem { file: file.clone(), line, severity: Severity::Error, message };
        Err(faults.into_iter().map(problem).collect())
    }

    /// Parses the text of an overlay; every fault that can be found is reported, sorted by line.
    pub fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        // A file of comments alone, or an empty one, says nothing.
        if text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty()) {
            return Ok(Self::default());
        }
        let raw: RawOverlay = serde_saphyr::from_str(text).map_err(|error| vec![syntax(&error)])?;
        let mut faults = Vec::new();
        if let Some(secrets) = raw.secrets {
            faults.push((line(&secrets), "`secrets` is not supported yet: give `env` to the server".to_owned()));
        }
        let listen = raw.listen.and_then(|text| {
            let address = text.value.parse().ok();
            if address.is_none() {
                let message = format!("listen: `{}` is not an address with a port, as in 127.0.0.1:8811", text.value);
                faults.push((line(&text), message));
            }
            address
        });
        let mut servers = BTreeMap::new();
        for (name, raw) in raw.servers {
            match server(&name, raw) {
                Ok(server) => _ = servers.insert(name, server),
                Err(fault) => faults.push(fault),
            }
        }
        let mut identities = BTreeMap::new();
        for (name, raw) in raw.identities {
            match identity(&name, raw) {
                Ok(identity) => _ = identities.insert(name, identity),
                Err(fault) => faults.push(fault),
            }
        }
        faults.sort();
        if faults.is_empty() { Ok(Self { listen, servers, identities }) } else { Err(faults) }
    }
}

fn server(name: &str, raw: Spanned<RawServer>) -> Result<Server, Fault> {
    let at = line(&raw);
    let raw = raw.value;
    let launch = match (raw.command, raw.url) {
        (Some(command), None) => {
            if command.first().is_none_or(String::is_empty) {
                return Err((at, format!("servers.{name}.command: name a program, as in [npx, -y, some-server]")));
            }
            let children = children(raw.max_children, raw.children_per_caller)
                .map_err(|what| (at, format!("servers.{name}.{what}")))?;
            Launch::Command { command, env: raw.env, directory: raw.directory, children }
        }
        (None, Some(url)) => {
            if !raw.env.is_empty() || raw.directory.is_some() {
                let message = format!("servers.{name}: `env` and `directory` belong to a `command`, not to a `url`");
                return Err((at, message));
            }
            if raw.max_children.is_some() || raw.children_per_caller.is_some() {
                let message = "`maxChildren` and `childrenPerCaller` belong to a `command`, not to a `url`";
                return Err((at, format!("servers.{name}: {message}")));
            }
            check_url(&url.value).map_err(|what| (line(&url), format!("servers.{name}.url: {what}")))?;
            Launch::Url(url.value)
        }
        (Some(_), Some(_)) => return Err((at, format!("servers.{name}: give `command` or `url`, not both"))),
        (None, None) => return Err((at, format!("servers.{name}: give a `command` to run or a `url` to reach"))),
    };
    Ok(Server { line: at, launch })
}

/// What is left out is the gateway's own bound, but never more for one caller than there are.
fn children(most: Option<usize>, per_caller: Option<usize>) -> Result<Children, String> {
    let most = match most {
        Some(most) if !(1..=CHILDREN).contains(&most) => {
            return Err(format!("maxChildren: {most} is not from 1 to {CHILDREN}"));
        }
        Some(most) => most,
        None => limits::CHILDREN.max(per_caller.unwrap_or_default().min(CHILDREN)),
    };
    match per_caller {
        Some(0) => Err("childrenPerCaller: a caller needs at least 1".to_owned()),
        Some(own) if own > most => Err(format!("childrenPerCaller: {own} is more than maxChildren, {most}")),
        Some(own) => Ok(Children { most, per_caller: own }),
        None => Ok(Children { most, per_caller: limits::CHILDREN_PER_CALLER.min(most) }),
    }
}

/// Whether `text` is an absolute http or https URL.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    let url: http::Uri = text.parse().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(_)) => Ok(()),
        _ => Err(format!("`{text}` is not an http or https URL, as in http://127.0.0.1:3000/mcp")),
    }
}

fn identity(name: &str, raw: Spanned<RawIdentity>) -> Result<Identity, Fault> {
    let at = line(&raw);
    let fault = |message: String| Err((at, format!("identities.{name}: {message}")));
    let raw = raw.value;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@');
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(plain) {
        return fault(format!("a name has 1 to {NAME_BYTES} letters, digits and `-_.@`"));
    }
    if raw.subject.trim().is_empty() {
        return fault("`subject` must not be empty".to_owned());
    }
    if let Some(claim) = RESERVED_CLAIMS.into_iter().find(|claim| raw.claims.contains_key(*claim)) {
        return fault(match claim {
            "sub" => "the claim `sub` is set by `subject`".to_owned(),
            "groups" => "the claim `groups` is set by `groups`".to_owned(),
            "scope" | "scp" => format!("the claim `{claim}` is set by `scopes`"),
            _ => format!("the claim `{claim}` is set by toolgate and cannot be overridden"),
        });
    }
    if let Some(scope) = raw.scopes.iter().find(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
        return fault(format!("`{scope}` is not one scope: scopes hold no spaces"));
    }
    let RawIdentity { subject, groups, claims, scopes, issuer } = raw;
    Ok(Identity { line: at, subject, groups, claims, scopes, issuer })
}

fn line<T>(spanned: &Spanned<T>) -> usize {
    usize::try_from(spanned.referenced.line()).unwrap_or(0)
}

/// Line and text of a parser's error, without its own rendering of the place.
fn syntax(error: &serde_saphyr::Error) -> Fault {
    let line = error.location().map_or(0, |location| usize::try_from(location.line()).unwrap_or(0));
    let text = error.without_snippet().to_string();
    let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
    let message = place.and_then(|place| text.strip_suffix(&place)).unwrap_or(&text);
    (line, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<Fault> {
        Overlay::parse(text).expect_err("the text has faults")
    }

    #[test]
    fn reads_every_field() {
        let text = concat!(
            "listen: 127.0.0.1:8811\n",
            "servers:\n",
            "  files: {command: [npx, -y, some-server, ./data], env: {LEVEL: info}, directory: work,\n",
            "    maxChildren: 8, childrenPerCaller: 2}\n",
            "  far: {url: \"https://mcp.example.com/mcp\"}\n",
            "identities:\n",
            "  ada:\n",
            "    subject: ada@example.com\n",
            "    groups: [engineering]\n",
            "    claims: {department: platform, mfa: true}\n",
            "    scopes: [\"mcp:deploy\"]\n",
            "    issuer: corp\n",
        );

        let overlay = Overlay::parse(text).expect("valid");

        assert_eq!(overlay.listen, Some(SocketAddr::from(([127, 0, 0, 1], 8811))));
        let files = Launch::Command {
            command: ["npx", "-y", "some-server", "./data"].map(String::from).into(),
            env: [("LEVEL".to_owned(), "info".to_owned())].into(),
            directory: Some("work".into()),
            children: Children { most: 8, per_caller: 2 },
        };
        assert_eq!(overlay.servers["files"], Server { line: 3, launch: files });
        assert_eq!(overlay.servers["far"].launch, Launch::Url("https://mcp.example.com/mcp".to_owned()));
        let ada = &overlay.identities["ada"];
        assert_eq!((ada.subject.as_str(), ada.issuer.as_deref()), ("ada@example.com", Some("corp")));
        assert_eq!((ada.groups.len(), ada.scopes.len(), ada.claims.len()), (1, 1, 2));
    }

    #[test]
    fn says_nothing_where_nothing_is_said() {
        assert_eq!(Overlay::parse(""), Ok(Overlay::default()));
        assert_eq!(Overlay::parse("# only a comment\n\n"), Ok(Overlay::default()));
    }

    #[test]
    fn unknown_fields_are_named_with_their_line() {
        let top = faults("listen: 127.0.0.1:1\nlistn: 2\n");
        assert_eq!(top.len(), 1);
        assert_eq!(top[0].0, 2, "{top:?}");
        assert!(top[0].1.contains("listn") && !top[0].1.contains("column"), "{top:?}");

        let inner = faults("servers:\n  files:\n    command: [a]\n    image: b\n");
        assert_eq!(inner[0].0, 4, "{inner:?}");
        assert!(inner[0].1.contains("image"), "{inner:?}");
    }

    #[test]
    fn secrets_are_refused_as_not_supported_yet() {
        let found = faults("listen: 127.0.0.1:1\nsecrets: {token: {a: b}}\n");
        assert_eq!(found, [(2, "`secrets` is not supported yet: give `env` to the server".to_owned())]);
    }

    #[test]
    fn half_written_text_and_duplicate_keys_are_refused() {
        assert!(faults("servers:\n  files: {command: [npx, ")[0].0 >= 2);
        assert!(!faults("identities:\n  a: {subject: x}\n  a: {subject: y}\n").is_empty());
        assert!(!faults("- a\n- b\n").is_empty());
    }

    #[test]
    fn every_fault_is_reported_by_line() {
        let text = concat!(
            "listen: somewhere\n",                             // 1
            "servers:\n",                                      // 2
            "  both: {command: [a], url: \"http://b/\"}\n",    // 3
            "  none: {}\n",                                    // 4
            "  empty: {command: []}\n",                        // 5
            "  ftp: {url: \"ftp://example.com/\"}\n",          // 6
            "  mixed: {url: \"http://a/\", env: {A: b}}\n",    // 7
            "identities:\n",                                   // 8
            "  nobody: {subject: \"\"}\n",                     // 9
            "  forger: {subject: a, claims: {iss: b}}\n",      // 10
            "  member: {subject: a, claims: {groups: [b]}}\n", // 11
            "  wide: {subject: a, scopes: [\"a b\"]}\n",       // 12
            "  \"a/b\": {subject: a}\n",                       // 13
        );

        let found = faults(text);

        let lines: Vec<usize> = found.iter().map(|fault| fault.0).collect();
        assert_eq!(lines, [1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13], "{found:#?}");
        let words = [
            "not an address with a port",
            "not both",
            "give a `command`",
            "name a program",
            "not an http or https URL",
            "belong to a `command`",
            "`subject` must not be empty",
            "`iss` is set by toolgate",
            "`groups` is set by `groups`",
            "scopes hold no spaces",
            "1 to 63 letters",
        ];
        for ((_, message), words) in found.iter().zip(words) {
            assert!(message.contains(words), "{message:?} should say {words:?}");
        }
    }

    #[test]
    fn processes_are_bounded_for_a_server_and_for_a_caller() {
        let bounds = |fields: &str| {
            let overlay = Overlay::parse(&format!("servers: {{s: {{command: [a]{fields}}}}}"));
            overlay.map(|overlay| match &overlay.servers["s"].launch {
                Launch::Command { children, .. } => (children.most, children.per_caller),
                Launch::Url(url) => panic!("{url}"),
            })
        };
        assert_eq!(bounds(""), Ok((16, 4)));
        assert_eq!(bounds(", maxChildren: 2"), Ok((2, 2)), "a caller never has more than there are");
        assert_eq!(bounds(", maxChildren: 3, childrenPerCaller: 1"), Ok((3, 1)));
        assert_eq!(bounds(", childrenPerCaller: 20"), Ok((20, 20)));
        for (fields, words) in [
            (", maxChildren: 0", "servers.s.maxChildren: 0 is not from 1 to 256"),
            (", maxChildren: 257", "maxChildren: 257 is not from 1 to 256"),
            (", childrenPerCaller: 0", "servers.s.childrenPerCaller: a caller needs at least 1"),
            (", maxChildren: 2, childrenPerCaller: 3", "childrenPerCaller: 3 is more than maxChildren, 2"),
            (", childrenPerCaller: 300", "childrenPerCaller: 300 is more than maxChildren, 256"),
        ] {
            let found = bounds(fields).unwrap_err();
            assert!(found[0].1.contains(words), "{found:?} should say {words:?}");
        }
        let found = faults("servers: {s: {url: \"http://a/\", maxChildren: 2}}");
        assert!(found[0].1.contains("belong to a `command`"), "{found:?}");
    }

    #[test]
    fn a_folder_without_overlay_has_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Overlay::read(directory.path()), Ok(Overlay::default()));

        std::fs::write(directory.path().join(FILE), "listen: 1\n").unwrap();
        let problems = Overlay::read(directory.path()).unwrap_err();
        assert_eq!((problems[0].line, problems[0].severity), (1, Severity::Error));
        assert_eq!(problems[0].file, directory.path().join(FILE));
    }
}
