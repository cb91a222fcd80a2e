use std::path::Path;

use super::*;

/// A Tuesday morning in Berlin.
const WORKING_HOURS: &str = "2026-11-24T10:00:00Z";
/// A Saturday.
const WEEKEND: &str = "2026-11-28T10:00:00Z";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn ask(directory: &str, who: Option<&str>) -> Question {
    Question {
        directory: example(directory),
        who: who.map(str::to_owned),
        at: WORKING_HOURS.parse().unwrap(),
        ..Question::default()
    }
}

fn call(who: &str, at: &str, tool: &str, arguments: &str) -> Call {
    let question = Question {
        tool: Some(tool.to_owned()),
        arguments: Some(arguments.to_owned()),
        at: at.parse().unwrap(),
        ..ask("role-ladder", Some(who))
    };
    match explain(&question).unwrap().answer {
        Answer::Call(call) => call,
        other => panic!("{other:?}"),
    }
}

fn failure(question: &Question) -> String {
    explain(question).unwrap_err().to_string()
}

/// Set `UPDATE_EXPECTED=1` to write the table anew after a wanted change of the example.
#[test]
fn the_permission_table_of_the_role_ladder_is_what_explain_says() {
    let explained = explain(&ask("role-ladder", None)).unwrap();
    assert_eq!(explained.problems, []);

    let text = explained.answer.to_text();

    let file = example("role-ladder").join("permissions.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, format!("{}\n", text.trim_end())).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        text.trim_end(),
        expected.trim_end(),
        "run `toolgate explain --at {WORKING_HOURS} examples/role-ladder`"
    );
}

#[test]
fn each_step_of_the_ladder_adds_an_environment_and_keeps_the_ones_before() {
    let deploy = |who: &str, environment: &str| {
        let arguments = format!(r#"{{"service": "api", "environment": "{environment}"}}"#);
        call(who, WORKING_HOURS, "deploy_service", &arguments).allowed
    };
    let reach = |who: &str| ["development", "staging", "production"].map(|environment| deploy(who, environment));

    assert_eq!(reach("vera"), [false, false, false]);
    assert_eq!(reach("dan"), [true, true, false]);
    assert_eq!(reach("sena"), [true, true, true]);
    assert_eq!(reach("amir"), [true, true, true]);
}

#[test]
fn nobody_destroys_in_production_and_nobody_anywhere_without_a_second_factor() {
    let drop = |who: &str, environment: &str| {
        let arguments = format!(r#"{{"table": "users", "environment": "{environment}"}}"#);
        call(who, WORKING_HOURS, "drop_table", &arguments).allowed
    };
    assert!(drop("amir", "staging"));
    assert!(!drop("amir", "production"));
    for who in ["vera", "dan", "sena", "amir-without-mfa"] {
        assert!(!drop(who, "staging"), "{who}");
    }
}

#[test]
fn a_refusal_names_every_rule_that_was_looked_at_and_what_it_lacked() {
    let call = call("sena", WEEKEND, "deploy_service", r#"{"service": "api", "environment": "production"}"#);

    assert!(!call.allowed);
    let said: Vec<_> = call.rules.iter().map(|rule| (rule.rule.as_str(), rule.matched)).collect();
    assert_eq!(said, [("developer rules[0]", false), ("senior-developer rules[0]", false)]);
    assert!(call.rules[0].because.contains("/environment is \"production\""), "{:?}", call.rules);
    assert!(call.rules[1].because.contains("outside Mon-Thu 09:00-16:00 Europe/Berlin"), "{:?}", call.rules);
}

#[test]
fn roles_are_given_with_every_reason() {
    let Answer::Caller(caller) = explain(&ask("role-ladder", Some("sena"))).unwrap().answer else { panic!("a caller") };

    let roles: Vec<_> = caller.roles.iter().map(|role| (role.role.as_str(), role.because.as_str())).collect();

    let expected = [
        ("developer", "inherited by senior-developer"),
        ("senior-developer", "group senior-developers of corp"),
        ("viewer", "group staff of corp"),
        ("viewer", "inherited by developer"),
    ];
    assert_eq!(roles, expected);
}

#[test]
fn a_subject_that_the_overlay_does_not_know_is_made_of_flags() {
    let question = Question {
        groups: vec!["staff".to_owned(), "admins".to_owned()],
        claims: [("mfa".to_owned(), true.into())].into_iter().collect(),
        tool: Some("restore_backup".to_owned()),
        arguments: Some(r#"{"environment": "staging"}"#.to_owned()),
        ..ask("role-ladder", Some("zoe@example.com"))
    };

    let explained = explain(&question).unwrap();

    assert!(explained.answer.allowed());
    let json: Value = serde_json::from_str(&explained.answer.to_json().unwrap()).unwrap();
    assert_eq!(json["identity"]["subject"], "zoe@example.com");
    assert_eq!(json["rule"], "admin rules[1]");
    assert!(json["accessHash"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn an_exposed_name_finds_its_tool_and_text_shows_both() {
    let Answer::Caller(caller) = explain(&ask("quickstart", Some("grace"))).unwrap().answer else { panic!("a caller") };
    assert!(text::caller(&caller).contains("nightly-job (is trigger-long-running-operation)"));

    let night = Question {
        tool: Some("nightly-job".to_owned()),
        at: "2026-11-24T23:00:00Z".parse().unwrap(),
        ..ask("quickstart", Some("grace"))
    };
    let day = Question { at: WORKING_HOURS.parse().unwrap(), ..night.clone() };
    assert!(explain(&night).unwrap().answer.allowed());
    assert!(!explain(&day).unwrap().answer.allowed());
}

#[test]
fn questions_that_make_no_sense_say_what_to_do() {
    let with = |change: &dyn Fn(&mut Question)| {
        let mut question = ask("role-ladder", Some("dan"));
        change(&mut question);
        failure(&question)
    };
    let cases: [(&str, String); 7] = [
        ("no McpServer declares the tool `fly`; say which one with --server", with(&|q| q.tool = Some("fly".into()))),
        ("there is no McpServer `web`; there are `database`, `deploy`", with(&|q| q.server = Some("web".into()))),
        ("no gateway has an issuer `partner`", with(&|q| q.issuer = Some("partner".into()))),
        (
            "--arguments must be a JSON object",
            with(&|q| (q.tool, q.arguments) = (Some("run_query".into()), Some("[]".into()))),
        ),
        (
            "--arguments is not acceptable JSON",
            with(&|q| (q.tool, q.arguments) = (Some("run_query".into()), Some(r#"{"a":1,"a":2}"#.into()))),
        ),
        ("failed to read", with(&|q| q.directory = "/does/not/exist".into())),
        ("say who with --as", {
            let folder = tempfile::tempdir().unwrap();
            let manifest = example("quickstart").join("gateway.yaml");
            std::fs::copy(manifest, folder.path().join("gateway.yaml")).unwrap();
            failure(&Question { directory: folder.path().to_owned(), ..Question::default() })
        }),
    ];
    for (expected, found) in cases {
        assert!(found.contains(expected), "{found:?} should say {expected:?}");
    }
}

#[test]
fn a_tool_that_nobody_declares_is_refused_at_the_server_that_was_named() {
    let question = Question {
        server: Some("deploy".to_owned()),
        tool: Some("fly".to_owned()),
        ..ask("role-ladder", Some("amir"))
    };
    let Answer::Call(call) = explain(&question).unwrap().answer else { panic!("a call") };
    assert!(!call.allowed);
    assert!(call.reason.contains("no McpTool declares it"), "{}", call.reason);
}
