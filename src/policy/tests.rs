//! Properties of policy as a whole, and a second implementation to compare with.

pub(super) mod fixture;
mod oracle;
pub(super) mod worlds;

use proptest::prelude::*;
use proptest::sample::Index;

use super::snapshot::Effect;
use super::{Call, Decision, Item, Policy, Reason, Snapshot, Verdict, World, compile};
use worlds::{Question, question, target, world};

fn policy(world: &World) -> Policy {
    Policy::load(compile(world, &target(), &["http://127.0.0.1/mcp".to_owned()]).unwrap()).unwrap()
}

fn decide(policy: &Policy, question: &Question) -> Decision {
    let view = policy.subject(question.identity.as_ref());
    policy.decide(&view, &question.call(), question.now)
}

fn visible(policy: &Policy, question: &Question) -> bool {
    policy.visible(&policy.subject(question.identity.as_ref()), question.item(), question.now)
}

fn allows(policy: &Policy, question: &Question) -> bool {
    decide(policy, question).verdict == Verdict::Allow
}

/// The same objects, with every list turned round whose order means nothing, and its first entry repeated.
fn turned(world: &World) -> World {
    fn turn<T: Clone>(list: &mut Vec<T>) {
        list.reverse();
        list.extend(list.first().cloned());
    }
    let mut world = world.clone();
    for tool in world.tools.values_mut() {
        turn(&mut tool.tool.capabilities);
    }
    for gateway in world.gateways.values_mut() {
        gateway.issuers.reverse();
    }
    for role in world.roles.values_mut() {
        turn(&mut role.inherits);
        for subject in &mut role.subjects {
            if let super::snapshot::Subject::Claim { values, .. } = subject {
                turn(values);
            }
        }
        turn(&mut role.subjects);
        for rule in &mut role.rules {
            turn(&mut rule.servers);
            let rule = &mut rule.rule;
            [&mut rule.tools, &mut rule.prompts, &mut rule.resources].into_iter().for_each(turn);
            rule.tool_selector.iter_mut().for_each(|selector| turn(&mut selector.capabilities));
            rule.time_window.iter_mut().for_each(|window| turn(&mut window.days));
            for condition in &mut rule.arguments {
                turn(&mut condition.one_of);
                turn(&mut condition.below);
            }
        }
    }
    world
}

/// Whether a role has a Deny rule, or inherits one.
fn denies(world: &World, name: &(String, String)) -> bool {
    let Some(role) = world.roles.get(name) else { return false };
    role.rules.iter().any(|rule| rule.rule.effect == Effect::Deny)
        || role.inherits.iter().any(|parent| denies(world, &(name.0.clone(), parent.clone())))
}

fn without(world: &World, name: &(String, String)) -> World {
    let mut world = world.clone();
    world.roles.remove(name);
    for ((_, heir), role) in world.roles.iter_mut().filter(|((namespace, _), _)| *namespace == name.0) {
        assert_ne!(*heir, name.1);
        role.inherits.retain(|parent| *parent != name.1);
    }
    for (_, gateway) in world.gateways.iter_mut().filter(|((namespace, _), _)| *namespace == name.0) {
        gateway.anonymous = gateway.anonymous.take().filter(|role| *role != name.1);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn decisions_and_lists_equal_the_oracle(world in world(), questions in prop::collection::vec(question(), 12)) {
        let policy = policy(&world);
        for question in &questions {
            let expected = oracle::decide(&world, question);
            let decision = decide(&policy, question);
            prop_assert_eq!(decision.verdict, expected.verdict, "{:#?}", question);
            prop_assert_eq!(visible(&policy, question), expected.visible, "{:#?}", question);
            if expected.verdict == Verdict::Allow {
                let rule = decision.rule.map(|rule| (rule.role.to_string(), rule.index));
                prop_assert_eq!(rule, expected.rule);
            }
        }
    }

    #[test]
    fn an_allowed_call_is_always_visible(world in world(), questions in prop::collection::vec(question(), 12)) {
        let policy = policy(&world);
        for question in questions {
            prop_assert!(!allows(&policy, &question) || visible(&policy, &question), "{:#?}", question);
        }
    }

    #[test]
    fn a_template_of_an_allowed_resource_is_visible(world in world(), question in question()) {
        let policy = policy(&world);
        for (template, uris) in worlds::TEMPLATES {
            let list = Question { item: worlds::OwnedItem::Template(template), ..question.clone() };
            for uri in uris {
                let read = Question { item: worlds::OwnedItem::Resource(uri), ..question.clone() };
                prop_assert!(!allows(&policy, &read) || visible(&policy, &list), "{} of {}", uri, template);
            }
        }
    }

    #[test]
    fn the_order_of_objects_and_lists_never_changes_the_hash(world in world()) {
        let one = compile(&world, &target(), &[]).unwrap();
        let other = compile(&turned(&world), &target(), &[]).unwrap();
        prop_assert_eq!(one.hash(), other.hash());
        prop_assert_eq!(one.access_hash(), other.access_hash());
        let again: Snapshot = serde_json::from_slice(&one.canonical()).unwrap();
        prop_assert_eq!(again, one);
    }

    #[test]
    fn adding_a_deny_never_allows_or_shows_more(
        world in world(), rule in worlds::rule(), role in any::<Index>(), questions in prop::collection::vec(question(), 12),
    ) {
        let mut stricter = world.clone();
        if let Some((_, role)) = stricter.roles.iter_mut().nth(role.index(world.roles.len())) {
            let mut rule = rule;
            rule.rule.effect = Effect::Deny;
            rule.rule.index = 99;
            role.rules.push(rule);
        }
        let (before, after) = (policy(&world), policy(&stricter));
        for question in questions {
            prop_assert!(!allows(&after, &question) || allows(&before, &question), "{:#?}", question);
            prop_assert!(!visible(&after, &question) || visible(&before, &question), "{:#?}", question);
        }
    }

    /// A role with a Deny holds something back, so this is about roles that neither have nor inherit one.
    #[test]
    fn removing_a_role_without_deny_never_allows_or_shows_more(
        world in world(), role in any::<Index>(), questions in prop::collection::vec(question(), 12),
    ) {
        let removable: Vec<_> = world.roles.keys().filter(|name| !denies(&world, name)).collect();
        let Some(name) = removable.get(role.index(removable.len().max(1))) else { return Ok(()) };
        let (before, after) = (policy(&world), policy(&without(&world, name)));
        for question in questions {
            prop_assert!(!allows(&after, &question) || allows(&before, &question), "{:#?}", question);
            prop_assert!(!visible(&after, &question) || visible(&before, &question), "{:#?}", question);
        }
    }

    #[test]
    fn what_explain_says_is_what_decide_does(world in world(), question in question()) {
        let policy = policy(&world);
        let explanation = super::explain(&policy, question.identity.as_ref(), &question.call(), question.now);
        let some_arguments = question.arguments.is_none() && matches!(question.item(), Item::Tool(_) | Item::Prompt(_));
        let decision = decide(&policy, &question);
        if some_arguments {
            let allowed = explanation.decision.verdict == Verdict::Allow;
            prop_assert_eq!(allowed, visible(&policy, &question));
        } else {
            prop_assert_eq!(&explanation.decision, &decision);
            let matched = |effect| explanation.rules.iter().any(|rule| rule.effect == effect && rule.matched);
            let allowed = matched(Effect::Allow) && !matched(Effect::Deny);
            prop_assert_eq!(allowed, decision.verdict == Verdict::Allow);
        }
        let lines = super::conditions(&policy, question.identity.as_ref(), question.item(), question.now);
        prop_assert_eq!(lines.is_empty(), !visible(&policy, &question));
    }

    #[test]
    fn a_view_of_another_policy_grants_nothing(world in world(), other in world(), question in question()) {
        let (one, two) = (policy(&world), policy(&other));
        prop_assume!(one.hash() != two.hash());
        let view = one.subject(question.identity.as_ref());
        let decision = two.decide(&view, &question.call(), question.now);
        prop_assert_eq!(decision, Decision { verdict: Verdict::Unknown, rule: None, reason: Reason::NoRule });
        prop_assert!(!two.visible(&view, question.item(), question.now));
    }
}

proptest! {
    #[test]
    fn any_bytes_load_or_give_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Policy::from_json(&bytes);
    }

    /// A valid snapshot with one piece of text replaced: nearly right is where totality is lost.
    #[test]
    fn a_damaged_snapshot_loads_or_gives_an_error(
        world in world(), from in any::<Index>(), to in any::<Index>(), piece in "[\\[\\]{}\":,0-9a-zé*?(!]{0,8}", question in question(),
    ) {
        let mut text = compile(&world, &target(), &[]).unwrap().canonical();
        let (a, b) = (from.index(text.len()), to.index(text.len()));
        text.splice(a.min(b)..a.max(b).min(a.min(b) + 8), piece.bytes());
        if let Ok(policy) = Policy::from_json(&text) {
            decide(&policy, &question);
        }
    }

    #[test]
    fn compile_is_total_on_worlds_that_parse_would_refuse(
        world in world(), name in ".{0,8}", glob in ".{0,8}", when in ".{0,20}", question in question(),
    ) {
        let mut world = world;
        for role in world.roles.values_mut() {
            role.inherits.push(name.clone()); // Also cycles: see below.
            for rule in &mut role.rules {
                rule.servers.push(glob.clone());
                rule.rule.tools.push(glob.clone());
                rule.rule.when = Some(when.clone());
            }
        }
        let names: Vec<String> = world.roles.keys().map(|(_, name)| name.clone()).collect();
        world.roles.values_mut().for_each(|role| role.inherits.extend(names.clone()));
        if let Ok(policy) = Policy::load(compile(&world, &target(), &[]).unwrap()) {
            decide(&policy, &question);
        }
    }
}

#[test]
fn a_server_that_is_not_there_has_no_policy() {
    assert_eq!(compile(&World::default(), &target(), &[]), None);
}

/// Not a benchmark: it fails only when a decision has become slower by an order of magnitude.
#[test]
#[ignore = "timing; run with --release --ignored --nocapture"]
fn the_cost_of_a_decision() {
    let policy = worlds::one_argument_rule();
    let identity = worlds::identity("i1", "ada", &["eng"]);
    let view = policy.subject(Some(&identity));
    let arguments =
        r#"{"environment":"dev","service":"checkout","replicas":3,"note":"nothing to see here, please move on"}"#;
    let call = Call { item: Item::Tool("get_x"), arguments: Some(arguments) };
    let now = worlds::NOWS[0].parse().unwrap();
    let mut best = std::time::Duration::MAX;
    for _ in 0..10 {
        #[allow(clippy::disallowed_types)] // Real time is what is measured.
        let start = std::time::Instant::now();
        for _ in 0..10_000 {
            assert_eq!(std::hint::black_box(policy.decide(&view, &call, now)).verdict, Verdict::Allow);
        }
        best = best.min(start.elapsed() / 10_000);
    }
    println!("decide: {best:?}");
    assert!(best < std::time::Duration::from_micros(20));
}
