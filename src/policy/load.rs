//! A snapshot, made ready to decide: globs, conditions and tables compiled once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::decide::RuleRef;
use super::identity::Identity;
use super::roles::Roles;
use super::rule::{self, CompiledRule, Subject};
use super::snapshot::{FORMAT, Rule, Snapshot, Tool};

/// Largest snapshot that [`Policy::from_json`] reads, in bytes.
pub const SNAPSHOT_BYTES: usize = 16 << 20;
/// Most roles of a snapshot.
const ROLES: usize = 1_000;
/// Most rules of a snapshot, all roles together.
const RULES: usize = 10_000;
/// Most declared tools of a snapshot.
const TOOLS: usize = 5_000;

/// A loaded snapshot. Immutable; swapped as a whole.
#[derive(Debug)]
pub struct Policy {
    snapshot: Snapshot,
    hash: Arc<str>,
    /// Positions in `snapshot.tools` by server-side name.
    by_name: HashMap<String, usize>,
    /// Positions in `snapshot.tools` by the name that callers know.
    by_exposed_name: HashMap<String, usize>,
    /// Beside `snapshot.tools`: the variable `tool`, if some condition reads it.
    variables: Vec<Option<Value>>,
    /// Beside `snapshot.tools`: positions of the rules that name the tool, ascending.
    pub(super) rules_of_tools: Vec<Vec<u32>>,
    /// By name of the role, then index: the order in which the first match is looked for.
    pub(super) rules: Vec<CompiledRule>,
    pub(super) roles: Roles,
}

/// Why a snapshot cannot be enforced. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Written by a newer or older build.
    #[error("failed to load the snapshot: format {0} is not {expected}", expected = super::snapshot::FORMAT)]
    Format(u32),
    /// More bytes than [`SNAPSHOT_BYTES`].
    #[error("failed to load the snapshot: {0} bytes are more than {SNAPSHOT_BYTES}")]
    TooLarge(usize),
    /// More of something than can be enforced.
    #[error("failed to load the snapshot: {count} {what} are more than {limit}")]
    TooMany {
        /// `roles`, `rules` or `tools`.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Not the JSON of a snapshot, or with a field that this build does not know.
    #[error("failed to read the snapshot")]
    Json(#[source] serde_json::Error),
    /// Two things of one name, so that it would not be clear which is meant.
    #[error("failed to load the snapshot: two {what}s are called {name:?}")]
    Duplicate {
        /// `role`, `tool`, `exposed tool` or `issuer URL`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A role inherits one that is not there.
    #[error("failed to load role {role:?}: it inherits {inherited:?}, which does not exist")]
    UnknownRole {
        /// The heir.
        role: String,
        /// What it inherits.
        inherited: String,
    },
    /// Roles inherit each other in a circle.
    #[error("failed to load role {0:?}: it is on a cycle of inheritance, or inherited by one")]
    Cycle(String),
    /// A rule that cannot be compiled.
    #[error("failed to load rule {index} of role {role:?}: {field}: {message}")]
    Rule {
        /// The role.
        role: String,
        /// Position in `spec.rules`.
        index: u32,
        /// The field of the rule.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

/// What one caller's roles come to under one policy. Cached with the verified token, per [`Policy::hash`]. Under
/// another policy it grants nothing.
#[derive(Clone, Debug)]
pub struct SubjectView {
    /// Names of the caller's roles, inherited ones included, sorted.
    pub roles: Vec<Arc<str>>,
    pub(super) policy: Arc<str>,
    pub(super) candidates: Arc<Candidates>,
}

/// The rules of a caller's roles, arranged for [`Policy::decide`].
#[derive(Debug)]
pub(super) struct Candidates {
    /// Positions of all rules, ascending.
    pub(super) all: Vec<u32>,
    /// Positions of the rules of each declared tool, one after the other.
    of_tools: Vec<u32>,
    /// Beside `Snapshot::tools`: where the tool's rules end in `of_tools`.
    ends: Vec<u32>,
    /// The variable `identity`, if some candidate reads it.
    pub(super) identity: Option<Value>,
}

impl Candidates {
    /// The rules that name the declared tool at a position.
    pub(super) fn of_tool(&self, position: usize) -> &[u32] {
        let end = |i: usize| self.ends.get(i).map_or(0, |end| *end as usize);
        let start = position.checked_sub(1).map_or(0, end);
        self.of_tools.get(start..end(position)).unwrap_or_default()
    }
}

impl Policy {
    /// Reads a snapshot as the gateway receives it. Total: any bytes load or give an error.
    pub fn from_json(bytes: &[u8]) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if bytes.len() > SNAPSHOT_BYTES {
            return Err(LoadError::TooLarge(bytes.len()));
        }
        // The format comes first: another one has other fields, and that is not the news.
        let Format { format } = serde_json::from_slice(bytes).map_err(LoadError::Json)?;
        if format != FORMAT {
            return Err(LoadError::Format(format));
        }
        Self::load(serde_json::from_slice(bytes).map_err(LoadError::Json)?)
    }

    /// Compiles everything that can be compiled. Total: any snapshot loads or gives an error.
    pub fn load(snapshot: Snapshot) -> Result<Self, LoadError> {
        let Parts { by_name, by_exposed_name, role_index, rules } = Parts::of(&snapshot, None)?;

        let naming = |tool: &Tool| {
            let subject = Subject::Tool(&tool.name, Some(tool));
            (0_u32..).zip(&rules).filter(|(_, rule)| rule.names(&subject)).map(|(position, _)| position).collect()
        };
        let rules_of_tools = snapshot.tools.iter().map(naming).collect();
        let reads_tool = rules.iter().any(|rule| rule.condition.as_ref().is_some_and(|when| when.reads("tool")));
        let variable = |tool: &Tool| rule::tool_variable(&tool.name, &snapshot.target.server, Some(tool));
        let variables = snapshot.tools.iter().map(|tool| reads_tool.then(|| variable(tool))).collect();
        let hash = snapshot.hash().into();
        Ok(Self { snapshot, hash, by_name, by_exposed_name, variables, rules_of_tools, rules, roles: role_index })
    }

    /// What was loaded.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// [`Snapshot::hash`], computed once.
    pub fn hash(&self) -> &Arc<str> {
        &self.hash
    }

    /// The tool that callers know by `exposed` (its exposed name, or its own where it has none).
    pub fn tool_by_exposed_name(&self, exposed: &str) -> Option<&Tool> {
        self.by_exposed_name.get(exposed).and_then(|position| self.snapshot.tools.get(*position))
    }

    /// The declared tool with this server-side name.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.declared(name).map(|(_, tool)| tool)
    }

    /// The declared tool with this server-side name, and its position.
    pub(super) fn declared(&self, name: &str) -> Option<(usize, &Tool)> {
        let position = *self.by_name.get(name)?;
        self.snapshot.tools.get(position).map(|tool| (position, tool))
    }

    /// The variable `tool` of the declared tool at a position, if some condition reads it.
    pub(super) fn tool_variable(&self, position: usize) -> Option<&Value> {
        self.variables.get(position)?.as_ref()
    }

    /// The view of a caller who has no role at all: nothing is visible, nothing is allowed.
    pub fn nobody(&self) -> SubjectView {
        let candidates = Candidates { all: Vec::new(), of_tools: Vec::new(), ends: Vec::new(), identity: None };
        SubjectView { roles: Vec::new(), policy: Arc::clone(&self.hash), candidates: Arc::new(candidates) }
    }

    /// Resolves the caller's roles. `None` is a caller without a token, who has the anonymous role, if there is one.
    pub fn subject(&self, identity: Option<&Identity>) -> SubjectView {
        let held = self.roles.of(identity);
        let holds = |rule: &u32| {
            let role = self.rules.get(*rule as usize).map(|rule| rule.role);
            role.and_then(|role| held.get(role)).copied().unwrap_or(false)
        };
        let all: Vec<u32> = (0_u32..).zip(&self.rules).map(|(position, _)| position).filter(|p| holds(p)).collect();
        let (mut of_tools, mut ends) = (Vec::new(), Vec::with_capacity(self.rules_of_tools.len()));
        for rules in &self.rules_of_tools {
            of_tools.extend(rules.iter().filter(|rule| holds(rule)));
            ends.push(u32::try_from(of_tools.len()).unwrap_or(u32::MAX)); // An end beyond the list is an empty slice.
        }
        of_tools.shrink_to_fit();
        let reads_identity = |rule: &u32| {
            let rule = self.rules.get(*rule as usize);
            rule.and_then(|rule| rule.condition.as_ref()).is_some_and(|when| when.reads("identity"))
        };
        let identity = identity.filter(|_| all.iter().any(reads_identity)).map(identity_variable);
        let held = held.iter().enumerate().filter(|(_, held)| **held);
        let mut roles: Vec<Arc<str>> = held.filter_map(|(position, _)| self.roles.name(position).cloned()).collect();
        roles.sort();
        let candidates = Arc::new(Candidates { all, of_tools, ends, identity });
        SubjectView { roles, policy: Arc::clone(&self.hash), candidates }
    }
}

/// The name by which callers know a tool.
fn exposed_name(tool: &Tool) -> &str {
    tool.exposed_name.as_deref().unwrap_or(&tool.name)
}

/// The variable `identity`.
pub(super) fn identity_variable(identity: &Identity) -> Value {
    let Identity { issuer, subject, groups, scopes, claims } = identity;
    json!({"issuer": issuer, "subject": subject, "groups": groups, "scopes": scopes, "claims": claims})
}

/// Whether [`Policy::load`] takes a snapshot, for who asks about many that share conditions: to compile those is the
/// dear part, and is done once each.
pub fn check(snapshot: &Snapshot, proven: &mut Proven) -> Result<(), LoadError> {
    Parts::of(snapshot, Some(proven)).map(|_| ())
}

/// Conditions that compile. Bounded: one that does not fit is compiled again when it is met again.
#[derive(Debug, Default)]
pub struct Proven(HashSet<String>);

/// Most conditions that are remembered; each has at most a kilobyte.
const PROVEN: usize = 4096;

/// What a snapshot is compiled to before anything depends on more than one part.
struct Parts {
    by_name: HashMap<String, usize>,
    by_exposed_name: HashMap<String, usize>,
    role_index: Roles,
    rules: Vec<CompiledRule>,
}

impl Parts {
    /// Every error that loading can meet is met here. With `proven`, conditions that are known to compile are left out
    /// of the rules.
    fn of(snapshot: &Snapshot, proven: Option<&mut Proven>) -> Result<Self, LoadError> {
        if snapshot.format != FORMAT {
            return Err(LoadError::Format(snapshot.format));
        }
        bound("roles", snapshot.roles.len(), ROLES)?;
        bound("tools", snapshot.tools.len(), TOOLS)?;
        bound("rules", snapshot.roles.iter().map(|role| role.rules.len()).sum(), RULES)?;
        // Names may repeat: on a laptop the minted tokens come from one more issuer beside each real one.
        index("issuer URL", snapshot.issuers.iter().map(|issuer| issuer.url.as_str()))?;
        let by_name = index("tool", snapshot.tools.iter().map(|tool| tool.name.as_str()))?;
        let by_exposed_name = index("exposed tool", snapshot.tools.iter().map(exposed_name))?;
        let role_index = Roles::load(&snapshot.roles, snapshot.anonymous.as_deref())?;
        let rules = compile_rules(snapshot, proven)?;
        Ok(Self { by_name, by_exposed_name, role_index, rules })
    }
}

fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), LoadError> {
    if count > limit { Err(LoadError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// Positions by name; a name that comes twice is an error.
fn index<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<HashMap<String, usize>, LoadError> {
    let mut positions = HashMap::new();
    for (position, name) in names.enumerate() {
        if positions.insert(name.to_owned(), position).is_some() {
            return Err(LoadError::Duplicate { what, name: name.to_owned() });
        }
    }
    Ok(positions)
}

fn compile_rules(snapshot: &Snapshot, mut proven: Option<&mut Proven>) -> Result<Vec<CompiledRule>, LoadError> {
    let mut rules = Vec::new();
    for (position, role) in snapshot.roles.iter().enumerate() {
        let name: Arc<str> = role.name.as_str().into();
        let mut indices = BTreeSet::new();
        for rule in &role.rules {
            if !indices.insert(rule.index) {
                return Err(LoadError::Duplicate { what: "rule", name: format!("{}/{}", role.name, rule.index) });
            }
            let reference = RuleRef { role: Arc::clone(&name), index: rule.index };
            let failed =
                |(field, message)| LoadError::Rule { role: role.name.clone(), index: rule.index, field, message };
            let known = rule.when.as_ref().filter(|when| proven.as_ref().is_some_and(|known| known.0.contains(*when)));
            let compiled = if known.is_some() {
                CompiledRule::compile(&Rule { when: None, ..rule.clone() }, reference, position)
            } else {
                CompiledRule::compile(rule, reference, position)
            };
            rules.push(compiled.map_err(failed)?);
            if let (Some(proven), Some(when)) = (proven.as_deref_mut(), &rule.when)
                && proven.0.len() < PROVEN
            {
                proven.0.insert(when.clone());
            }
        }
    }
    rules.sort_by(|a, b| (&a.reference.role, a.reference.index).cmp(&(&b.reference.role, b.reference.index)));
    Ok(rules)
}

#[cfg(test)]
mod tests;
