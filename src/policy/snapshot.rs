//! The compiled policy for one target: plain data, deterministic, hashed. What a gateway enforces.
//!
//! A field that a gateway does not know must never be skipped, because it may restrict: every type refuses unknown
//! fields, and [`Snapshot::format`] names the shape. Lists are sorted by `compile`, so the same objects in any
//! order give the same bytes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The shape of [`Snapshot`] that this build writes and reads.
pub const FORMAT: u32 = 1;

/// What a gateway must understand to enforce [`Snapshot::deny_after_seconds`].
pub const DISCONNECTED_DENY: &str = "disconnected-deny";

/// Everything that one gateway needs to decide about calls to one server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// The server that this policy protects.
    pub target: Target,
    /// URLs of the endpoint, the canonical one first: each is an accepted token audience (RFC 8707).
    pub urls: Vec<String>,
    /// Whether tools without a declaration may be seen and called.
    pub registration: Registration,
    /// What the server may ask its callers.
    pub server_requests: ServerRequests,
    /// After so many seconds without a word from the policy server every call is refused. Absent: what is known stays
    /// in force for as long as it takes. A gateway must understand [`DISCONNECTED_DENY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_after_seconds: Option<u32>,
    /// What becomes of a session whose server's side is gone.
    #[serde(default, skip_serializing_if = "OnLoss::is_default")]
    pub on_loss: OnLoss,
    /// Declared tools, sorted by name.
    pub tools: Vec<Tool>,
    /// Roles with at least one rule for this server, and the roles that inherit them, sorted by name.
    pub roles: Vec<Role>,
    /// Role of callers without a token; absent: such callers are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<String>,
    /// Token issuers, sorted by name, then URL.
    pub issuers: Vec<Issuer>,
    /// The objects that this was compiled from, sorted.
    pub inputs: Vec<Input>,
}

impl Snapshot {
    /// The RFC 8785 form: what is hashed, signed and stored.
    ///
    /// # Panics
    /// Never: every field serializes, and no float is among them.
    #[allow(clippy::expect_used)]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).expect("a snapshot holds only strings, integers, booleans and lists")
    }

    /// What a gateway must understand beyond the format; who does not, refuses the snapshot instead of enforcing less.
    pub fn requires(&self) -> Vec<&'static str> {
        self.deny_after_seconds.map(|_| DISCONNECTED_DENY).into_iter().collect()
    }

    /// `sha256:` and the hex digest of [`Snapshot::canonical`].
    pub fn hash(&self) -> String {
        hex_digest(&self.canonical())
    }

    /// Digest over what decides access alone: rules, tool table and subjects, not issuers' keys, URLs or inputs.
    /// A folder of manifests and a cluster agree on it.
    pub fn access_hash(&self) -> String {
        let on_loss = OnLoss::default();
        let bare = Self { issuers: Vec::new(), urls: Vec::new(), inputs: Vec::new(), on_loss, ..self.clone() };
        hex_digest(&bare.canonical())
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a String cannot fail.
        text
    })
}

/// Namespace and name of an McpServer.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Namespace of the server; `default` on a laptop unless the manifest says otherwise.
    pub namespace: String,
    /// `metadata.name` of the server.
    pub server: String,
}

/// Whether tools without an McpTool exist for callers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Registration {
    /// Only declared tools.
    #[default]
    Declared,
    /// Every tool that the server lists; rules decide by name.
    Auto,
}

/// What a server may ask the caller of a running call.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRequests {
    /// `elicitation/create`.
    pub elicitation: Elicitation,
    /// `sampling/createMessage`.
    pub sampling: Leave,
    /// `roots/list`.
    pub roots: Leave,
}

impl Default for ServerRequests {
    fn default() -> Self {
        Self { elicitation: Elicitation::Form, sampling: Leave::Deny, roots: Leave::Deny }
    }
}

/// What becomes of a session when its server's process, or the server's own session, is gone.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum OnLoss {
    /// It is begun anew, and its client is told.
    #[default]
    Replay,
    /// It is answered with 404: its client begins another one.
    NotFound,
}

impl OnLoss {
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde gives a reference.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which elicitations a server may send.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Elicitation {
    /// Only forms, shown by the client.
    Form,
    /// Forms, and URLs that the user is asked to open.
    FormAndUrl,
    /// None.
    Deny,
}

/// Whether a request from a server passes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Leave {
    /// It reaches the caller.
    Allow,
    /// The gateway answers it with an error.
    Deny,
}

/// A declared tool.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tool {
    /// Name at the server: what rules match.
    pub name: String,
    /// Name for callers, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposed_name: Option<String>,
    /// Title for callers, where it is overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Description for callers, where it is overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the declaration says about the tool; the server's own hints are not trusted.
    pub annotations: Annotations,
    /// Capabilities that `toolSelector` matches, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Labels of the McpTool that `toolSelector` matches.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Whether the tool may be used.
    pub lifecycle: Lifecycle,
    /// What callers of a deprecated tool read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
}

/// What the author of an McpTool believes about it. Unset means the cautious value.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // The four hints of the protocol, which are independent of each other.
pub struct Annotations {
    /// Changes nothing. Default false.
    pub read_only: bool,
    /// May destroy. Default true unless read-only.
    pub destructive: bool,
    /// A repeated call has no further effect. Default false.
    pub idempotent: bool,
    /// Reaches beyond the server. Default true.
    pub open_world: bool,
}

/// Stage of a tool's life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Lifecycle {
    /// In use.
    #[default]
    Active,
    /// In use, callers are told to move on.
    Deprecated,
    /// Looks as if it did not exist.
    Disabled,
}

/// What callers of a deprecated tool are told.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deprecation {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// RFC 3339 instant after which the tool is treated as disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sunset_time: Option<jiff::Timestamp>,
    /// Name of the McpTool to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// A role, reduced to what concerns the target.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// `metadata.name` of the McpRole.
    pub name: String,
    /// Names of inherited roles, sorted; free of cycles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inherits: Vec<String>,
    /// Who has this role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// Rules in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// Who has a role. `issuer` is a name in `spec.issuers` of the gateway.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Subject {
    /// One caller by subject.
    User {
        /// Issuer's name.
        issuer: String,
        /// Value of the subject claim.
        name: String,
    },
    /// Whoever has this group.
    Group {
        /// Issuer's name.
        issuer: String,
        /// Value in the groups claim.
        name: String,
    },
    /// Whoever has this claim with one of these values (a string, or a list that holds one).
    Claim {
        /// Issuer's name.
        issuer: String,
        /// Top-level claim.
        claim: String,
        /// Accepted values, sorted.
        values: Vec<String>,
    },
    /// Whoever's token carries this OAuth scope.
    Scope {
        /// Issuer's name.
        issuer: String,
        /// The scope.
        name: String,
    },
}

/// One rule of a role, reduced to the target (its servers have been resolved).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Position in the manifest's `spec.rules`, for reports.
    pub index: u32,
    /// Allow or deny.
    pub effect: Effect,
    /// Globs over server-side tool names: `*` any run of characters (also `/`), `?` one, `{a,b}` either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Selection of tools by what they declare. A rule is about the tools that `tools` names and those that this
    /// selects (the union). A tool without a declaration is never selected by an Allow rule; a Deny rule selects it
    /// as if it were declared with the cautious annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_selector: Option<ToolSelector>,
    /// Globs over prompt names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Globs over resource URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Conditions on arguments; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<ArgumentRule>,
    /// When the rule counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_window: Option<TimeWindow>,
    /// CEL source over `identity`, `arguments`, `tool`, `now`; see [`super::check_condition`] for its bounds. An error
    /// is no match in an Allow rule and a match in a Deny rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// What a rule does when it matches.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Effect {
    /// Permits.
    Allow,
    /// Refuses, whatever else allows.
    Deny,
}

/// Selects tools by their declaration; everything named must hold, so an empty selector selects all.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolSelector {
    /// Annotations that must have these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// See `read_only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive: Option<bool>,
    /// See `read_only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// See `read_only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world: Option<bool>,
    /// Capabilities that the tool must all have, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Labels that the McpTool must all have.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub match_labels: std::collections::BTreeMap<String, String>,
}

/// Conditions on one argument; all that are set must hold. Nothing is coerced.
///
/// A missing path, or a value of another type, fails in an Allow rule and counts as a match in a Deny rule: whoever
/// leaves an argument out does not get around a Deny. A Deny rule with conditions should therefore name the tools
/// that have the argument.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArgumentRule {
    /// JSON pointer (RFC 6901) into the arguments.
    pub path: String,
    /// The value equals one of these; `1e2` equals 100, `"100"` does not.
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<Scalar>,
    /// The value is a path equal to or below one of these folders, by whole segments; a path with `.`, `..` or
    /// empty segments, a backslash or a NUL counts as a value of another type. One slash at the end is no segment.
    /// Text is compared: a relative path is only below a relative folder, and links are the server's to forbid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<String>,
    /// The value is a number of at least this. A decimal is read as the nearest IEEE 754 double and then compared
    /// exactly; integers are exact at any size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<i64>,
    /// The value is a number of at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<i64>,
}

/// A value to compare with: integers and strings only, never floats.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A JSON integer.
    Integer(i64),
    /// A JSON string.
    String(String),
}

/// A weekly window in a time zone; `start` after `end` wraps over midnight and belongs to the day it starts on. Equal
/// ends make 24 hours. Wall-clock time decides: what a zone skips in spring does not happen, what it repeats in
/// autumn happens twice.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeWindow {
    /// Days on which the window starts, Monday = 1 to Sunday = 7, sorted; empty means every day.
    pub days: Vec<u8>,
    /// Minutes after midnight, inclusive.
    pub start_minute: u16,
    /// Minutes after midnight, exclusive.
    pub end_minute: u16,
    /// IANA time zone.
    pub time_zone: String,
}

/// Who signs tokens, and how its claims are read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// Name that subjects refer to.
    pub name: String,
    /// The `iss` claim, exactly.
    pub url: String,
    /// Claim that becomes [`super::Identity::subject`]; `email` counts only with `email_verified`.
    pub subject_claim: String,
    /// Claim that becomes [`super::Identity::groups`].
    pub groups_claim: String,
    /// Where its keys come from.
    pub keys: Keys,
    /// Its tokens are those of a cluster's ServiceAccounts: nobody can log in there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service_accounts: bool,
}

/// Source of an issuer's public keys.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Keys {
    /// A JWK set, as JSON text.
    Inline(String),
    /// A URL that answers with a JWK set.
    Url(String),
    /// `jwks_uri` of the issuer's own metadata (`OpenID` Connect Discovery, RFC 8414).
    Discovery,
}

/// One object that a snapshot was compiled from.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Kind of the object.
    pub kind: String,
    /// Its name; the namespace is the target's.
    pub name: String,
    /// `metadata.uid`, empty on a laptop.
    pub uid: String,
    /// `metadata.generation`, 0 on a laptop.
    pub generation: i64,
}
