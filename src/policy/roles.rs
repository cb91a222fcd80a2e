//! Who has which roles: subjects by issuer, and inheritance.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::identity::Identity;
use super::load::LoadError;
use super::snapshot::{Role, Subject};

/// The roles of a policy, by position.
#[derive(Debug)]
pub(super) struct Roles {
    names: Vec<Arc<str>>,
    inherits: Vec<Vec<usize>>,
    /// By issuer's name, so that equal names of two issuers never meet.
    issuers: HashMap<String, Subjects>,
    anonymous: Option<usize>,
}

/// The subjects of one issuer, and the roles that they have.
#[derive(Debug, Default)]
struct Subjects {
    users: HashMap<String, Vec<usize>>,
    groups: HashMap<String, Vec<usize>>,
    scopes: HashMap<String, Vec<usize>>,
    claims: HashMap<String, Vec<(Vec<String>, usize)>>,
}

impl Roles {
    /// Indexes the roles. Names must be unique, inherited roles must exist and form no cycle.
    pub(super) fn load(roles: &[Role], anonymous: Option<&str>) -> Result<Self, LoadError> {
        let mut positions = HashMap::new();
        for (position, role) in roles.iter().enumerate() {
            if positions.insert(role.name.as_str(), position).is_some() {
                return Err(LoadError::Duplicate { what: "role", name: role.name.clone() });
            }
        }
        let mut inherits = Vec::with_capacity(roles.len());
        let mut issuers: HashMap<String, Subjects> = HashMap::new();
        for (position, role) in roles.iter().enumerate() {
            let parent = |name: &String| {
                let unknown = || LoadError::UnknownRole { role: role.name.clone(), inherited: name.clone() };
                positions.get(name.as_str()).copied().ok_or_else(unknown)
            };
            inherits.push(role.inherits.iter().map(parent).collect::<Result<Vec<_>, _>>()?);
            role.subjects.iter().for_each(|subject| add(&mut issuers, subject, position));
        }
        if let Some(position) = on_a_cycle(&inherits) {
            let name = roles.get(position).map(|role| role.name.clone()).unwrap_or_default();
            return Err(LoadError::Cycle(name));
        }
        let names = roles.iter().map(|role| role.name.as_str().into()).collect();
        let anonymous = anonymous.and_then(|name| positions.get(name).copied());
        Ok(Self { names, inherits, issuers, anonymous })
    }

    /// The name of the role at a position.
    pub(super) fn name(&self, position: usize) -> Option<&Arc<str>> {
        self.names.get(position)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The roles that the role at a position inherits directly.
    pub(super) fn inherited(&self, position: usize) -> &[usize] {
        self.inherits.get(position).map(Vec::as_slice).unwrap_or_default()
    }

    /// The roles that callers of an issuer with this scope have, but for those inherited.
    pub(super) fn of_scope(&self, issuer: &str, scope: &str) -> &[usize] {
        self.issuers.get(issuer).and_then(|s| s.scopes.get(scope)).map(Vec::as_slice).unwrap_or_default()
    }

    /// For every role, whether the caller has it, directly or because a role of theirs inherits it.
    pub(super) fn of(&self, identity: Option<&Identity>) -> Vec<bool> {
        let mut pending = match identity {
            None => self.anonymous.into_iter().collect(),
            Some(identity) => self.issuers.get(&identity.issuer).map(|s| s.roles(identity)).unwrap_or_default(),
        };
        let mut held = vec![false; self.names.len()];
        while let Some(position) = pending.pop() {
            if let Some(slot) = held.get_mut(position)
                && !std::mem::replace(slot, true)
            {
                pending.extend(self.inherits.get(position).into_iter().flatten());
            }
        }
        held
    }
}

impl Subjects {
    fn roles(&self, identity: &Identity) -> Vec<usize> {
        let Identity { issuer: _, subject, groups, scopes, claims } = identity;
        let mut roles: Vec<usize> = self.users.get(subject).into_iter().flatten().copied().collect();
        roles.extend(groups.iter().filter_map(|group| self.groups.get(group)).flatten());
        roles.extend(scopes.iter().filter_map(|scope| self.scopes.get(scope)).flatten());
        for (claim, wanted) in &self.claims {
            let Some(value) = claims.get(claim) else { continue };
            roles.extend(wanted.iter().filter(|(values, _)| claim_has(value, values)).map(|(_, role)| role));
        }
        roles
    }
}

/// A claim is a string, or a list that holds one. Other types are never coerced: they match nothing.
fn claim_has(value: &Value, wanted: &[String]) -> bool {
    let is_wanted = |value: &Value| value.as_str().is_some_and(|text| wanted.iter().any(|want| want == text));
    match value {
        Value::Array(items) => items.iter().any(is_wanted),
        single => is_wanted(single),
    }
}

fn add(issuers: &mut HashMap<String, Subjects>, subject: &Subject, role: usize) {
    let (Subject::User { issuer, .. }
    | Subject::Group { issuer, .. }
    | Subject::Claim { issuer, .. }
    | Subject::Scope { issuer, .. }) = subject;
    let subjects = issuers.entry(issuer.clone()).or_default();
    match subject {
        Subject::User { name, .. } => subjects.users.entry(name.clone()).or_default().push(role),
        Subject::Group { name, .. } => subjects.groups.entry(name.clone()).or_default().push(role),
        Subject::Scope { name, .. } => subjects.scopes.entry(name.clone()).or_default().push(role),
        Subject::Claim { claim, values, .. } => {
            subjects.claims.entry(claim.clone()).or_default().push((values.clone(), role));
        }
    }
}

/// A position on a cycle of `edges`, or one that leads to it. No recursion: roles are removed while nobody that is
/// left inherits them, and what stays is a cycle and all that it inherits.
fn on_a_cycle(edges: &[Vec<usize>]) -> Option<usize> {
    let mut heirs = vec![0_usize; edges.len()];
    let count = |heirs: &mut Vec<usize>, parent: usize| heirs.get_mut(parent).into_iter().for_each(|n| *n += 1);
    edges.iter().flatten().for_each(|parent| count(&mut heirs, *parent));
    let mut free: Vec<usize> = (0..edges.len()).filter(|i| heirs.get(*i) == Some(&0)).collect();
    while let Some(role) = free.pop() {
        for parent in edges.get(role).into_iter().flatten() {
            if let Some(n) = heirs.get_mut(*parent) {
                *n -= 1;
                if *n == 0 {
                    free.push(*parent);
                }
            }
        }
    }
    heirs.iter().position(|n| *n > 0)
}
