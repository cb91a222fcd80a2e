//! McpRole: who may use what, under which conditions.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Reference, StringOrInteger, ToolAnnotations};
use super::status::McpRoleStatus;

/// A role: its subjects, and the rules that hold for them. What no rule allows is denied, and a rule that denies wins
/// over every rule that allows. A role grants only in its own namespace. Writing an McpRole equals granting.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "toolgate.dev",
    version = "v1alpha1",
    kind = "McpRole",
    namespaced,
    category = "mcp",
    shortname = "mcpr",
    derive = "PartialEq",
    status = "McpRoleStatus",
    doc = "Who may use which tools, prompts and resources of this namespace's McpServers, under which conditions.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.effective.tools"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.effective.servers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct McpRoleSpec {
    /// Roles of this namespace whose rules hold here too, those that deny included. Roles that inherit each other in
    /// a circle grant nothing until the circle is broken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub inherits: Vec<Reference>,
    /// Who has the role. Unset: nobody by token; the role may still be inherited, or be that of anonymous callers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub subjects: Vec<Subject>,
    /// What the subjects may, and may not, use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rules: Vec<RoleRule>,
}

/// Who has the role. `kind` says which other members are used.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("self.kind == 'Claim' ? has(self.claim) && has(self.values) : !has(self.claim) && !has(self.values)")
    .message("claim and values are required with kind Claim, and have no meaning with other kinds"))]
#[x_kube(validation = Rule::new("(self.kind == 'Claim') != has(self.name)")
    .message("name is required with kinds User, Group, ServiceAccount and Scope, and has no meaning with kind Claim"))]
#[x_kube(validation = Rule::new("(self.kind == 'ServiceAccount') == has(self.__namespace__)")
    .message("namespace is required with kind ServiceAccount, and has no meaning with other kinds"))]
pub struct Subject {
    /// `User`: the caller whose subject is `name`. `Group`: callers whose groups hold `name`. `ServiceAccount`: the
    /// ServiceAccount `name` of `namespace`. `Scope`: callers whose token has the OAuth scope `name`. `Claim`: callers
    /// whose token has one of `values` in `claim`.
    pub kind: SubjectKind,
    /// The user, group, ServiceAccount or scope, exactly; no globs. Example: `engineering`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// With `ServiceAccount`: its namespace. Example: `ci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Name of an issuer in `spec.issuers` of an McpGateway of this namespace. May be left out only where the
    /// namespace has exactly one; with `ServiceAccount`, exactly one with `serviceAccounts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub issuer: Option<String>,
    /// With `Claim`: name of a top-level claim. Example: `department`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// With `Claim`: the values of which the claim must have one. The claim is a string, or a list that holds strings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub values: Vec<String>,
}

/// What a subject is named by.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum SubjectKind {
    /// The subject claim.
    User,
    /// The groups claim.
    Group,
    /// A ServiceAccount of the cluster.
    ServiceAccount,
    /// Any claim.
    Claim,
    /// An OAuth scope.
    Scope,
}

/// What subjects may, or may not, use. The rule is about the tools, prompts and resources that it names, at the
/// servers that it names. All of its conditions must hold for it to count.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.servers) || has(self.serverSelector)")
    .message("a rule must say at which servers it holds: set servers or serverSelector"))]
#[x_kube(validation = Rule::new("has(self.tools) || has(self.toolSelector) || has(self.prompts) || has(self.resources)")
    .message("a rule must say what it is about: set tools, toolSelector, prompts or resources"))]
pub struct RoleRule {
    /// `Allow` or `Deny`. A rule that denies wins over all that allow, from whichever role.
    pub effect: Effect,
    /// Globs over names of McpServers of this namespace: `*` stands for any characters, `?` for one, `{a,b}` for
    /// either. Example: `[github, "deploy-*"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub servers: Vec<String>,
    /// Servers by their labels, besides those in `servers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_selector: Option<ServerSelector>,
    /// Globs over the tools' names at the server (not their exposed names). Example: `["list_*", "get_*"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Tools by what their McpTool declares, besides those in `tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_selector: Option<ToolSelector>,
    /// Globs over names of prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prompts: Vec<String>,
    /// Globs over URIs of resources; `*` matches `/` too. They hold for reading, for subscriptions, and for templates
    /// that could give such a URI. Example: `["repo://acme/*"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resources: Vec<String>,
    /// Conditions on the arguments of a call; all must hold. A path that is missing, or a value of another type, fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub arguments: Vec<Argument>,
    /// When the rule counts. Unset: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_window: Option<TimeWindow>,
    /// A CEL expression over `identity` (issuer, subject, groups, scopes, claims), `arguments`, `tool` and `now`, for
    /// what the other conditions cannot say. At most 1 KiB, no comprehension inside another. If it fails to evaluate,
    /// an `Allow` rule does not count and a `Deny` rule does. Example: `identity.claims.mfa == true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Effect {
    /// Permits.
    Allow,
    /// Refuses.
    Deny,
}

/// Selects McpServers by their labels.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerSelector {
    /// Labels that the McpServer must all have.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
}

/// Selects tools by what their McpTool declares. Everything that is set must hold.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct ToolSelector {
    /// Annotations that the tool must have; what the McpTool leaves out has its cautious default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<ToolAnnotations>,
    /// Capabilities that the tool must all have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub capabilities: Vec<String>,
    /// Labels that the McpTool must all have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
}

/// A condition on one argument. All that is set must hold; nothing is converted.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("has(self.__in__) || has(self.below) || has(self.minimum) || has(self.maximum)")
    .message("a condition on an argument must say what is permitted: set in, below, minimum or maximum"))]
#[x_kube(validation = Rule::new("!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum")
    .message("minimum must not be above maximum"))]
#[x_kube(validation = Rule::new("!(has(self.__in__) || has(self.minimum) || has(self.maximum)) || !has(self.below)")
    .message("below is about paths and cannot be combined with in, minimum or maximum"))]
pub struct Argument {
    /// JSON pointer (RFC 6901) into the arguments. Example: `/environment`.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^/"))]
    pub path: String,
    /// The value is one of these strings or integers. Example: `[development, staging]`.
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub one_of: Vec<StringOrInteger>,
    /// The value is a path equal to or below one of these folders, by whole segments. A path with `.`, `..` or empty
    /// segments, a backslash or a NUL fails. Example: `[/srv/data]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub below: Vec<String>,
    /// The value is a number of at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub minimum: Option<i64>,
    /// The value is a number of at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    pub maximum: Option<i64>,
}

/// A weekly window.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.start != self.end")
    .message("start and end must differ; from 00:00 to 24:00 is the whole day"))]
pub struct TimeWindow {
    /// Days on which the window starts. Unset: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub days: Vec<Day>,
    /// When it starts, `HH:MM`, inclusive. Example: `"09:00"`.
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// When it ends, `HH:MM`, exclusive. Before `start`: on the next day. Example: `"17:00"`.
    #[schemars(length(max = 5), regex(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub end: String,
    /// IANA time zone. Example: `Europe/Berlin`.
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}
