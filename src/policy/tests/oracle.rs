//! Policy a second time: slow, plain, straight from the objects, sharing no code with the engine.

#![allow(clippy::option_option, clippy::unnecessary_wraps)] // The plain way, and one signature for all meanings.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::worlds::{CONDITIONS, OwnedItem, Question};
use crate::policy::snapshot::{
    Annotations, ArgumentRule, Effect, Lifecycle, Registration, Rule, Scalar, Subject, TimeWindow, Tool,
};
use crate::policy::world::{ServerRule, World};
use crate::policy::{Identity, Verdict};

/// `None` is "cannot be told".
type Told = Option<bool>;

pub(super) struct Expected {
    pub(super) verdict: Verdict,
    pub(super) visible: bool,
    pub(super) rule: Option<(String, u32)>,
}

fn all(parts: impl IntoIterator<Item = Told>) -> Told {
    let parts: Vec<Told> = parts.into_iter().collect();
    if parts.contains(&Some(false)) {
        Some(false)
    } else if parts.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn either(a: Told, b: Told) -> Told {
    all([a.map(|a| !a), b.map(|b| !b)]).map(|neither| !neither)
}

/// What a question is about, once found.
struct Scene<'a> {
    question: &'a Question,
    tool: Option<Option<&'a Tool>>,
    arguments: Option<Value>,
    /// The caller chooses arguments.
    open: bool,
}

pub(super) fn decide(world: &World, question: &Question) -> Expected {
    let unknown = Expected { verdict: Verdict::Unknown, visible: false, rule: None };
    let Some(server) = world.servers.get(&("a".to_owned(), "s1".to_owned())) else { return unknown };
    let tools = declared_tools(world);
    let tool = match question.item {
        OwnedItem::Tool(name) => match tools.iter().find(|tool| tool.name == name) {
            Some(tool) => {
                let sunset = tool.deprecation.as_ref().and_then(|deprecation| deprecation.sunset_time);
                if tool.lifecycle == Lifecycle::Disabled || sunset.is_some_and(|sunset| question.now >= sunset) {
                    return unknown;
                }
                Some(Some(*tool))
            }
            None if server.registration == Registration::Declared => return unknown,
            None => Some(None),
        },
        OwnedItem::Resource(uri) if readings(uri).is_empty() => return unknown,
        _ => None,
    };
    let open = matches!(question.item, OwnedItem::Tool(_) | OwnedItem::Prompt(_));
    let arguments = match (&question.arguments, open) {
        (Some(text), true) => serde_json::from_str(text).ok().filter(Value::is_object),
        _ => Some(json!({})),
    };
    let scene = Scene { question, tool, arguments, open };

    let mut rules = Vec::new();
    for role in held_roles(world, question.identity.as_ref()) {
        for rule in &world.roles[&("a".to_owned(), role.clone())].rules {
            if is_about_server(rule, &server.labels) && names(&rule.rule, &scene) {
                rules.push((role.clone(), &rule.rule));
            }
        }
    }
    let of = |effect| rules.iter().filter(move |(_, rule)| rule.effect == effect);
    let denied = of(Effect::Deny).any(|(_, rule)| whole(rule, &scene) != Some(false));
    let allowing = || of(Effect::Allow).filter(|(_, rule)| whole(rule, &scene) == Some(true));
    // Each reading of a URI needs a rule that allows it; it need not be the same.
    let read_as: &[&str] = if let OwnedItem::Resource(uri) = question.item { readings(uri) } else { &[] };
    let every = |all: &dyn Fn(&str) -> bool| read_as.iter().all(|reading| all(reading));
    let allowed = every(&|reading| allowing().any(|(_, rule)| resource(rule, reading)));
    let first = allowing().map(|(role, rule)| (role.clone(), rule.index)).min().filter(|_| allowed);
    let hidden = of(Effect::Deny).any(|(_, rule)| {
        let fixed = !open || (rule.arguments.is_empty() && conjuncts(rule).iter().all(|(dynamic, _)| !dynamic));
        fixed && whole(rule, &scene) != Some(false)
    });
    let shown = of(Effect::Allow).any(|(_, rule)| possible(rule, &scene))
        && every(&|reading| of(Effect::Allow).any(|(_, rule)| possible(rule, &scene) && resource(rule, reading)));
    let visible = shown && !hidden;
    match first {
        Some(rule) if !denied => Expected { verdict: Verdict::Allow, visible, rule: Some(rule) },
        _ => Expected { verdict: if visible { Verdict::Deny } else { Verdict::Unknown }, visible, rule: None },
    }
}

/// First come, first served by name of the McpTool, for names and for exposed names.
fn declared_tools(world: &World) -> Vec<&Tool> {
    let mut tools: Vec<&Tool> = Vec::new();
    for declared in world.tools.values().filter(|declared| declared.server == "s1") {
        let tool = &declared.tool;
        let shown = |tool: &Tool| tool.exposed_name.clone().unwrap_or_else(|| tool.name.clone());
        if !tools.iter().any(|other| other.name == tool.name || shown(other) == shown(tool)) {
            tools.push(tool);
        }
    }
    tools
}

fn held_roles(world: &World, identity: Option<&Identity>) -> BTreeSet<String> {
    let roles: Vec<_> = world.roles.iter().filter(|((namespace, _), _)| namespace == "a").collect();
    let mut held = BTreeSet::new();
    for ((_, name), role) in &roles {
        let has = match identity {
            None => world.gateways.values().any(|gateway| gateway.anonymous.as_ref() == Some(name)),
            Some(identity) => role.subjects.iter().any(|subject| is(identity, subject)),
        };
        if has {
            held.insert(name.clone());
        }
    }
    loop {
        let parents: Vec<String> =
            roles.iter().filter(|((_, name), _)| held.contains(name)).flat_map(|(_, r)| r.inherits.clone()).collect();
        let before = held.len();
        held.extend(parents);
        if held.len() == before {
            return held;
        }
    }
}

fn is(identity: &Identity, subject: &Subject) -> bool {
    match subject {
        Subject::User { issuer, name } => *issuer == identity.issuer && *name == identity.subject,
        Subject::Group { issuer, name } => *issuer == identity.issuer && identity.groups.contains(name),
        Subject::Scope { issuer, name } => *issuer == identity.issuer && identity.scopes.contains(name),
        Subject::Claim { issuer, claim, values } => {
            let found = match identity.claims.get(claim) {
                Some(Value::String(text)) => vec![text.clone()],
                Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
                _ => Vec::new(),
            };
            *issuer == identity.issuer && found.iter().any(|text| values.contains(text))
        }
    }
}

fn is_about_server(rule: &ServerRule, labels: &std::collections::BTreeMap<String, String>) -> bool {
    rule.servers.iter().any(|pattern| glob(pattern, "s1"))
        || rule.server_selector.as_ref().is_some_and(|want| want.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

fn glob(pattern: &str, text: &str) -> bool {
    if let (Some(open), Some(close)) = (pattern.find('{'), pattern.find('}')) {
        let (head, tail) = (&pattern[..open], &pattern[close + 1..]);
        return pattern[open + 1..close].split(',').any(|choice| glob(&format!("{head}{choice}{tail}"), text));
    }
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|cut| glob(&pattern[1..], &text[cut..])),
        Some('?') => !text.is_empty() && glob(&pattern[1..], &text[1..]),
        Some(c) => text.starts_with(c) && glob(&pattern[1..], &text[1..]),
    }
}

/// By example: every way to read the URIs of the vocabulary, in the spelling that RFC 3986 prefers.
fn readings(uri: &str) -> &[&str] {
    match uri {
        "repo://acme/b%2fc" => &["repo://acme/b%2Fc", "repo://acme/b/c"],
        "repo://other/x%2F..%2Fa" => &["repo://other/x%2F..%2Fa", "repo://other/a"],
        "repo://acme/b%252Fc\u{1}" => &[],
        "repo://acme/a" | "repo://acme/../a" => &["repo://acme/a"],
        "repo://acme/b/c" | "REPO://acme/%62/./c" => &["repo://acme/b/c"],
        "repo://other/a" => &["repo://other/a"],
        "mem:x" => &["mem:x"],
        other => panic!("no such URI: {other}"),
    }
}

/// Whether a rule names a resource in this reading.
fn resource(rule: &Rule, reading: &str) -> bool {
    let spelled =
        |pattern: &str| if pattern == "Repo://acme/%62%2fc" { "repo://acme/b%2Fc" } else { pattern }.to_owned();
    rule.resources.iter().any(|pattern| glob(&spelled(pattern), reading))
}

/// By example: which globs of the vocabulary are about some, and about all, of what a template expands to.
fn template(effect: Effect, pattern: &str, template: &str) -> bool {
    let (some, every): (&[&str], &[&str]) = match template {
        "repo://{owner}/{name}" => {
            (&["*", "repo://acme/*", "repo://*/a", "repo://acme/b/c", "Repo://acme/%62%2fc"], &["*"])
        }
        "repo://acme/{+path}" => {
            (&["*", "repo://acme/*", "repo://*/a", "repo://acme/b/c", "Repo://acme/%62%2fc"], &["*", "repo://acme/*"])
        }
        "mem:{id}" => (&["*", "mem:?"], &["*"]),
        "repo://{owner}/b/c" => (&["*", "repo://acme/*", "repo://acme/b/c"], &["*"]),
        other => panic!("no such template: {other}"),
    };
    if effect == Effect::Allow { some.contains(&pattern) } else { every.contains(&pattern) }
}

fn names(rule: &Rule, scene: &Scene<'_>) -> bool {
    match scene.question.item {
        OwnedItem::Tool(name) => {
            rule.tools.iter().any(|pattern| glob(pattern, name)) || selects(rule, scene.tool.flatten())
        }
        OwnedItem::Prompt(name) => rule.prompts.iter().any(|pattern| glob(pattern, name)),
        OwnedItem::Resource(uri) => readings(uri).iter().any(|reading| resource(rule, reading)),
        OwnedItem::Template(text) => rule.resources.iter().any(|pattern| template(rule.effect, pattern, text)),
    }
}

fn selects(rule: &Rule, tool: Option<&Tool>) -> bool {
    let Some(selector) = &rule.tool_selector else { return false };
    let worst = Annotations { read_only: false, destructive: true, idempotent: false, open_world: true };
    let (annotations, capabilities, labels) = match tool {
        Some(tool) => (tool.annotations, tool.capabilities.clone(), tool.labels.clone()),
        None if rule.effect == Effect::Allow => return false,
        None => (worst, Vec::new(), std::collections::BTreeMap::new()),
    };
    let fits = |want: Option<bool>, is: bool| want.is_none() || want == Some(is);
    fits(selector.read_only, annotations.read_only)
        && fits(selector.destructive, annotations.destructive)
        && selector.capabilities.iter().all(|capability| capabilities.contains(capability))
        && selector.match_labels.iter().all(|(k, v)| labels.get(k) == Some(v))
}

fn whole(rule: &Rule, scene: &Scene<'_>) -> Told {
    let window = Some(rule.time_window.as_ref().is_none_or(|window| is_open(window, scene)));
    let arguments = rule.arguments.iter().map(|condition| argument(condition, scene.arguments.as_ref()));
    let when = conjuncts(rule).into_iter().map(|(_, meaning)| meaning(scene));
    all([window].into_iter().chain(arguments).chain(when))
}

fn possible(rule: &Rule, scene: &Scene<'_>) -> bool {
    if !scene.open {
        return whole(rule, scene) == Some(true);
    }
    let window = rule.time_window.as_ref().is_none_or(|window| is_open(window, scene));
    window && conjuncts(rule).into_iter().all(|(dynamic, meaning)| dynamic || meaning(scene) == Some(true))
}

/// From the count of seconds alone: 1970-01-01 was a Thursday.
fn is_open(window: &TimeWindow, scene: &Scene<'_>) -> bool {
    let seconds = scene.question.now.as_second();
    let minute = seconds.rem_euclid(86_400) / 60;
    let weekday = |days: i64| u8::try_from((days + 3).rem_euclid(7) + 1).unwrap();
    let day = seconds.div_euclid(86_400);
    let (start, end) = (i64::from(window.start_minute), i64::from(window.end_minute));
    let starts = |day: i64| window.days.is_empty() || window.days.contains(&weekday(day));
    // The window as a stretch of minutes from its first day on; today's and yesterday's are the candidates.
    let length = if start < end { end - start } else { end + 1440 - start };
    [0, 1].into_iter().any(|ago| {
        let since = minute + ago * 1440 - start;
        starts(day - ago) && (0..length).contains(&since)
    })
}

fn number(value: &Value, bound: i64) -> Option<Ordering> {
    #[allow(clippy::cast_precision_loss)] // The vocabulary has small numbers only.
    value.as_f64().and_then(|float| float.partial_cmp(&(bound as f64)))
}

fn argument(condition: &ArgumentRule, arguments: Option<&Value>) -> Told {
    let value = arguments?.get(condition.path.trim_start_matches('/'))?;
    let mut parts = Vec::new();
    if !condition.one_of.is_empty() {
        let same_type = condition.one_of.iter().any(|option| match option {
            Scalar::String(_) => value.is_string(),
            Scalar::Integer(_) => value.is_number(),
        });
        let equal = condition.one_of.iter().any(|option| match option {
            Scalar::String(text) => value == text.as_str(),
            Scalar::Integer(integer) => number(value, *integer) == Some(Ordering::Equal),
        });
        parts.push(same_type.then_some(equal));
    }
    if !condition.below.is_empty() {
        parts.push(match value.as_str() {
            None | Some("/data/../etc") => None,
            Some(path) => Some(path.starts_with("/data/") || path.starts_with("/tmp/")),
        });
    }
    parts.extend(condition.minimum.map(|minimum| number(value, minimum).map(|order| order != Ordering::Less)));
    parts.extend(condition.maximum.map(|maximum| number(value, maximum).map(|order| order != Ordering::Greater)));
    all(parts)
}

type Meaning = fn(&Scene<'_>) -> Told;

/// What each condition of the vocabulary means, conjunct by conjunct, and whether it reads the arguments.
fn conjuncts(rule: &Rule) -> Vec<(bool, Meaning)> {
    let Some(source) = &rule.when else { return Vec::new() };
    match CONDITIONS.iter().position(|condition| condition == source).expect("a condition of the vocabulary") {
        0 => vec![(false, mfa)],
        1 => vec![(true, |s| number(arg(s, "n")?, 10).map(|order| order != Ordering::Greater))],
        2 => vec![(false, mfa), (true, |s| env_is(s, "prod").map(|is| !is))],
        3 => vec![(false, |s| Some(s.tool?.is_some_and(|tool| tool.annotations.read_only)))],
        4 => vec![(true, |s| either(env_is(s, "dev"), mfa(s)))],
        5 => vec![(false, |s| group(s, "eng"))],
        6 => vec![(false, morning)],
        7 => vec![(true, |s| Some(object(s)?.contains_key("n"))), (false, morning)],
        8 => vec![(true, |s| match arg(s, "env")? {
            Value::String(env) => Some(env != "prod" && env != "test"),
            Value::Null => Some(true),
            _ => None,
        })],
        other => panic!("no meaning for condition {other}"),
    }
}

fn object<'a>(scene: &'a Scene<'_>) -> Option<&'a Map<String, Value>> {
    scene.arguments.as_ref()?.as_object()
}

fn arg<'a>(scene: &'a Scene<'_>, name: &str) -> Option<&'a Value> {
    object(scene)?.get(name)
}

fn env_is(scene: &Scene<'_>, want: &str) -> Told {
    match arg(scene, "env")? {
        Value::String(env) => Some(env == want),
        Value::Null => Some(false),
        _ => None,
    }
}

fn mfa(scene: &Scene<'_>) -> Told {
    scene.question.identity.as_ref()?.claims.get("mfa")?.as_bool()
}

fn group(scene: &Scene<'_>, want: &str) -> Told {
    Some(scene.question.identity.as_ref()?.groups.iter().any(|group| group == want))
}

fn morning(scene: &Scene<'_>) -> Told {
    Some(scene.question.now.as_second().rem_euclid(86_400) / 3600 < 12)
}
