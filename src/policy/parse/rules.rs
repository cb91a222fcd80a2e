//! Rules of an McpRole. A broken part takes an Allow rule out of force, and makes a Deny rule deny more.

use jiff::civil::Time;

use super::{Report, argument};
use crate::api::conditions::reason;
use crate::api::{self, McpRole, RoleRule};
use crate::policy::check::{check_condition, check_glob, check_time_zone, check_uri_glob};
use crate::policy::snapshot::{Effect, Rule, TimeWindow, ToolSelector};
use crate::policy::world::{ObjectRef, ServerRule};

/// Every rule that is in force, whole or broadened.
pub(super) fn parse(role: &McpRole, object: &ObjectRef, report: &mut Report) -> Vec<ServerRule> {
    role.spec
        .rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| Parser::new(object, index, rule, report).run())
        .collect()
}

/// Parses one rule and notes whether all of it was sound.
pub(super) struct Parser<'a> {
    object: &'a ObjectRef,
    index: usize,
    declared: &'a RoleRule,
    report: &'a mut Report,
    sound: bool,
}

impl<'a> Parser<'a> {
    fn new(object: &'a ObjectRef, index: usize, declared: &'a RoleRule, report: &'a mut Report) -> Self {
        Self { object, index, declared, report, sound: true }
    }

    fn deny(&self) -> bool {
        self.declared.effect == api::Effect::Deny
    }

    /// Reports a broken part, and what that means for the rule.
    pub(super) fn broken(&mut self, member: &str, reason: &'static str, why: &str) {
        self.sound = false;
        let consequence = if self.deny() {
            "until it is corrected, the rule denies as if this part were not there"
        } else {
            "until it is corrected, the rule allows nothing"
        };
        let pointer = format!("/spec/rules/{}{member}", self.index);
        self.report.error(self.object, pointer, reason, format!("{why}; {consequence}"));
    }

    fn run(mut self) -> Option<ServerRule> {
        let declared = self.declared;
        let mut servers = self.globs("servers", &declared.servers);
        let server_selector = match &declared.server_selector {
            Some(selector) if selector.match_labels.is_empty() => {
                self.broken(
                    "/serverSelector",
                    reason::INVALID_SELECTOR,
                    "matchLabels is empty: name at least one label",
                );
                servers.push("*".to_owned());
                None
            }
            selector => selector.as_ref().map(|selector| selector.match_labels.clone()),
        };
        if servers.is_empty() && server_selector.is_none() {
            self.broken("", reason::INCOMPLETE_RULE, "the rule names no servers: set servers or serverSelector");
            servers.push("*".to_owned());
        }
        let rule = self.rule();
        // An index beyond u32 cannot come from an object that fits into a cluster; such a rule is out of force.
        let index = u32::try_from(self.index).ok()?;
        (self.sound || self.deny()).then_some(ServerRule { servers, server_selector, rule: Rule { index, ..rule } })
    }

    fn rule(&mut self) -> Rule {
        let declared = self.declared;
        let mut tools = self.globs("tools", &declared.tools);
        let tool_selector = declared.tool_selector.as_ref().and_then(selector);
        if declared.tool_selector.is_some() && tool_selector.is_none() {
            self.broken(
                "/toolSelector",
                reason::INVALID_SELECTOR,
                "the selector selects by nothing: set at least one member",
            );
            tools.push("*".to_owned());
        }
        let mut prompts = self.globs("prompts", &declared.prompts);
        let mut resources = self.globs("resources", &declared.resources);
        if tools.is_empty() && tool_selector.is_none() && prompts.is_empty() && resources.is_empty() {
            let why = "the rule is about nothing: set tools, toolSelector, prompts or resources";
            self.broken("", reason::INCOMPLETE_RULE, why);
            for list in [&mut tools, &mut prompts, &mut resources] {
                list.push("*".to_owned());
            }
        }
        let arguments = declared
            .arguments
            .iter()
            .enumerate()
            .filter_map(|(position, condition)| argument::parse(self, position, condition))
            .collect();
        let time_window = declared.time_window.as_ref().and_then(|window| self.time_window(window));
        let when = declared.when.as_ref().and_then(|source| match check_condition(source) {
            Ok(()) => Some(source.clone()),
            Err(why) => {
                self.broken("/when", reason::INVALID_EXPRESSION, &why);
                None
            }
        });
        let effect = if self.deny() { Effect::Deny } else { Effect::Allow };
        Rule { index: 0, effect, tools, tool_selector, prompts, resources, arguments, time_window, when }
    }

    /// The globs of a list. In a Deny rule a broken one becomes `*`: it may have meant anything of its sort.
    fn globs(&mut self, member: &str, globs: &[String]) -> Vec<String> {
        let mut kept = Vec::with_capacity(globs.len());
        for (position, glob) in globs.iter().enumerate() {
            let checked = if member == "resources" { check_uri_glob(glob) } else { check_glob(glob) };
            match checked {
                Ok(()) => kept.push(glob.clone()),
                Err(why) => {
                    self.broken(&format!("/{member}/{position}"), reason::INVALID_GLOB, &why);
                    kept.push("*".to_owned());
                }
            }
        }
        kept
    }

    fn time_window(&mut self, window: &api::TimeWindow) -> Option<TimeWindow> {
        if let Err(why) = check_time_zone(&window.time_zone) {
            self.broken("/timeWindow/timeZone", reason::INVALID_TIME_ZONE, &why);
            return None;
        }
        let Some(start_minute) = minute(&window.start).filter(|start| *start < 24 * 60) else {
            self.broken(
                "/timeWindow/start",
                reason::INVALID_TIME_WINDOW,
                "start is not a time of day: write it as \"09:00\"",
            );
            return None;
        };
        let Some(end_minute) = minute(&window.end) else {
            self.broken(
                "/timeWindow/end",
                reason::INVALID_TIME_WINDOW,
                "end is not a time of day: write it as \"17:00\"",
            );
            return None;
        };
        if start_minute == end_minute {
            self.broken(
                "/timeWindow",
                reason::INVALID_TIME_WINDOW,
                "start and end are the same: from 00:00 to 24:00 is a day",
            );
            return None;
        }
        let mut days: Vec<u8> = window.days.iter().map(|day| *day as u8 + 1).collect();
        days.sort_unstable();
        days.dedup();
        Some(TimeWindow { days, start_minute, end_minute, time_zone: window.time_zone.clone() })
    }
}

/// `HH:MM`, and `24:00` for the end of the day, as minutes after midnight.
fn minute(text: &str) -> Option<u16> {
    if text == "24:00" {
        return Some(24 * 60);
    }
    let time = Time::strptime("%H:%M", text).ok().filter(|_| text.len() == 5)?;
    let (hour, minute) = (u16::try_from(time.hour()).ok()?, u16::try_from(time.minute()).ok()?);
    Some(hour * 60 + minute)
}

/// `None` if nothing is selected by.
fn selector(declared: &api::ToolSelector) -> Option<ToolSelector> {
    let annotations = declared.annotations.unwrap_or_default();
    let mut capabilities = declared.capabilities.clone();
    capabilities.sort();
    capabilities.dedup();
    let selector = ToolSelector {
        read_only: annotations.read_only,
        destructive: annotations.destructive,
        idempotent: annotations.idempotent,
        open_world: annotations.open_world,
        capabilities,
        match_labels: declared.match_labels.clone(),
    };
    (selector != ToolSelector::default()).then_some(selector)
}
