//! McpRoles: subjects, inheritance, and the rules that stay in force.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, cycles, in_namespace, input, quoted, reference, rules};
use crate::api::conditions::reason;
use crate::api::{self, McpRole, SubjectKind};
use crate::policy::snapshot::{Effect, Subject};
use crate::policy::world::{DeclaredRole, Gateway, Key, ObjectRef, UNNAMED_ISSUER};

pub(super) fn parse(
    roles: &BTreeMap<Key, &McpRole>,
    gateways: &BTreeMap<Key, Gateway>,
    of_service_accounts: &BTreeSet<Key>,
    report: &mut Report,
) -> BTreeMap<Key, DeclaredRole> {
    let namespaces: BTreeSet<&str> = roles.keys().map(|(namespace, _)| namespace.as_str()).collect();
    let mut parsed = BTreeMap::new();
    for namespace in namespaces {
        let all: BTreeSet<&str> = in_namespace(gateways, namespace)
            .flat_map(|(_, gateway)| gateway.issuers.iter().map(|issuer| issuer.name.as_str()))
            .collect();
        let is_cluster = |name: &&str| of_service_accounts.contains(&(namespace.to_owned(), (*name).to_owned()));
        let issuers = Issuers {
            of_service_accounts: all.iter().copied().filter(is_cluster).collect(),
            all: all.into_iter().collect(),
        };
        let circles = circles(roles, namespace);
        for (name, role) in in_namespace(roles, namespace) {
            let object = reference(*role);
            let circle = circles.get(name).map(Vec::as_slice).unwrap_or_default();
            let inherits = inherits(role, &object, roles, circle, report);
            let mut in_force = rules::parse(role, &object, report);
            if !circle.is_empty() {
                // Fails closed: what these roles deny no longer reaches the others, so none of them may grant.
                in_force.retain(|rule| rule.rule.effect == Effect::Deny);
            }
            let subjects = subjects(role, &object, &issuers, report);
            let key = (namespace.to_owned(), name.to_owned());
            parsed.insert(key, DeclaredRole { inherits, subjects, rules: in_force, input: input(*role) });
        }
    }
    parsed
}

fn circles<'a>(roles: &'a BTreeMap<Key, &'a McpRole>, namespace: &'a str) -> BTreeMap<&'a str, Vec<&'a str>> {
    let edges = in_namespace(roles, namespace)
        .map(|(name, role)| (name, role.spec.inherits.iter().map(|other| other.name.as_str()).collect()))
        .collect();
    cycles::find(&edges)
}

fn inherits(
    role: &McpRole,
    object: &ObjectRef,
    roles: &BTreeMap<Key, &McpRole>,
    circle: &[&str],
    report: &mut Report,
) -> Vec<String> {
    let mut kept = BTreeSet::new();
    for (index, other) in role.spec.inherits.iter().enumerate() {
        let pointer = format!("/spec/inherits/{index}/name");
        let other = &other.name;
        if circle.contains(&other.as_str()) {
            let message = if circle.len() == 1 {
                format!("McpRole `{other}` inherits itself and grants nothing until that ends: remove this line")
            } else {
                format!(
                    "McpRoles {} inherit each other in a circle and grant nothing until it is broken: remove one of \
                     these lines",
                    quoted(circle)
                )
            };
            report.error(object, pointer, reason::INHERITANCE_CYCLE, message);
        } else if roles.contains_key(&(object.namespace.clone(), other.clone())) {
            kept.insert(other.clone());
        } else {
            let message = format!(
                "McpRole `{other}` does not exist in namespace `{}`, so nothing is inherited: create it, or remove \
                 this line",
                object.namespace
            );
            report.error(object, pointer, reason::ROLE_NOT_FOUND, message);
        }
    }
    kept.into_iter().collect()
}

/// Names of the issuers of a namespace, sorted.
struct Issuers<'a> {
    all: Vec<&'a str>,
    /// Those that are the cluster's ServiceAccounts.
    of_service_accounts: Vec<&'a str>,
}

fn subjects(role: &McpRole, object: &ObjectRef, issuers: &Issuers<'_>, report: &mut Report) -> Vec<Subject> {
    let mut kept = BTreeSet::new();
    for (index, declared) in role.spec.subjects.iter().enumerate() {
        let pointer = format!("/spec/subjects/{index}");
        let Some(issuer) = issuer(declared, object, &pointer, issuers, report) else { continue };
        if let Some(subject) = subject(declared, issuer) {
            kept.insert(subject);
            continue;
        }
        let message = match declared.kind {
            SubjectKind::Claim => "a subject of kind Claim needs claim and values, so nobody is meant: set both",
            SubjectKind::ServiceAccount => {
                "a subject of kind ServiceAccount needs namespace and name, so nobody is meant: set both"
            }
            SubjectKind::User | SubjectKind::Group | SubjectKind::Scope => {
                "a subject of this kind needs a name, so nobody is meant: set name"
            }
        };
        report.error(object, pointer, reason::INVALID_SUBJECT, message.to_owned());
    }
    kept.into_iter().collect()
}

/// See the module documentation of `parse`.
fn issuer(
    declared: &api::Subject,
    object: &ObjectRef,
    pointer: &str,
    issuers: &Issuers<'_>,
    report: &mut Report,
) -> Option<String> {
    let is_account = declared.kind == SubjectKind::ServiceAccount;
    let names = if is_account { &issuers.of_service_accounts } else { &issuers.all };
    match (&declared.issuer, names.as_slice()) {
        (Some(issuer), names)
            if is_account && issuers.all.contains(&issuer.as_str()) && !names.contains(&issuer.as_str()) =>
        {
            let message = format!(
                "issuer `{issuer}` knows no ServiceAccounts, so nobody is meant: name one with serviceAccounts, or leave \
                 issuer out"
            );
            report.error(object, format!("{pointer}/issuer"), reason::ISSUER_NOT_FOUND, message);
            None
        }
        (None, []) if is_account => {
            let message = format!(
                "no McpGateway of namespace `{}` has an issuer with serviceAccounts, so nobody is meant: add one, as in \
                 `{{name: kubernetes, serviceAccounts: {{}}}}`",
                object.namespace
            );
            report.error(object, pointer, reason::ISSUER_NOT_FOUND, message);
            None
        }
        (Some(issuer), names) if names.contains(&issuer.as_str()) => Some(issuer.clone()),
        (Some(issuer), []) if issuer == UNNAMED_ISSUER => Some(issuer.clone()),
        (Some(issuer), names) => {
            let known = if names.is_empty() { "has no issuer" } else { "has the issuers " };
            let message = format!(
                "issuer `{issuer}` is unknown, so nobody is meant: no McpGateway of namespace `{}` lists it ({known}{})",
                object.namespace,
                quoted(names)
            );
            report.error(object, format!("{pointer}/issuer"), reason::ISSUER_NOT_FOUND, message);
            None
        }
        (None, []) => Some(UNNAMED_ISSUER.to_owned()),
        (None, [only]) => Some((*only).to_owned()),
        (None, names) => {
            let message = format!(
                "the issuer is missing and namespace `{}` has several, so nobody is meant: set issuer to one of {}",
                object.namespace,
                quoted(names)
            );
            report.error(object, pointer, reason::ISSUER_REQUIRED, message);
            None
        }
    }
}

fn subject(declared: &api::Subject, issuer: String) -> Option<Subject> {
    if declared.kind == SubjectKind::Claim {
        let mut values = declared.values.clone();
        values.sort();
        values.dedup();
        let claim = declared.claim.clone()?;
        return (!values.is_empty()).then_some(Subject::Claim { issuer, claim, values });
    }
    let name = declared.name.clone()?;
    Some(match declared.kind {
        SubjectKind::User => Subject::User { issuer, name },
        SubjectKind::Group => Subject::Group { issuer, name },
        SubjectKind::Scope => Subject::Scope { issuer, name },
        SubjectKind::ServiceAccount => {
            // A namespace holds no colon, so no two accounts have one name.
            let namespace = declared.namespace.as_ref().filter(|namespace| !namespace.contains(':'))?;
            Subject::User { issuer, name: format!("system:serviceaccount:{namespace}:{name}") }
        }
        SubjectKind::Claim => return None,
    })
}
