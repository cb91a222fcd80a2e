//! The decision. Only this file makes a [`Permit`], and only a permit is forwarded: a message that was not decided
//! upon cannot be sent.

use http::request::Parts;
use jiff::Timestamp;
use serde_json::json;

use super::authenticate::{insufficient_scope, login};
use super::deliver::Purpose;
use super::record::Recorder;
use crate::gateway::endpoint::{Caller, Endpoint, Force};
use crate::gateway::protocol::envelope::{Envelope, Kind};
use crate::gateway::protocol::era::Era;
use crate::gateway::protocol::error::{CAPABILITY, PARAMS, Reject};
use crate::gateway::protocol::json::{self, items, members, range_in, splice};
use crate::gateway::protocol::meta;
use crate::gateway::protocol::methods::Class;
use crate::gateway::upstream::Upstream;
use crate::policy::decide::UNCLEAR;
use crate::policy::snapshot::{Registration, Tool};
use crate::policy::{Call, Decision, Identity, Item, Reason, Verdict};

/// Leave to send one message, bound to its final bytes.
pub(in crate::gateway) struct Permit {
    message: Envelope,
    purpose: Purpose,
    read_only: bool,
}

impl Permit {
    /// What the answer is for.
    pub(in crate::gateway) fn purpose(&self) -> &Purpose {
        &self.purpose
    }

    /// Whether the message is known to change nothing: no intent is recorded for it.
    pub(in crate::gateway) fn read_only(&self) -> bool {
        self.read_only
    }

    /// The bytes that may be sent.
    pub(in crate::gateway) fn into_message(self) -> Envelope {
        self.message
    }
}

/// What a decision reads.
pub(in crate::gateway) struct Asked<'a> {
    pub(in crate::gateway) endpoint: &'a Endpoint,
    pub(in crate::gateway) force: &'a Force,
    pub(in crate::gateway) caller: &'a Caller,
    pub(in crate::gateway) head: &'a Parts,
    pub(in crate::gateway) era: Era,
}

impl Asked<'_> {
    /// Refuses a thing that does not exist, or must look so.
    fn unknown(&self, what: &str, name: &str) -> Reject {
        login(self.force, self.caller, self.head).unwrap_or_else(|| Reject::unknown(what, name, self.era))
    }
}

/// Whether a message that is in no session may begin something for this caller: a session, or a process that serves
/// it. Whom no rule could ever allow anything is refused, with the scopes that would change that. Where something hidden
/// is named, the decision answers, which is the same for what does not exist.
pub(in crate::gateway) fn admit(
    asked: &Asked<'_>,
    (class, kind): (Class, Kind),
    record: &mut Recorder,
) -> Result<(), Reject> {
    let (force, caller) = (asked.force, asked.caller);
    let begins = match class {
        Class::Initialize => true,
        Class::Discover | Class::Session | Class::List(_) | Class::Listen => {
            kind == Kind::Request && matches!(asked.endpoint.upstream, Upstream::Stdio(_))
        }
        Class::Tool | Class::Prompt | Class::Resource | Class::Complete | Class::Task => false,
    };
    if begins && !force.policy.could_allow_anything(&caller.view) {
        record.decision("deny", None, Some(format!("{:?}", Reason::NoRule)));
        return Err(match scopes_that_open(force, caller) {
            Some(scopes) => insufficient_scope(force, asked.head, &scopes),
            None => Reject::nothing_allowed(),
        });
    }
    Ok(())
}

/// The scopes that the caller's token lacks, if it could be allowed something with them.
fn scopes_that_open(force: &Force, caller: &Caller) -> Option<Vec<String>> {
    let identity = &caller.verified.as_ref()?.identity;
    let lacking: Vec<String> = force.scopes.iter().filter(|it| !identity.scopes.contains(it)).cloned().collect();
    if lacking.is_empty() {
        return None;
    }
    let richer = Identity { scopes: [identity.scopes.as_slice(), &lacking].concat(), ..identity.clone() };
    force.policy.could_allow_anything(&force.policy.subject(Some(&richer))).then_some(lacking)
}

/// Decides about one message from a client. The recorder learns what was decided, and why.
pub(in crate::gateway) fn authorize(
    asked: &Asked<'_>,
    class: Class,
    message: Envelope,
    record: &mut Recorder,
) -> Result<Permit, Reject> {
    let message = match meta::strip_own(message.text()) {
        None => message,
        Some(clean) => Envelope::parse_trusting(clean.into())?,
    };
    let plain = |message, purpose| Ok(Permit { message, purpose, read_only: true });
    match class {
        Class::Initialize => plain(message, Purpose::Initialize),
        Class::Discover => plain(message, Purpose::Discover),
        Class::Session => plain(message, Purpose::Plain),
        Class::List(list) => {
            let parameters = message.params().and_then(members).unwrap_or_default();
            let follows = parameters.iter().any(|(key, cursor)| key == "cursor" && cursor.get() != "null");
            plain(message, Purpose::List { list, follows })
        }
        Class::Tool => tool(asked, message, record),
        Class::Prompt => {
            let name = message.name.clone().ok_or_else(|| missing("name"))?;
            let call = Call { item: Item::Prompt(&name), arguments: message.arguments() };
            decide(asked, &call, ("prompt", &name), record)?;
            Ok(Permit { message, purpose: Purpose::Use { deprecation: None, tool: None }, read_only: true })
        }
        Class::Resource => {
            let uri = message.uri.clone().ok_or_else(|| missing("uri"))?;
            decide(asked, &Call { item: Item::Resource(&uri), arguments: None }, ("resource", &uri), record)?;
            Ok(Permit { message, purpose: Purpose::Use { deprecation: None, tool: None }, read_only: true })
        }
        Class::Complete => {
            complete(asked, &message, record)?;
            plain(message, Purpose::Plain)
        }
        Class::Task => {
            let task = message.task.clone().ok_or_else(|| missing("taskId"))?;
            record.target(&task);
            if asked.era == Era::Modern && !declares_tasks(&message) {
                let required = json!({"extensions": {TASKS: {}}});
                return Err(Reject::malformed(
                    CAPABILITY,
                    "this method needs a client that declares the tasks extension",
                )
                .with("requiredCapabilities", required));
            }
            // Whoever began a task may end it. What it gives is refused once its tool is.
            let tasks = &asked.endpoint.tasks;
            let permitted = match message.method.as_str() {
                "tasks/cancel" => tasks.belongs_to(&task, asked.caller),
                _ => tasks.serves(&task, asked.caller, asked.force, Timestamp::now()),
            };
            if !permitted {
                return Err(asked.unknown("task", &task));
            }
            Ok(Permit { message, purpose: Purpose::Use { deprecation: None, tool: None }, read_only: false })
        }
        Class::Listen => plain(listen(asked, message)?, Purpose::Plain),
    }
}

/// The tasks extension (SEP-2663).
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Whether a modern request declares the tasks extension. A server refuses one that does not; so do we, before we say
/// whether a task exists.
fn declares_tasks(message: &Envelope) -> bool {
    let within = |text: &str, wanted: &str| {
        members(text)
            .and_then(|all| all.into_iter().find(|(key, _)| key == wanted).map(|(_, raw)| raw.get().to_owned()))
    };
    message
        .meta()
        .and_then(|meta| within(meta, "io.modelcontextprotocol/clientCapabilities"))
        .and_then(|capabilities| within(&capabilities, "extensions"))
        .is_some_and(|extensions| within(&extensions, TASKS).is_some())
}

fn missing(field: &str) -> Reject {
    Reject::malformed(PARAMS, format!("params.{field} is missing"))
}

fn tool(asked: &Asked<'_>, message: Envelope, record: &mut Recorder) -> Result<Permit, Reject> {
    let exposed = message.name.clone().ok_or_else(|| missing("name"))?;
    let policy = &asked.force.policy;
    let declared = policy.tool_by_exposed_name(&exposed);
    // A tool that is exposed under another name does not exist under its own.
    let name = match declared {
        Some(tool) => tool.name.clone(),
        None if policy.snapshot().registration == Registration::Auto && policy.tool(&exposed).is_none() => {
            exposed.clone()
        }
        None => {
            record.target(&exposed);
            record.decision("unknown", None, Some("NotDeclared".to_owned()));
            return Err(asked.unknown("tool", &exposed));
        }
    };
    let call = Call { item: Item::Tool(&name), arguments: message.arguments() };
    decide(asked, &call, ("tool", &exposed), record)?;
    let purpose = Purpose::Use { deprecation: declared.and_then(deprecation), tool: Some(name.as_str().into()) };
    let read_only = declared.is_some_and(|tool| tool.annotations.read_only);
    record.target(&name);
    let message = if name == exposed {
        message
    } else {
        let range = message.name_range().ok_or_else(|| missing("name"))?;
        Envelope::parse_trusting(splice(message.text(), &[(range, json::quote(&name))]).into())?
    };
    Ok(Permit { message, purpose, read_only })
}

/// What callers of a deprecated tool are told, as JSON text.
fn deprecation(tool: &Tool) -> Option<std::sync::Arc<str>> {
    let told = tool.deprecation.as_ref()?;
    serde_json::to_string(told).ok().map(Into::into)
}

/// Allows, or refuses as the caller may know it: an invisible thing exactly as one that does not exist.
fn decide(asked: &Asked<'_>, call: &Call<'_>, shown: (&str, &str), record: &mut Recorder) -> Result<(), Reject> {
    let (what, name) = shown;
    let now = Timestamp::now();
    record.target(match call.item {
        Item::Tool(name) | Item::Prompt(name) | Item::Resource(name) | Item::ResourceTemplate(name) => name,
    });
    let decision = asked.force.policy.decide(&asked.caller.view, call, now);
    let reason = (decision.verdict != Verdict::Allow).then(|| reason_text(&decision));
    match decision.verdict {
        Verdict::Allow => {
            record.decision("allow", decision.rule, reason);
            return Ok(());
        }
        Verdict::Deny => record.decision("deny", decision.rule.clone(), reason),
        Verdict::Unknown => record.decision("unknown", decision.rule.clone(), reason),
    }
    if let Some(login) = login(asked.force, asked.caller, asked.head) {
        return Err(login);
    }
    if let Some(scopes) = missing_scopes(asked, call, now) {
        return Err(insufficient_scope(asked.force, asked.head, &scopes));
    }
    Err(match (decision.verdict, decision.reason) {
        (Verdict::Deny, Reason::Argument { path, permitted }) => {
            Reject::denied(format!("refused by policy: {path} must be {permitted}"))
                .with("path", path)
                .with("permitted", permitted)
        }
        (Verdict::Deny, Reason::Unclear { path }) => {
            let place = if path.is_empty() { "the arguments" } else { path.as_str() };
            Reject::denied(format!("refused by policy: in {place} {UNCLEAR}")).with("path", path)
        }
        (Verdict::Deny, _) => Reject::denied(format!("refused by policy: this use of the {what} is not allowed")),
        (Verdict::Allow | Verdict::Unknown, _) => Reject::unknown(what, name, asked.era),
    })
}

fn reason_text(decision: &Decision) -> String {
    match &decision.reason {
        Reason::Argument { path, .. } => format!("Argument {path}"),
        Reason::Unclear { path } => format!("Unclear {path}"),
        other => format!("{other:?}"),
    }
}

/// Scopes that would make the call allowed, if a rule of this policy reads scopes at all.
fn missing_scopes(asked: &Asked<'_>, call: &Call<'_>, now: Timestamp) -> Option<Vec<String>> {
    let identity = &asked.caller.verified.as_ref()?.identity;
    asked.force.policy.missing_scopes(identity, &asked.force.scopes, call, now)
}

/// Completion tells what values an argument may have: only for things that the caller sees.
fn complete(asked: &Asked<'_>, message: &Envelope, record: &mut Recorder) -> Result<(), Reject> {
    let reference = message
        .params()
        .and_then(members)
        .and_then(|all| all.iter().find(|(key, _)| key == "ref").and_then(|(_, raw)| members(raw.get())))
        .ok_or_else(|| missing("ref"))?;
    let text = |wanted: &str| {
        reference
            .iter()
            .find(|(key, _)| key == wanted)
            .and_then(|(_, raw)| serde_json::from_str::<String>(raw.get()).ok())
    };
    // Keys cannot repeat, not even in another case, so a reader that ignores case finds at most what is missing here.
    let kind = text("type");
    let (what, name) = match kind.as_deref() {
        Some("ref/prompt") => ("prompt", text("name").ok_or_else(|| missing("ref.name"))?),
        Some("ref/resource") => ("resource", text("uri").ok_or_else(|| missing("ref.uri"))?),
        _ => return Err(Reject::malformed(PARAMS, "params.ref.type must be \"ref/prompt\" or \"ref/resource\"")),
    };
    let item = match what {
        "prompt" => Item::Prompt(&name),
        _ if name.contains('{') => Item::ResourceTemplate(&name),
        _ => Item::Resource(&name),
    };
    record.target(&name);
    if asked.force.policy.visible(&asked.caller.view, item, Timestamp::now()) {
        Ok(())
    } else {
        Err(asked.unknown(what, &name))
    }
}

/// Members of a filter that name things.
const LISTENED: [&str; 2] = ["resourceSubscriptions", "taskIds"];

/// Takes out of `subscriptions/listen` what the caller may not watch; the server acknowledges the rest.
fn listen(asked: &Asked<'_>, message: Envelope) -> Result<Envelope, Reject> {
    let now = Timestamp::now();
    let mut edits = Vec::new();
    let filter = message
        .params()
        .and_then(members)
        .and_then(|all| all.iter().find(|(key, _)| key == "notifications").and_then(|(_, raw)| members(raw.get())));
    for (key, raw) in filter.unwrap_or_default() {
        let allowed: &dyn Fn(&str) -> bool = match key.as_ref() {
            "resourceSubscriptions" => &|uri| asked.force.policy.visible(&asked.caller.view, Item::Resource(uri), now),
            "taskIds" => &|task| asked.endpoint.tasks.serves(task, asked.caller, asked.force, now),
            other if LISTENED.iter().any(|known| json::same_folded(other, known)) => {
                return Err(Reject::malformed(PARAMS, format!("{other} differs from a known name only in case")));
            }
            _ => continue,
        };
        let all = items(raw.get()).ok_or_else(|| Reject::malformed(PARAMS, format!("{key} must be a list")))?;
        let mut kept = Vec::new();
        for item in &all {
            let name: String = serde_json::from_str(item.get())
                .map_err(|_| Reject::malformed(PARAMS, format!("{key} must hold strings")))?;
            if allowed(&name) {
                kept.push(item.get());
            }
        }
        if kept.len() < all.len() {
            edits.push((range_in(message.text(), raw.get()), format!("[{}]", kept.join(","))));
        }
    }
    if edits.is_empty() {
        return Ok(message);
    }
    Ok(Envelope::parse_trusting(splice(message.text(), &edits).into())?)
}
