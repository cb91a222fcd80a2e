use std::process::Command;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: &str = "2026-01-05T09:30:00Z";

fn identity() -> Value {
    json!({
        "issuer": "corp", "subject": "ada@example.com", "groups": ["engineering"], "scopes": ["mcp:read"],
        "claims": {"mfa": true, "level": 3, "email": "ada@example.com", "tags": ["a", "b"], "nested": {"deep": {"x": 1}}},
    })
}

fn tool() -> Value {
    json!({
        "name": "deploy", "server": "ops", "capabilities": ["release"], "labels": {"tier": "gold"},
        "annotations": {"readOnly": false, "destructive": true, "idempotent": false, "openWorld": true},
    })
}

fn judged(source: &str, arguments: &Value) -> Truth {
    let condition = Condition::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    let (identity, tool) = (identity(), tool());
    let inputs =
        Inputs { identity: Some(&identity), arguments: Some(arguments), tool: Some(&tool), now: NOW.parse().unwrap() };
    condition.conjuncts().iter().fold(Truth::True, |truth, conjunct| truth.and(condition.judge(conjunct, &inputs)))
}

#[test]
fn conditions_read_identity_arguments_tool_and_now() {
    for source in [
        "identity.claims.mfa == true && arguments.replicas <= 10",
        "identity.claims.mfa",
        "'engineering' in identity.groups",
        "identity.issuer == 'corp' && identity.subject.endsWith('@example.com')",
        "tool.annotations.destructive && tool.labels['tier'] == 'gold' && 'release' in tool.capabilities",
        "now.getHours() == 9 && now > timestamp('2026-01-01T00:00:00Z')",
        "now - timestamp('2026-01-05T09:00:00Z') == duration('30m')",
        "has(arguments.replicas) && !has(arguments.force)",
        "arguments.tags.all(t, t.startsWith('x'))",
        "arguments.tags.exists(t, t == 'xb') && arguments.tags.filter(t, t != 'xa').size() == 1",
        "arguments.tags.map(t, size(t)) == [2, 2]",
        "arguments.name.matches('^[a-z]+$')",
        "arguments[\"odd-key\"] == 1",
        "size(arguments) == 6",
        "arguments.tags[0] == 'xa'",
        "int('4') + 1 == 5 && double('0.5') < 1.0 && string(3) == '3'",
        "arguments.replicas > 5 ? identity.claims.level >= 3 : true",
        "arguments.float == 2 && arguments.float in [1, 2] && arguments.replicas == 10.0",
        "size('héé') == 3",
        "-5 < 0 && 0 - arguments.replicas == -10",
        "arguments.nothing == null",
        "identity.claims.nested.deep.x == 1 && identity.claims.nested['deep']['x'] == 1",
    ] {
        let arguments = json!({
            "replicas": 10, "tags": ["xa", "xb"], "name": "abc", "odd-key": 1, "float": 2.0, "nothing": null,
        });
        assert_eq!(judged(source, &arguments), Truth::True, "{source}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_unknown_never_a_panic() {
    let many: Vec<u32> = (0..1001).collect();
    let arguments = json!({
        "s": "text", "n": 5, "list": ["a"], "map": {"b": 1, "a": "x"}, "min": i64::MIN, "max": i64::MAX,
        "big": u64::MAX, "many": many, "env": ["production"],
    });
    for source in [
        "arguments.missing == 1",
        "arguments.s.field == false",
        "!arguments.s.force",
        "has(arguments.s.force)",
        "has(arguments.list.a)",
        "!arguments.n.contains('..')",
        "!arguments.list.contains('..')",
        "arguments.s.contains(arguments.n)",
        "arguments.env != 'production'",
        "arguments.n == '5'",
        "arguments.n in ['5']",
        "arguments.max + 1 > 0",
        "0 - arguments.min > 0",
        "arguments.max * 2 > 0",
        "arguments.min / -1 > 0",
        "arguments.n / 0 == 0",
        "arguments.n % 0 == 0",
        "arguments.min % -1 == 0",
        "arguments.s < 5",
        "arguments.list < arguments.list",
        "arguments.s",
        "arguments.n && true",
        "int(arguments.big) > 0",
        "int(arguments.s) > 0",
        "int('9223372036854775808') > 0",
        "double('nan') < 1.0",
        "double(arguments.map) < 1.0",
        "timestamp(arguments.s) < now",
        "arguments.list[1] == 'a'",
        "arguments.list[-1] == 'a'",
        "arguments.list['a'] == 'a'",
        "arguments.many.all(x, x >= 0)",
        "size(arguments.many) > 0",
        "arguments.s.all(c, c != '')",
        "arguments.n.getHours() == 1",
        "arguments.map.all(k, arguments.map[k] == 1)",
        "size(arguments.n) == 1",
        "'x'.startsWith(arguments.n)",
    ] {
        assert_eq!(judged(source, &arguments), Truth::Unknown, "{source}");
    }
}

#[test]
fn a_known_panic_of_the_evaluator_is_contained() {
    // 32 spans of 9,998 years, added to now, leave what chrono can hold.
    let spans = (0..5).fold("d".to_owned(), |sum, _| format!("({sum} + {sum})"));
    let span = "timestamp('9999-12-31T00:00:00Z') - timestamp('0001-01-01T00:00:00Z')";

    assert_eq!(judged(&format!("[{span}].all(d, now + {spans} > now)"), &json!({})), Truth::Unknown);
    assert_eq!(judged(&format!("[{span}].all(d, {spans} > d)"), &json!({})), Truth::True, "the spans alone are fine");
}

#[test]
fn absent_variables_are_errors() {
    let condition = Condition::compile("identity.subject == 'x' || tool.name == 'y'").unwrap();
    let inputs = Inputs { identity: None, arguments: None, tool: None, now: NOW.parse().unwrap() };
    assert_eq!(condition.judge(&condition.conjuncts()[0], &inputs), Truth::Unknown);
    let absorbed = Condition::compile("identity.subject == 'x' || now == now").unwrap();
    assert_eq!(absorbed.judge(&absorbed.conjuncts()[0], &inputs), Truth::True);
}

#[test]
fn too_much_text_is_an_error_but_only_where_it_is_read() {
    let arguments = json!({"content": "x".repeat(300 << 10), "path": "a"});
    assert_eq!(judged("arguments.path == 'a'", &arguments), Truth::True);
    assert_eq!(judged("arguments.content.contains('x')", &arguments), Truth::Unknown);
}

#[test]
fn loops_over_maps_run_in_the_order_of_keys() {
    let arguments = json!({"m": {"b": 1, "a": 2, "c": 3}});
    for _ in 0..20 {
        assert_eq!(judged("arguments.m.map(k, k) == ['a', 'b', 'c']", &arguments), Truth::True);
    }
}

#[test]
fn refused_sources_say_why() {
    for (source, part) in [
        ("user.name == 'x'", "\"user\""),
        ("true &&", "syntax error"),
        ("", "syntax error"),
        ("!!arguments.x", "\"!\" before"),
        ("! // c\n !arguments.x", "\"!\" before"),
        ("-arguments.x < 1", "0 - x"),
        ("--5 < 1", "0 - x"),
        ("[1].all(x, [1].all(y, true))", "macro inside of a macro"),
        ("[1].all(arguments, true)", "loop variable"),
        ("launch('x')", "launch()"),
        ("size()", "size()"),
        ("now.getHours('Europe/Berlin') == 1", "getHours() with 1"),
        ("'x'.matches(arguments.p)", "no literal"),
        ("'x'.matches('(')", "bad pattern"),
        ("'x'.matches('(\\\\w{1000}){1000}')", "bad pattern"),
        ("duration(arguments.d) < duration('1h')", "duration()"),
        ("duration('9999999h') < duration('1h')", "duration()"),
        ("duration('1h30') < duration('1h')", "duration()"),
        ("{'a': 1}.a == 1", "a map"),
        ("Thing{a: 1} == 1", "a map"),
        ("b'x' == b'x'", "bytes"),
        ("arguments.`b-c` == 1", "quoted field"),
        ("optional.of(1).hasValue()", "hasValue"),
        ("arguments.?x == 1", "syntax"),
    ] {
        match Condition::compile(source) {
            Ok(_) => panic!("{source} compiled"),
            Err(message) => assert!(message.contains(part), "{source}: {message}"),
        }
    }
    assert!(Condition::compile(&format!("'{}' == ''", "x".repeat(1 << 10))).unwrap_err().contains("1024"));
    assert!(Condition::compile(&format!("{}1{}", "(".repeat(65), ")".repeat(65))).unwrap_err().contains("brackets"));
    assert!(Condition::compile(&format!("true{}", "?true:true".repeat(40))).unwrap_err().contains("question"));
    assert!(Condition::compile(&format!("arguments{} == 1", ".a".repeat(300))).unwrap_err().contains("deep"));
}

#[test]
fn conjuncts_that_read_arguments_are_dynamic() {
    let condition =
        Condition::compile("identity.claims.mfa && (arguments.n > 1 && tool.name == 'x') && now > now").unwrap();
    let dynamic: Vec<bool> = condition.conjuncts().iter().map(Conjunct::is_dynamic).collect();
    assert_eq!(dynamic, [false, true, false, false]);
    let whole = Condition::compile("identity.claims.mfa || arguments.n > 1").unwrap();
    assert!(whole.conjuncts()[0].is_dynamic() && whole.conjuncts().len() == 1);
    let shadowed = Condition::compile("identity.groups.exists(g, g == 'x')").unwrap();
    assert!(!shadowed.conjuncts()[0].is_dynamic());
}

/// Sources that would overflow the stack of the parser or of the evaluator if they got there.
fn hostile_sources() -> Vec<String> {
    let mut sources = Vec::new();
    for n in [8, 16, 23, 24, 25, 32, 60, 64, 65, 128, 250, 500] {
        sources.extend([
            format!("{}1{} == 1", "(".repeat(n), ")".repeat(n)),
            format!("{}1{} == 1", "[".repeat(n), "]".repeat(n)),
            format!("{}1{} == 1", "{1:".repeat(n), "}".repeat(n)),
            "(".repeat(n),
            "[".repeat(n),
            format!("{}true", "!".repeat(n)),
            format!("{}1 == 1", "-".repeat(n)),
            format!("arguments{} == 1", ".a".repeat(n)),
            format!("arguments{} == 1", "['a']".repeat(n.min(180))),
            format!("arguments{} == 1", "[0]".repeat(n.min(300))),
            format!("{}0{}", "arguments[".repeat(n.min(90)), "]".repeat(n.min(90))),
            format!("1{} == 1", "+1".repeat(n)),
            format!("1{}", "<1".repeat(n)),
            format!("true{}", "&&true".repeat(n.min(160))),
            format!("true{}", "||true".repeat(n.min(160))),
            format!("true{}", "?true:true".repeat(n.min(100))),
            format!("{}true{}", "size(".repeat(n.min(150)), ")".repeat(n.min(150))),
            format!("{}true{}", "!(".repeat(n), ")".repeat(n)),
            format!("arguments{}", ".f()".repeat(n.min(250))),
            format!("{}x{}", "[1].all(x, ".repeat(n.min(80)), ")".repeat(n.min(80))),
        ]);
    }
    sources
}

/// A stack overflow ends the process, so the sources run in a child: this test, run again.
#[test]
fn no_nesting_overflows_the_stack() {
    const CHILD: &str = "TOOLGATE_TEST_NESTING_CHILD";
    let name = "policy::condition::tests::no_nesting_overflows_the_stack";
    if std::env::var_os(CHILD).is_some() {
        // A test's thread has 2 MiB, as a worker of the gateway has.
        let compiled = hostile_sources().iter().filter(|source| Condition::compile(source).is_ok()).count();
        assert!(compiled > 20, "shallow ones must compile, {compiled} did");
        for source in hostile_sources() {
            if Condition::compile(&source).is_ok() {
                judged(&source, &json!({"a": {"a": {"a": 1}}}));
            }
        }
        return;
    }

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();

    let output = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn compiling_and_judging_are_total(
        source in "(identity|arguments|tool|now|x|1|'a'|true|==|!=|<|&&|\\|\\||\\(|\\)|\\.|\\[|\\]| in |!|-|\\+|,|all|has|size|\\?|:|\\.a){0,14}",
    ) {
        if Condition::compile(&source).is_ok() {
            judged(&source, &json!({"a": 1}));
        }
    }
}
