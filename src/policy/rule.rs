//! One rule, compiled: what it names, and whether its conditions hold.
//!
//! A rule is the conjunction of its time window, its argument conditions and the conjuncts of its `when`, each true,
//! false or not to be told (`Truth`). An Allow rule needs all of it true. A Deny rule applies unless something is
//! false: a missing argument, another type or an error denies, so a Deny rule should name the tools that it is about.

use serde_json::Value;

use super::arguments;
use super::condition::{Condition, Conjunct, Inputs};
use super::decide::{Item, RuleRef};
use super::glob::{Glob, Template};
use super::input::Arguments;
use super::snapshot::{Annotations, ArgumentRule, Effect, Rule, Tool, ToolSelector};
use super::truth::Truth;
use super::window::Window;

/// What is assumed of a tool that nobody declared: the worst.
pub(super) const UNDECLARED: Annotations =
    Annotations { read_only: false, destructive: true, idempotent: false, open_world: true };

/// A compiled [`Rule`].
#[derive(Debug)]
pub(super) struct CompiledRule {
    pub(super) reference: RuleRef,
    /// Position of its role in the policy.
    pub(super) role: usize,
    pub(super) effect: Effect,
    tools: Vec<Glob>,
    selector: Option<ToolSelector>,
    prompts: Vec<Glob>,
    resources: Vec<Glob>,
    pub(super) arguments: Vec<ArgumentRule>,
    pub(super) window: Option<Window>,
    pub(super) condition: Option<Condition>,
}

/// What rules are judged on.
pub(super) struct Facts<'a> {
    /// The variables of conditions but for the arguments.
    pub(super) inputs: Inputs<'a>,
    /// The arguments of the call.
    pub(super) arguments: &'a Arguments<'a>,
}

/// A thing to be named by rules.
pub(super) enum Subject<'a> {
    /// A tool and its declaration, if it has one.
    Tool(&'a str, Option<&'a Tool>),
    Prompt(&'a str),
    /// Every way to read its URI, the canonical form first; never empty.
    Resource(Vec<String>),
    Template(Template),
}

/// What rules name without a declaration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Tools,
    Prompts,
    Resources,
}

/// Which readings of a thing, a bit for each. All that is no resource has one.
pub(super) type Readings = u8;

impl Subject<'_> {
    /// All readings of this thing.
    pub(super) fn readings(&self) -> Readings {
        match self {
            // `uri::readings` yields at most four.
            Self::Resource(readings) => readings.iter().fold(0, |all, _| (all << 1) | 1),
            Self::Tool(..) | Self::Prompt(_) | Self::Template(_) => 1,
        }
    }
}

/// Why an Allow rule did not match, the nearest miss first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Miss {
    /// This many argument conditions failed, this one first.
    Arguments(usize, usize),
    /// A conjunct that reads arguments.
    DynamicCondition,
    /// A conjunct that does not.
    StaticCondition,
    /// The time window.
    Time,
}

impl CompiledRule {
    /// Compiles a rule; the error is the name of the field and what is wrong with it.
    pub(super) fn compile(rule: &Rule, reference: RuleRef, holder: usize) -> Result<Self, (&'static str, String)> {
        let globs = |field, texts: &[String], parse: fn(&str) -> Result<Glob, String>| {
            texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>().map_err(|error| (field, error))
        };
        rule.arguments.iter().try_for_each(arguments::check).map_err(|error| ("arguments", error))?;
        Ok(Self {
            reference,
            role: holder,
            effect: rule.effect,
            tools: globs("tools", &rule.tools, Glob::parse)?,
            selector: rule.tool_selector.clone(),
            prompts: globs("prompts", &rule.prompts, Glob::parse)?,
            resources: globs("resources", &rule.resources, Glob::parse_uri)?,
            arguments: rule.arguments.clone(),
            window: rule.time_window.as_ref().map(Window::compile).transpose().map_err(|e| ("timeWindow", e))?,
            condition: rule.when.as_deref().map(Condition::compile).transpose().map_err(|error| ("when", error))?,
        })
    }

    /// Whether the rule is about this thing.
    pub(super) fn names(&self, subject: &Subject<'_>) -> bool {
        let any = |globs: &[Glob], text: &str| globs.iter().any(|glob| glob.matches(text));
        match subject {
            Subject::Tool(name, declared) => any(&self.tools, name) || self.selects(*declared),
            Subject::Prompt(name) => any(&self.prompts, name),
            Subject::Resource(readings) => readings.iter().any(|uri| any(&self.resources, uri)),
            // A list errs towards showing: an Allow may be about some URI, a Deny must be about all of them.
            Subject::Template(template) => self.resources.iter().any(|glob| match self.effect {
                Effect::Allow => glob.meets(template),
                Effect::Deny => glob.covers(template),
            }),
        }
    }

    /// Whether the rule could name something of this kind (Allow), or surely names all of it (Deny).
    pub(super) fn could_name(&self, kind: Kind) -> bool {
        let globs = match kind {
            Kind::Tools => &self.tools,
            Kind::Prompts => &self.prompts,
            Kind::Resources => &self.resources,
        };
        match self.effect {
            Effect::Allow => !globs.is_empty(),
            Effect::Deny => globs.iter().any(Glob::is_everything),
        }
    }

    /// Which readings of a thing that the rule names it names.
    pub(super) fn named(&self, subject: &Subject<'_>) -> Readings {
        let Subject::Resource(readings) = subject else { return 1 };
        let any = |uri: &String| self.resources.iter().any(|glob| glob.matches(uri));
        readings.iter().rev().fold(0, |named, uri| (named << 1) | Readings::from(any(uri)))
    }

    /// A selector speaks of declarations: without one it grants nothing, but denies on the worst assumptions.
    fn selects(&self, declared: Option<&Tool>) -> bool {
        let Some(selector) = &self.selector else { return false };
        let fits = |annotations: &Annotations| {
            let ToolSelector { read_only, destructive, idempotent, open_world, capabilities: _, match_labels: _ } =
                selector;
            read_only.is_none_or(|want| want == annotations.read_only)
                && destructive.is_none_or(|want| want == annotations.destructive)
                && idempotent.is_none_or(|want| want == annotations.idempotent)
                && open_world.is_none_or(|want| want == annotations.open_world)
        };
        match declared {
            Some(tool) => {
                fits(&tool.annotations)
                    && selector.capabilities.iter().all(|want| tool.capabilities.contains(want))
                    && selector.match_labels.iter().all(|(key, want)| tool.labels.get(key) == Some(want))
            }
            None => {
                self.effect == Effect::Deny
                    && selector.capabilities.is_empty()
                    && selector.match_labels.is_empty()
                    && fits(&UNDECLARED)
            }
        }
    }

    /// Whether the rule has conditions that depend on the arguments.
    pub(super) fn is_dynamic(&self) -> bool {
        !self.arguments.is_empty() || self.conjuncts().any(Conjunct::is_dynamic)
    }

    /// Where the rule reads arguments that a server may read otherwise, as a JSON pointer.
    pub(super) fn unclear(&self, arguments: &Arguments<'_>) -> Option<String> {
        let by_path = || self.arguments.iter().find_map(|condition| arguments.unclear_at(&condition.path));
        let by_when =
            || self.conjuncts().filter_map(Conjunct::of_arguments).find_map(|need| arguments.unclear_in(need));
        if self.is_dynamic() { by_path().or_else(by_when) } else { None }
    }

    /// Whether the rule applies to this call.
    pub(super) fn applies(&self, facts: &Facts<'_>) -> bool {
        match self.effect {
            Effect::Allow => self.miss(facts).is_none(),
            Effect::Deny => {
                self.judge_static(facts) != Truth::False
                    && self.arguments.iter().all(|rule| judge_argument(rule, facts) != Truth::False)
                    && self.conjuncts().filter(|c| c.is_dynamic()).all(|c| self.judge(c, facts) != Truth::False)
            }
        }
    }

    /// Whether the rule could apply to a call with some arguments (Allow), or does with any arguments (Deny).
    pub(super) fn applies_to_lists(&self, facts: &Facts<'_>) -> bool {
        match self.effect {
            Effect::Allow => self.judge_static(facts) == Truth::True,
            Effect::Deny => !self.is_dynamic() && self.judge_static(facts) != Truth::False,
        }
    }

    /// Whether this Allow rule could apply to a call with some arguments if its time window were open.
    pub(super) fn applies_at_some_time(&self, facts: &Facts<'_>) -> bool {
        self.judge_when(facts, false) == Truth::True
    }

    /// Why this Allow rule does not match, if so. The cheap conditions come first.
    pub(super) fn miss(&self, facts: &Facts<'_>) -> Option<Miss> {
        if !self.is_open(facts) {
            return Some(Miss::Time);
        }
        let fails =
            |dynamic: bool| self.conjuncts().any(|c| c.is_dynamic() == dynamic && self.judge(c, facts) != Truth::True);
        if fails(false) {
            return Some(Miss::StaticCondition);
        }
        let mut failed =
            self.arguments.iter().enumerate().filter(|(_, rule)| judge_argument(rule, facts) != Truth::True);
        if let Some((first, _)) = failed.next() {
            return Some(Miss::Arguments(1 + failed.count(), first));
        }
        fails(true).then_some(Miss::DynamicCondition)
    }

    /// Whether the time window is open.
    pub(super) fn is_open(&self, facts: &Facts<'_>) -> bool {
        self.window.as_ref().is_none_or(|window| window.contains(facts.inputs.now))
    }

    /// The part of the rule that no argument can change.
    fn judge_static(&self, facts: &Facts<'_>) -> Truth {
        if !self.is_open(facts) {
            return Truth::False;
        }
        self.conjuncts().filter(|c| !c.is_dynamic()).fold(Truth::True, |truth, c| truth.and(self.judge(c, facts)))
    }

    fn conjuncts(&self) -> impl Iterator<Item = &Conjunct> {
        self.condition.iter().flat_map(Condition::conjuncts)
    }

    /// Judges the conjuncts of `when` together; for `explain`. True without a `when`.
    pub(super) fn judge_when(&self, facts: &Facts<'_>, dynamic_too: bool) -> Truth {
        self.conjuncts()
            .filter(|conjunct| dynamic_too || !conjunct.is_dynamic())
            .fold(Truth::True, |truth, conjunct| truth.and(self.judge(conjunct, facts)))
    }

    fn judge(&self, conjunct: &Conjunct, facts: &Facts<'_>) -> Truth {
        let arguments = if conjunct.is_dynamic() { facts.arguments.object() } else { None };
        let inputs = Inputs { arguments, ..facts.inputs };
        self.condition.as_ref().map_or(Truth::True, |condition| condition.judge(conjunct, &inputs))
    }
}

/// Judges one argument condition; arguments that are no object cannot be judged.
pub(super) fn judge_argument(rule: &ArgumentRule, facts: &Facts<'_>) -> Truth {
    facts.arguments.object().map_or(Truth::Unknown, |arguments| arguments::judge(rule, arguments))
}

/// The variable `tool`.
pub(super) fn tool_variable(name: &str, server: &str, declared: Option<&Tool>) -> Value {
    let annotations = declared.map_or(UNDECLARED, |tool| tool.annotations);
    serde_json::json!({
        "name": name,
        "server": server,
        "annotations": annotations,
        "capabilities": declared.map_or(&[][..], |tool| &tool.capabilities),
        "labels": declared.map(|tool| tool.labels.clone()).unwrap_or_default(),
    })
}

/// Whether calls of this thing carry arguments that a caller chooses.
pub(super) fn has_arguments(item: Item<'_>) -> bool {
    match item {
        Item::Tool(_) | Item::Prompt(_) => true,
        Item::Resource(_) | Item::ResourceTemplate(_) => false,
    }
}
