//! `toolgate explain`: who may use what, and which role, rule and condition says so. Starts nothing.
//!
//! Owns the questions and the shape of the answers; every verdict is that of [`crate::policy::explain`].

mod gather;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::access::Access;
use super::manifests::{Loader, Problem};
use super::overlay::Overlay;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The folder of manifests.
    pub directory: PathBuf,
    /// Name of an identity in the overlay, or a subject; `None` asks about every identity of the overlay.
    pub who: Option<String>,
    /// Issuer of the subject; needed where there are several.
    pub issuer: Option<String>,
    /// Groups besides those of the overlay's identity.
    pub groups: Vec<String>,
    /// Claims besides those of the overlay's identity.
    pub claims: Map<String, Value>,
    /// Scopes besides those of the overlay's identity.
    pub scopes: Vec<String>,
    /// One server by name; `None` asks about all.
    pub server: Option<String>,
    /// One tool by its own or its exposed name.
    pub tool: Option<String>,
    /// JSON object; `None` asks about some arguments.
    pub arguments: Option<String>,
    /// The instant that counts.
    pub at: Timestamp,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The folder cannot be read.
    #[error("failed to read {0}")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The overlay is broken.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Overlay(Vec<Problem>),
    /// The question makes no sense for these manifests.
    #[error("{0}")]
    Question(String),
}

/// An answer, and what is wrong with the manifests that it was made from.
#[derive(Debug)]
pub struct Explained {
    /// The answer.
    pub answer: Answer,
    /// Findings of the loader: what is not in force is not in the answer either.
    pub problems: Vec<Problem>,
}

/// The three kinds of answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Every identity, every declared tool.
    Matrix(Matrix),
    /// One identity, everything declared.
    Caller(Caller),
    /// One identity, one call.
    Call(Call),
}

/// Who may use which declared tool.
#[derive(Debug, Serialize)]
pub struct Matrix {
    /// Names of the identities: the columns.
    pub identities: Vec<String>,
    /// The tools: the rows.
    pub tools: Vec<MatrixRow>,
}

/// One tool of a [`Matrix`].
#[derive(Debug, Serialize)]
pub struct MatrixRow {
    /// The McpServer.
    pub server: String,
    /// Its name at the server.
    pub tool: String,
    /// Access by name of the identity; those who never have any are left out.
    pub access: BTreeMap<String, Access>,
    /// The rules that decide, by name of the identity, where access is conditional.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub conditions: BTreeMap<String, Vec<String>>,
}

/// What one identity may use.
#[derive(Debug, Serialize)]
pub struct Caller {
    /// Who is asked about.
    pub identity: Who,
    /// Its roles, and why it has them.
    pub roles: Vec<RoleOf>,
    /// Declared tools.
    pub tools: Vec<ToolOf>,
    /// Rules about prompts and resources, which need no declaration.
    pub others: Vec<PatternOf>,
    /// What this answer does not know.
    pub notes: Vec<String>,
}

/// Whether one call is allowed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Who is asked about.
    pub identity: Who,
    /// Its roles, and why it has them.
    pub roles: Vec<RoleOf>,
    /// The McpServer.
    pub server: String,
    /// Name of the tool at the server.
    pub tool: String,
    /// Whether the call is forwarded.
    pub allowed: bool,
    /// What the caller is told.
    pub answer: String,
    /// Why.
    pub reason: String,
    /// The rule that decided, as `ROLE rules[INDEX]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Every rule that was looked at.
    pub rules: Vec<RuleOf>,
    /// Hash of the policy that decided, without keys and URLs: the same in a cluster.
    pub access_hash: String,
}

/// An identity, resolved.
#[derive(Debug, Serialize)]
pub struct Who {
    /// Name in the overlay, or the subject.
    pub name: String,
    /// Issuer's name.
    pub issuer: String,
    /// The subject.
    pub subject: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Every claim.
    pub claims: Map<String, Value>,
}

/// A role and why the identity has it.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct RoleOf {
    /// `metadata.name`.
    pub role: String,
    /// `group engineering`, or `inherited by developer`.
    pub because: String,
}

/// A declared tool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolOf {
    /// The McpServer.
    pub server: String,
    /// Name at the server.
    pub tool: String,
    /// Name for callers, where it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_name: Option<String>,
    /// Whether the identity may use it.
    pub access: Access,
    /// Why not, where no rule is about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every rule that is about it.
    pub rules: Vec<RuleOf>,
}

/// What one rule says.
#[derive(Debug, Serialize)]
pub struct RuleOf {
    /// `ROLE rules[INDEX]`.
    pub rule: String,
    /// `Allow` or `Deny`.
    pub effect: String,
    /// Whether it counts.
    pub matched: bool,
    /// Why, in words.
    pub because: String,
}

/// A rule about prompts or resources.
#[derive(Debug, Serialize)]
pub struct PatternOf {
    /// The McpServer.
    pub server: String,
    /// `prompt` or `resource`.
    pub kind: &'static str,
    /// The glob.
    pub pattern: String,
    /// `Allow` or `Deny`.
    pub effect: String,
    /// `ROLE rules[INDEX]`.
    pub rule: String,
    /// Whether the rule has conditions besides.
    pub conditional: bool,
}

/// Answers a question from a folder.
pub fn explain(question: &Question) -> Result<Explained, ExplainError> {
    let folder_error = |error| ExplainError::Folder(question.directory.clone(), error);
    let loaded = Loader::new(&question.directory).load().map_err(folder_error)?;
    let overlay = Overlay::read(&question.directory).map_err(ExplainError::Overlay)?;
    let answer = gather::answer(question, &loaded.world, &overlay)?;
    Ok(Explained { answer, problems: loaded.problems })
}

impl Answer {
    /// Whether what was asked is allowed; an answer about many things is no refusal.
    pub fn allowed(&self) -> bool {
        match self {
            Self::Call(call) => call.allowed,
            Self::Matrix(_) | Self::Caller(_) => true,
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        match self {
            Self::Matrix(matrix) => text::matrix(matrix),
            Self::Caller(caller) => text::caller(caller),
            Self::Call(call) => text::call(call),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

#[cfg(test)]
mod tests;
