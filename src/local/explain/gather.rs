//! PURE. Questions to policy, collected into an answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::gateway::protocol::strict;
use crate::policy::decide::UNCLEAR;
use crate::policy::explain::{Reach, RuleReport, explain};
use crate::policy::snapshot::{Effect, Registration, Role, Snapshot, Subject, Target};
use crate::policy::world::Key;
use crate::policy::{self, Decision, Identity, Item, Policy, Reason, RuleRef, Verdict, World, compile};

use super::super::access::{self, ANONYMOUS};
use super::super::{identity, overlay, plan};
use super::{Answer, Call, Caller, ExplainError, Matrix, MatrixRow, PatternOf, Question, RoleOf, RuleOf, ToolOf, Who};

/// Policies by the name under which servers are shown.
type Policies = BTreeMap<String, Policy>;

/// Answers a question about a world.
pub(super) fn answer(question: &Question, world: &World, overlay: &overlay::Overlay) -> Result<Answer, ExplainError> {
    let policies = policies(world, question)?;
    let issuers = policies.values().flat_map(|policy| plan::issuer_names(policy.snapshot())).collect();
    let Some(name) = &question.who else {
        return matrix(question, &policies, overlay, &issuers).map(Answer::Matrix);
    };
    let identity = caller(name, question, overlay, &issuers)?;
    let who = Who {
        name: name.clone(),
        issuer: identity.issuer.clone(),
        subject: identity.subject.clone(),
        groups: identity.groups.clone(),
        scopes: identity.scopes.clone(),
        claims: identity.claims.clone(),
    };
    let roles = roles(&policies, &identity);
    match &question.tool {
        Some(tool) => call(question, &policies, &identity, who, roles, tool).map(Answer::Call),
        None => Ok(Answer::Caller(everything(question, &policies, &identity, who, roles))),
    }
}

fn policies(world: &World, question: &Question) -> Result<Policies, ExplainError> {
    let mut policies = Policies::new();
    for key in world.servers.keys() {
        let (namespace, name) = key;
        let shown = shown(key, world);
        if question.server.as_ref().is_some_and(|wanted| wanted != name && *wanted != shown) {
            continue;
        }
        let target = Target { namespace: namespace.clone(), server: name.clone() };
        let Some(snapshot) = compile(world, &target, &[]) else { continue };
        let policy = Policy::load(snapshot).map_err(|error| ExplainError::Question(format!("{shown}: {error}")))?;
        policies.insert(shown, policy);
    }
    match &question.server {
        Some(wanted) if policies.is_empty() => {
            Err(ExplainError::Question(format!("there is no McpServer `{wanted}`; there are {}", names(world))))
        }
        _ => Ok(policies),
    }
}

/// The server's name, with its namespace where the name alone is not unique.
fn shown((namespace, name): &Key, world: &World) -> String {
    let twins = world.servers.keys().filter(|(_, other)| other == name).count();
    if twins > 1 { format!("{namespace}/{name}") } else { name.clone() }
}

fn names(world: &World) -> String {
    if world.servers.is_empty() {
        return "none".to_owned();
    }
    world.servers.keys().map(|key| format!("`{}`", shown(key, world))).collect::<Vec<_>>().join(", ")
}

/// The identity of the overlay by that name, or a subject, with what the flags add.
fn caller(
    name: &str,
    question: &Question,
    overlay: &overlay::Overlay,
    issuers: &BTreeSet<String>,
) -> Result<Identity, ExplainError> {
    let mut entry = match overlay.identities.get(name) {
        Some(entry) => entry.clone(),
        None => overlay::Identity { subject: name.to_owned(), ..overlay::Identity::default() },
    };
    entry.groups.extend(question.groups.iter().cloned());
    entry.scopes.extend(question.scopes.iter().cloned());
    entry.claims.extend(question.claims.clone());
    if question.issuer.is_some() {
        entry.issuer.clone_from(&question.issuer);
    }
    let issuer = identity::choose_issuer(entry.issuer.as_deref(), issuers)
        .map_err(|what| ExplainError::Question(format!("{what} (--issuer)")))?;
    Ok(identity::resolve(&entry, issuer))
}

fn matrix(
    question: &Question,
    policies: &Policies,
    overlay: &overlay::Overlay,
    issuers: &BTreeSet<String>,
) -> Result<Matrix, ExplainError> {
    if overlay.identities.is_empty() {
        let file = overlay::FILE;
        return Err(ExplainError::Question(format!("say who with --as, or add `identities` to {file}")));
    }
    let mut identities = BTreeMap::new();
    for (name, entry) in &overlay.identities {
        let issuer = identity::choose_issuer(entry.issuer.as_deref(), issuers)
            .map_err(|what| ExplainError::Question(format!("identities.{name}: {what} (`issuer`)")))?;
        identities.insert(name.clone(), identity::resolve(entry, issuer));
    }
    let mut columns: Vec<String> = identities.keys().cloned().collect();
    if policies.values().any(|policy| policy.snapshot().anonymous.is_some()) {
        columns.push(ANONYMOUS.to_owned());
    }
    let mut rows = Vec::new();
    for (server, policy) in policies {
        for tool in &policy.snapshot().tools {
            let item = Item::Tool(&tool.name);
            let access = access::who(policy, &identities, item, question.at);
            let conditional = access.iter().filter(|(_, access)| !access.mark().is_empty());
            let rules = |name: &String| access::live(policy, identities.get(name), item, question.at);
            let conditions = conditional.map(|(name, _)| (name.clone(), rules(name).iter().map(line).collect()));
            let conditions = conditions.collect();
            rows.push(MatrixRow { server: server.clone(), tool: tool.name.clone(), access, conditions });
        }
    }
    Ok(Matrix { identities: columns, tools: rows })
}

/// A rule and its conditions in one line.
fn line(reach: &Reach) -> String {
    let conditions = if reach.conditions.is_empty() { "always".to_owned() } else { reach.conditions.join("; ") };
    format!("{} by {}: {conditions}", effect(reach.effect), cite(&reach.rule.role, reach.rule.index))
}

fn everything(question: &Question, policies: &Policies, identity: &Identity, who: Who, roles: Vec<RoleOf>) -> Caller {
    let (mut tools, mut others, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for (server, policy) in policies {
        for tool in &policy.snapshot().tools {
            let item = Item::Tool(&tool.name);
            let explanation = explain(policy, Some(identity), &policy::Call { item, arguments: None }, question.at);
            let reports: Vec<RuleOf> = explanation.rules.iter().map(rule_of).collect();
            tools.push(ToolOf {
                server: server.clone(),
                tool: tool.name.clone(),
                exposed_name: tool.exposed_name.clone().filter(|exposed| *exposed != tool.name),
                access: access::access(policy, Some(identity), item, question.at),
                reason: reports.is_empty().then(|| reason(&explanation.decision.reason)),
                rules: reports,
            });
        }
        others.extend(patterns(server, policy, identity));
        if policy.snapshot().registration == Registration::Auto {
            notes.push(format!("{server}: registration is Auto: for a tool without McpTool ask with --tool NAME"));
        }
    }
    Caller { identity: who, roles, tools, others, notes }
}

fn patterns(server: &str, policy: &Policy, identity: &Identity) -> Vec<PatternOf> {
    let held = policy.subject(Some(identity)).roles;
    let mut patterns = Vec::new();
    for role in policy.snapshot().roles.iter().filter(|role| held.iter().any(|name| **name == *role.name)) {
        for rule in &role.rules {
            let kinds = [("prompt", &rule.prompts), ("resource", &rule.resources)];
            for (kind, pattern) in kinds.into_iter().flat_map(|(kind, list)| list.iter().map(move |glob| (kind, glob)))
            {
                patterns.push(PatternOf {
                    server: server.to_owned(),
                    kind,
                    pattern: pattern.clone(),
                    effect: effect(rule.effect),
                    rule: cite(&role.name, rule.index),
                    conditional: access::is_conditional(rule),
                });
            }
        }
    }
    patterns
}

fn call(
    question: &Question,
    policies: &Policies,
    identity: &Identity,
    who: Who,
    roles: Vec<RoleOf>,
    wanted: &str,
) -> Result<Call, ExplainError> {
    let fail = |message: String| Err(ExplainError::Question(message));
    if let Some(arguments) = &question.arguments {
        // The gateway refuses such a call before policy sees it.
        if let Err(error) = strict::check_arguments(arguments) {
            return fail(format!("--arguments is not acceptable JSON: {error}"));
        }
        if !arguments.trim_start().starts_with('{') {
            return fail("--arguments must be a JSON object, as in '{\"path\": \"drafts/a.md\"}'".to_owned());
        }
    }
    let declaring: Vec<_> = policies.iter().filter(|(_, policy)| declared(policy, wanted).is_some()).collect();
    let (server, policy) = match (declaring.as_slice(), policies.len()) {
        ([one], _) => *one,
        // Nobody declares it: with one server the question is clear nevertheless.
        ([], 1) => policies.first_key_value().ok_or_else(|| ExplainError::Question("no McpServer".to_owned()))?,
        ([], _) => return fail(format!("no McpServer declares the tool `{wanted}`; say which one with --server")),
        (several, _) => {
            let list: Vec<_> = several.iter().map(|(server, _)| format!("`{server}`")).collect();
            return fail(format!("{} declare the tool `{wanted}`; choose with --server", list.join(" and ")));
        }
    };
    let tool = declared(policy, wanted).unwrap_or(wanted).to_owned();
    let asked = policy::Call { item: Item::Tool(&tool), arguments: question.arguments.as_deref() };
    let explanation = explain(policy, Some(identity), &asked, question.at);
    let Decision { verdict, rule, reason: why } = explanation.decision;
    let answer = match verdict {
        Verdict::Allow => "the call is forwarded",
        Verdict::Deny => "the call is refused",
        Verdict::Unknown => "the call is refused as if the tool did not exist",
    };
    Ok(Call {
        identity: who,
        roles,
        server: server.clone(),
        tool,
        allowed: verdict == Verdict::Allow,
        answer: answer.to_owned(),
        reason: reason(&why),
        rule: rule.map(|RuleRef { role, index }| cite(&role, index)),
        rules: explanation.rules.iter().map(rule_of).collect(),
        access_hash: policy.snapshot().access_hash(),
    })
}

/// The server-side name of a declared tool, by its exposed or its own name.
fn declared<'a>(policy: &'a Policy, wanted: &str) -> Option<&'a str> {
    policy.tool_by_exposed_name(wanted).or_else(|| policy.tool(wanted)).map(|tool| tool.name.as_str())
}

/// The identity's roles at all servers, each with every reason.
fn roles(policies: &Policies, identity: &Identity) -> Vec<RoleOf> {
    let mut found = BTreeSet::new();
    for policy in policies.values() {
        let held = policy.subject(Some(identity)).roles;
        let is_held = |name: &str| held.iter().any(|role| **role == *name);
        for role in policy.snapshot().roles.iter().filter(|role| is_held(&role.name)) {
            let direct =
                role.subjects.iter().filter(|subject| names_caller(policy.snapshot(), role, subject, identity));
            let inherited = policy.snapshot().roles.iter().filter(|heir| is_held(&heir.name));
            let inherited = inherited.filter(|heir| heir.inherits.contains(&role.name));
            found.extend(direct.map(|subject| RoleOf { role: role.name.clone(), because: describe(subject) }));
            found.extend(
                inherited
                    .map(|heir| RoleOf { role: role.name.clone(), because: format!("inherited by {}", heir.name) }),
            );
        }
    }
    found.into_iter().collect()
}

/// Whether this one subject gives the role: asked of policy itself, with everything else taken away.
fn names_caller(snapshot: &Snapshot, role: &Role, subject: &Subject, identity: &Identity) -> bool {
    let only = Role { inherits: Vec::new(), subjects: vec![subject.clone()], ..role.clone() };
    let alone = Snapshot { roles: vec![only], tools: Vec::new(), ..snapshot.clone() };
    Policy::load(alone).is_ok_and(|policy| !policy.subject(Some(identity)).roles.is_empty())
}

fn describe(subject: &Subject) -> String {
    match subject {
        Subject::User { issuer, name } => format!("user {name} of {issuer}"),
        Subject::Group { issuer, name } => format!("group {name} of {issuer}"),
        Subject::Scope { issuer, name } => format!("scope {name} of {issuer}"),
        Subject::Claim { issuer, claim, values } => format!("claim {claim} in {} of {issuer}", values.join(", ")),
    }
}

fn rule_of(report: &RuleReport) -> RuleOf {
    RuleOf {
        rule: cite(&report.rule.role, report.rule.index),
        effect: effect(report.effect),
        matched: report.matched,
        because: report.because.clone(),
    }
}

fn effect(effect: Effect) -> String {
    match effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    }
    .to_owned()
}

/// A rule as a reader finds it in the manifest.
fn cite(role: &str, index: u32) -> String {
    format!("{role} rules[{index}]")
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Allowed => "an Allow rule matches and no Deny rule does".to_owned(),
        Reason::NotDeclared => "no McpTool declares it, and registration is Declared".to_owned(),
        Reason::Disabled => "the tool is disabled, or past its sunset".to_owned(),
        Reason::NoRule => "no rule of these roles is about it".to_owned(),
        Reason::DenyRule => "a Deny rule matches".to_owned(),
        Reason::Argument { path, permitted } => format!("{path} is not permitted; permitted: {permitted}"),
        Reason::Unclear { path } => format!("{}: {UNCLEAR}", if path.is_empty() { "the arguments" } else { path }),
        Reason::Condition => "the `when` of every rule that would allow it is false or failed".to_owned(),
        Reason::Time => "the time window of every rule that would allow it is closed".to_owned(),
        Reason::UnsafeUri => {
            "the URI is no valid one, or a server may read it as another one that no rule allows".to_owned()
        }
    }
}
