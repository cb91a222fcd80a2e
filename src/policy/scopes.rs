//! Which OAuth scopes would turn a refusal into leave: what a caller is told, so that it can ask for them.
//!
//! A policy may name thousands of scopes, and every refused call asks. So no scope is tried by a decision of its own:
//! each rule is evaluated once, what its role then says is handed down to its heirs, and a scope is judged by what the
//! roles say that it gives. Only rules whose `when` reads the scopes are evaluated more often: once for each scope that
//! they write out, and once for all others together.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde_json::Value;

use super::condition::Condition;
use super::decide::{Call, Located, Verdict, facts_of};
use super::identity::Identity;
use super::input::Arguments;
use super::load::{Policy, identity_variable};
use super::roles::Roles;
use super::rule::{self, CompiledRule, Readings};
use super::snapshot::Effect;

/// Most rules that are about one thing and read the scopes of the caller. Beyond, no single scope is looked for.
const READERS: usize = 64;
/// Most scopes that one rule is evaluated for.
const WRITTEN_OUT: usize = 16;

/// What rules say about a call, all together.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Readings of the thing that some Allow rule allows.
    allowed: Readings,
    /// Whether some Deny rule matches.
    denied: bool,
}

impl Said {
    fn and(self, other: Self) -> Self {
        Self { allowed: self.allowed | other.allowed, denied: self.denied || other.denied }
    }
}

/// A rule whose `when` reads the scopes, and what it says.
struct Reader {
    /// For every role, whether its holders have the rule's role.
    holders: Vec<bool>,
    /// With a scope that it writes out.
    with: HashMap<String, Said>,
    /// With any other.
    otherwise: Said,
}

impl Policy {
    /// Scopes that would make the call allowed, out of these: one that suffices, or else all that are missing.
    pub fn missing_scopes(
        &self,
        identity: &Identity,
        scopes: &[String],
        call: &Call<'_>,
        now: Timestamp,
    ) -> Option<Vec<String>> {
        Search { policy: self, identity, call, now, evaluations: 0 }.run(scopes)
    }
}

/// One search for scopes.
struct Search<'a> {
    policy: &'a Policy,
    identity: &'a Identity,
    call: &'a Call<'a>,
    now: Timestamp,
    /// How many times a rule was evaluated.
    evaluations: usize,
}

impl Search<'_> {
    fn run(&mut self, scopes: &[String]) -> Option<Vec<String>> {
        let held: HashSet<&String> = self.identity.scopes.iter().collect();
        let lacking: Vec<&String> = scopes.iter().filter(|scope| !held.contains(scope)).collect();
        if lacking.is_empty() {
            return None;
        }
        // One that suffices is a better answer than all that are missing.
        if let Some(one) = self.sufficient(&lacking)
            && self.allows(&[one])
        {
            return Some(vec![one.clone()]);
        }
        (lacking.len() > 1 && self.allows(&lacking)).then(|| lacking.into_iter().cloned().collect())
    }

    /// Whether the call is allowed with these scopes too.
    fn allows(&mut self, more: &[&String]) -> bool {
        let scopes = self.identity.scopes.iter().chain(more.iter().copied()).cloned().collect();
        let richer = Identity { scopes, ..self.identity.clone() };
        self.evaluations += self.policy.rules.len();
        let decision = self.policy.decide(&self.policy.subject(Some(&richer)), self.call, self.now);
        decision.verdict == Verdict::Allow
    }

    /// The first scope that, as far as can be told, is enough.
    fn sufficient<'s>(&mut self, lacking: &[&'s String]) -> Option<&'s String> {
        let (policy, Call { item, arguments }) = (self.policy, *self.call);
        let all: Vec<u32> = (0..u32::try_from(policy.rules.len()).ok()?).collect();
        let of_tool = |position: usize| policy.rules_of_tools.get(position).map(Vec::as_slice).unwrap_or_default();
        let located = policy.find(&all, of_tool, item, self.now).ok()?;
        let arguments = Arguments::new(arguments.filter(|_| rule::has_arguments(item)));
        let reads_scopes = |rule: &&CompiledRule| rule.condition.as_ref().is_some_and(Condition::reads_scopes);
        let (readers, others): (Vec<_>, Vec<_>) = policy.candidates(&located).partition(reads_scopes);
        if readers.len() > READERS {
            return None;
        }

        let plain = identity_variable(self.identity);
        let mut by_role = vec![Said::default(); policy.roles.len()];
        for rule in others {
            let said = self.said(rule, &located, &arguments, &plain);
            by_role.get_mut(rule.role).into_iter().for_each(|all| *all = all.and(said));
        }
        hand_down(&policy.roles, &mut by_role);
        let readers: Vec<Reader> =
            readers.into_iter().map(|rule| self.reader(rule, lacking, &located, &arguments)).collect();

        let held = policy.roles.of(Some(self.identity));
        let union = |roles: &mut dyn Iterator<Item = usize>| {
            roles.filter_map(|role| by_role.get(role)).fold(Said::default(), |all, said| all.and(*said))
        };
        let already = union(&mut (0..held.len()).filter(|role| held.get(*role) == Some(&true)));
        let wanted = located.subject.readings();
        lacking.iter().copied().find(|scope| {
            let given = policy.roles.of_scope(&self.identity.issuer, scope);
            let mut said = already.and(union(&mut given.iter().copied()));
            for reader in &readers {
                let holds = |role: &usize| reader.holders.get(*role) == Some(&true);
                let before = held.iter().zip(&reader.holders).any(|(held, holder)| *held && *holder);
                if before || given.iter().any(holds) {
                    said = said.and(*reader.with.get(*scope).unwrap_or(&reader.otherwise));
                }
            }
            !said.denied && said.allowed == wanted
        })
    }

    /// What one rule says to a caller with this variable `identity`.
    fn said(
        &mut self,
        rule: &CompiledRule,
        located: &Located<'_>,
        arguments: &Arguments<'_>,
        identity: &Value,
    ) -> Said {
        self.evaluations += 1;
        if rule.unclear(arguments).is_some() {
            return Said { allowed: 0, denied: true };
        }
        match (rule.applies(&facts_of(Some(identity), located, arguments, self.now)), rule.effect) {
            (true, Effect::Allow) => Said { allowed: rule.named(&located.subject), denied: false },
            (true, Effect::Deny) => Said { allowed: 0, denied: true },
            (false, _) => Said::default(),
        }
    }

    fn reader(
        &mut self,
        rule: &CompiledRule,
        lacking: &[&String],
        located: &Located<'_>,
        arguments: &Arguments<'_>,
    ) -> Reader {
        let source = rule.condition.as_ref().map(Condition::source).unwrap_or_default();
        let literals: HashSet<&str> = source.split(['\'', '"']).collect();
        let (written, others): (Vec<&String>, Vec<&String>) =
            lacking.iter().copied().partition(|scope| literals.contains(scope.as_str()));
        let mut said = |scope: &String| {
            let scopes = self.identity.scopes.iter().chain([scope]).cloned().collect();
            let identity = identity_variable(&Identity { scopes, ..self.identity.clone() });
            self.said(rule, located, arguments, &identity)
        };
        let with = written.into_iter().take(WRITTEN_OUT).map(|scope| (scope.clone(), said(scope))).collect();
        let otherwise = others.first().map(|scope| said(scope)).unwrap_or_default();
        Reader { holders: holders(&self.policy.roles, rule.role), with, otherwise }
    }
}

/// Adds to what each role says what the roles say that it inherits, from afar too. Inheritance has no circles.
fn hand_down(roles: &Roles, said: &mut [Said]) {
    let mut done = vec![false; said.len()];
    for root in 0..said.len() {
        let mut pending = vec![root];
        while let Some(role) = pending.last().copied() {
            let open = |parent: &&usize| done.get(**parent) == Some(&false);
            let before = pending.len();
            if done.get(role) == Some(&false) {
                pending.extend(roles.inherited(role).iter().filter(open));
            }
            if pending.len() > before {
                continue; // Those first.
            }
            pending.pop();
            if done.get_mut(role).is_some_and(|done| !std::mem::replace(done, true)) {
                let inherited = roles.inherited(role).iter().filter_map(|parent| said.get(*parent).copied());
                let all = inherited.fold(Said::default(), Said::and);
                said.get_mut(role).into_iter().for_each(|said| *said = said.and(all));
            }
        }
    }
}

/// For every role, whether it is this one or inherits it, from afar too.
fn holders(roles: &Roles, wanted: usize) -> Vec<bool> {
    let mut said = vec![Said::default(); roles.len()];
    said.get_mut(wanted).into_iter().for_each(|said| said.denied = true); // Any mark that is handed down.
    hand_down(roles, &mut said);
    said.into_iter().map(|said| said.denied).collect()
}

#[cfg(test)]
mod tests;
