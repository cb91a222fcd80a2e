//! Each bad input: which file and line it is told at, how bad it is, what the message says, and what stays in force.

use std::fs;

use proptest::prelude::*;

use super::*;

const SERVER: &str = "\
apiVersion: toolgate.dev/v1alpha1
kind: McpServer
metadata: {name: files}
spec:
  source:
    container: {image: x, transport: Stdio, command: [npx]}
";
const TOOL: &str = "\
apiVersion: toolgate.dev/v1alpha1
kind: McpTool
metadata: {name: files-read}
spec:
  serverRef: {name: files}
  toolName: read_file
  description: Reads a file.
";
const ROLE: &str = "\
apiVersion: toolgate.dev/v1alpha1
kind: McpRole
metadata: {name: dev}
spec:
  subjects: [{kind: Group, name: eng}]
  rules:
    - effect: Allow
      servers: [files]
      tools: [read_file]
";
const GATEWAY: &str = "\
apiVersion: toolgate.dev/v1alpha1
kind: McpGateway
metadata: {name: default}
spec:
  issuers:
    - {name: corp, oidc: {url: https://corp.example}}
";

/// A folder with the four sound manifests, and a loader of it.
struct Folder {
    folder: tempfile::TempDir,
    loader: Loader,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let loader = Loader::new(folder.path());
        let mut this = Self { folder, loader };
        for (name, text) in [("server", SERVER), ("tool", TOOL), ("role", ROLE), ("gateway", GATEWAY)] {
            this.write(&format!("{name}.yaml"), text);
        }
        this
    }

    fn write(&mut self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&mut self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// The problems as lines, without the folder; and what is in force.
    fn load(&mut self) -> (Vec<String>, Loaded) {
        let loaded = self.loader.load().unwrap();
        let root = format!("{}/", self.folder.path().display());
        (loaded.problems.iter().map(|problem| problem.to_string().replace(&root, "")).collect(), loaded)
    }
}

fn names<T>(objects: &BTreeMap<Key, T>) -> Vec<&str> {
    objects.keys().map(|(_, name)| name.as_str()).collect()
}

/// Loads the sound folder with one file replaced or added, and expects one problem, which starts and ends so.
fn expect(name: &str, text: impl AsRef<[u8]>, start: &str, end: &str) -> Loaded {
    let mut folder = Folder::new();
    folder.write(name, text);
    let (problems, loaded) = folder.load();
    let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
    assert!(problem.starts_with(start) && problem.ends_with(end), "{problem}\nshould be\n{start} … {end}");
    loaded
}

#[test]
fn a_sound_folder_has_no_problems() {
    let (problems, loaded) = Folder::new().load();
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((loaded.objects, names(&loaded.servers)), (4, vec!["files"]));
    assert_eq!((names(&loaded.world.roles), names(&loaded.world.tools)), (vec!["dev"], vec!["files-read"]));
}

#[test]
fn an_unknown_field_is_an_error_with_the_one_that_was_meant() {
    let text = ROLE.replace("tools:", "tool:");
    let loaded = expect(
        "role.yaml",
        text.replace("      tool:", "      prompts: [p]\n      tool:"),
        "role.yaml:10: error: McpRole default/dev: spec.rules[0].tool: unknown field `tool`",
        "did you mean `tools`?",
    );
    assert_eq!(names(&loaded.world.roles), Vec::<&str>::new());
    assert_eq!(names(&loaded.world.tools), ["files-read"], "the others are not held up");
    let text = TOOL.replace("metadata: {name: files-read}", "metadata:\n  name: files-read\n  lables: {a: b}");
    let end = "unknown field `lables`, did you mean `labels`?";
    let mut folder = Folder::new();
    folder.write("tool.yaml", text);
    let (problems, _) = folder.load();
    assert!(problems.iter().any(|problem| problem.starts_with("tool.yaml:5: error:") && problem.ends_with(end)));
}

#[test]
fn a_schema_violation_names_the_field_and_what_to_write() {
    let cases = [
        (
            ROLE.replace("Allow", "Alow"),
            "role.yaml:7: error: McpRole default/dev: spec.rules[0].effect: must be one of Allow, Deny, not `Alow`",
            "did you mean `Allow`?",
        ),
        (
            ROLE.replace("[read_file]", "read_file"),
            "role.yaml:9: error: McpRole default/dev: spec.rules[0].tools: must be a list",
            "not a string (quotes decide)",
        ),
        (
            ROLE.replace("[read_file]", "[read_file, read_file]"),
            "role.yaml:9: error: McpRole default/dev: spec.rules[0].tools[1]: ",
            "\"read_file\" stands here twice: remove one",
        ),
        (
            ROLE.replace("    - effect: Allow\n      servers", "    - servers"),
            "role.yaml:7: error: McpRole default/dev: spec.rules[0]: ",
            "`effect` is missing: add it",
        ),
        (
            ROLE.replace("[read_file]", ""),
            "role.yaml:9: error: McpRole default/dev: spec.rules[0].tools: ",
            "must be a list, not empty",
        ),
        (
            ROLE.replace("name: dev", "name: Dev"),
            "role.yaml:3: error: McpRole default/Dev: metadata.name: \"Dev\" must match",
            "$",
        ),
        (
            ROLE.replace("metadata: {name: dev}", "metadata: {}"),
            "role.yaml:3: error: metadata: ",
            "`name` is missing: add it",
        ),
        (
            ROLE.replace("v1alpha1", "v1"),
            "role.yaml:1: error: McpRole default/dev: apiVersion: apiVersion `toolgate.dev/v1` is not known here: ",
            "write `toolgate.dev/v1alpha1`",
        ),
        (
            ROLE.replace("apiVersion: toolgate.dev/v1alpha1\n", ""),
            "role.yaml:1: error: McpRole default/dev: apiVersion is missing: ",
            "add `apiVersion: toolgate.dev/v1alpha1`",
        ),
        (
            ROLE.replace("kind: McpRole", "kind: McpRoll"),
            "role.yaml:2: error: kind: kind `McpRoll` is unknown: ",
            "did you mean `McpRole`?",
        ),
        (
            ROLE.replace("toolgate.dev/", "toolgate.de/"),
            "role.yaml:1: warning: apiVersion `toolgate.de/v1alpha1` is not Toolgate's, so this McpRole is not read",
            "`toolgate.dev/v1alpha1`",
        ),
    ];
    for (text, start, end) in cases {
        expect("role.yaml", text, start, end);
    }
}

#[test]
fn a_rule_of_the_schema_is_told_at_its_place() {
    expect(
        "role.yaml",
        format!("{ROLE}      timeWindow:\n        start: \"09:00\"\n        end: \"09:00\"\n        timeZone: UTC\n"),
        "role.yaml:10: error: McpRole default/dev: spec.rules[0].timeWindow: start and end must differ",
        "the whole day",
    );
}

#[test]
fn a_bad_condition_is_told_at_its_line() {
    let loaded = expect(
        "role.yaml",
        format!("{ROLE}      when: \"identity.(\"\n"),
        "role.yaml:10: error: McpRole default/dev: spec.rules[0].when: ",
        "until it is corrected, the rule allows nothing",
    );
    assert!(loaded.world.roles.values().all(|role| role.rules.is_empty()));
}

#[test]
fn a_dangling_reference_is_told_at_its_line() {
    expect(
        "role.yaml",
        ROLE.replace("spec:\n", "spec:\n  inherits:\n    - name: viewer\n"),
        "role.yaml:6: error: McpRole default/dev: spec.inherits[0].name: McpRole `viewer` does not exist",
        "create it, or remove this line",
    );
}

#[test]
fn a_circle_of_roles_is_told_at_each_of_them() {
    let mut folder = Folder::new();
    let circle = |name: &str, other: &str| {
        ROLE.replace("name: dev", &format!("name: {name}"))
            .replace("spec:\n", &format!("spec:\n  inherits: [{{name: {other}}}]\n"))
    };
    folder.write("role.yaml", format!("{}---\n{}", circle("a", "b"), circle("b", "a")));
    let (problems, loaded) = folder.load();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    for (problem, start) in
        problems.iter().zip(["role.yaml:5: error: McpRole default/a: ", "role.yaml:16: error: McpRole default/b: "])
    {
        assert!(
            problem.starts_with(start) && problem.contains("McpRoles `a`, `b` inherit each other in a circle"),
            "{problem}"
        );
    }
    assert!(loaded.world.roles.values().all(|role| role.inherits.is_empty() && role.rules.is_empty()));
}

#[test]
fn of_two_tools_with_one_name_the_first_keeps_working() {
    let loaded = expect(
        "more.yaml",
        TOOL.replace("files-read", "z"),
        "more.yaml:6: error: McpTool default/z: spec.toolName: McpTools `files-read` and `z` both claim the tool `read_file`",
        "change or remove one",
    );
    assert_eq!(names(&loaded.world.tools), ["files-read"]);
}

#[test]
fn of_two_objects_with_one_name_the_first_keeps_working() {
    let mut folder = Folder::new();
    folder.write("z.yaml", format!("---\n{}", SERVER.replace("[npx]", "[other]")));
    let (problems, loaded) = folder.load();
    let path = folder.folder.path().join("server.yaml");
    let message = format!("first at {}:3, which keeps working: remove one of them", path.display());
    assert_eq!(loaded.problems.len(), 1);
    assert!(problems[0].starts_with("z.yaml:4: error: McpServer default/files is declared twice"), "{problems:?}");
    assert!(loaded.problems[0].message.ends_with(&message), "{problems:?}");
    assert_eq!(loaded.servers.values().next().unwrap().spec.source.container.as_ref().unwrap().command, ["npx"]);
}

#[test]
fn a_subject_without_issuer_where_there_are_two_is_told() {
    expect(
        "gateway.yaml",
        format!("{GATEWAY}    - {{name: partner, oidc: {{url: https://partner.example}}}}\n"),
        "role.yaml:5: error: McpRole default/dev: spec.subjects[0]: the issuer is missing",
        "set issuer to one of `corp`, `partner`",
    );
}

#[test]
fn a_glob_that_matches_nothing_is_a_warning() {
    expect(
        "role.yaml",
        ROLE.replace("[read_file]", "[read_file, \"write_*\"]"),
        "role.yaml:9: warning: McpRole default/dev: spec.rules[0].tools[1]: `write_*` matches no declared tool",
        "declare the tool with an McpTool",
    );
}

#[test]
fn duplicate_keys_and_syntax_errors_are_told_at_their_line() {
    let text = ROLE.replace("    - effect: Allow\n", "    - effect: Allow\n      effect: Deny\n");
    expect("role.yaml", text, "role.yaml:8: error: not valid YAML, none of it is read: ", "");
    expect("role.yaml", ROLE.replace("[read_file]", "[read_file"), "role.yaml:", "");
}

#[test]
fn text_that_is_not_utf8_is_told_at_its_line() {
    let mut bytes = ROLE.replace("name: eng", "name: ?").into_bytes();
    let position = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[position] = 0xE9;
    expect("role.yaml", bytes, "role.yaml:5: error: is not UTF-8", "save it as UTF-8");
    let wide: Vec<u8> = [0xFF, 0xFE].into_iter().chain(ROLE.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    expect("role.yaml", wide, "role.yaml:1: error: is not UTF-8", "save it as UTF-8");
}

#[test]
fn a_file_that_is_too_large_is_told() {
    let text = format!("{ROLE}# {}\n", "x".repeat(4 * 1024 * 1024));
    expect("role.yaml", text, "role.yaml: error: is larger than 4 MiB", "split it");
}

#[test]
fn other_peoples_files_are_no_problem() {
    let mut folder = Folder::new();
    folder.write("kustomization.yaml", "resources: [McpRole");
    folder.write("toolgate.local.yaml", "listen: [McpRole");
    folder.write(".hidden/role.yaml", "kind: [McpRole");
    folder.write("package.json", "{ // a comment\n");
    folder.write("notes.txt", "McpRole [");
    folder.write("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n# for McpServer\n---\n- a list\n---\n");
    let (problems, loaded) = folder.load();
    assert_eq!((problems, loaded.objects), (Vec::new(), 4));
}

#[test]
fn what_a_server_writes_below_the_folder_is_never_policy() {
    let mut folder = Folder::new();
    let (_, before) = folder.load();
    folder.write("data/role.yaml", ROLE.replace("name: dev", "name: granted-by-an-agent"));
    let (problems, after) = folder.load();
    assert_eq!((problems, after.world), (Vec::new(), before.world));
}

#[test]
fn manifests_in_lists_and_json_are_read() {
    let mut folder = Folder::new();
    let list = |items: &str| format!("apiVersion: v1\nkind: List\nitems:\n{items}");
    let item = ROLE.replace("name: dev", "name: listed").replace('\n', "\n  ");
    folder.write("list.yml", list(&format!("- {}\n", item.trim_end())));
    folder.write(
        "tool.json",
        "{\"apiVersion\": \"toolgate.dev/v1alpha1\", \"kind\": \"McpTool\",\n \"metadata\": {\"name\": \"json\"},\n \
         \"spec\": {\"serverRef\": {\"name\": \"nowhere\"},\n \"toolName\": \"t\", \"description\": \"d\"}}",
    );
    let (problems, loaded) = folder.load();
    assert_eq!(names(&loaded.world.roles), ["dev", "listed"]);
    let start = "tool.json:3: error: McpTool default/json: spec.serverRef.name: McpServer `nowhere` does not exist";
    assert!(problems.len() == 1 && problems[0].starts_with(start), "{problems:?}");
}

#[test]
fn a_folder_without_manifests_a_file_and_nothing_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let loaded = Loader::new(folder.path()).load().unwrap();
    assert!(loaded.problems[0].to_string().contains(": error: no manifests"), "{:?}", loaded.problems);
    let file = folder.path().join("server.yaml");
    fs::write(&file, SERVER).unwrap();
    let loaded = Loader::new(&file).load().unwrap();
    assert_eq!((loaded.problems, names(&loaded.servers)), (Vec::new(), vec!["files"]));
    let error = Loader::new(&folder.path().join("gone")).load().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_half_written_file_keeps_its_objects_until_it_is_whole_or_gone() {
    let mut folder = Folder::new();
    let (_, first) = folder.load();
    for half in
        ["", "apiVersion: tool", &ROLE[..ROLE.len() / 2], &ROLE.replace("tools: [read_file]", "tools: [read_file")]
    {
        folder.write("role.yaml", half);
        let (problems, loaded) = folder.load();
        assert_eq!(loaded.world, first.world, "{half:?}");
        assert!(
            problems.iter().any(|problem| problem.starts_with("role.yaml")
                && problem.ends_with("(the last good version stays in force)")),
            "{half:?}: {problems:?}"
        );
    }
    folder.write("role.yaml", ROLE.replace("eng", "ops"));
    let (problems, loaded) = folder.load();
    assert!(problems.is_empty() && loaded.world != first.world, "{problems:?}");
    folder.remove("role.yaml");
    assert_eq!(names(&folder.load().1.world.roles), Vec::<&str>::new());
    folder.write("role.yaml", "kind: McpRole: [");
    let (problems, loaded) = folder.load();
    assert_eq!(names(&loaded.world.roles), Vec::<&str>::new(), "what is gone does not come back");
    assert!(!problems[0].contains("stays in force"), "{problems:?}");
}

#[test]
fn an_object_that_breaks_keeps_its_last_good_version_and_holds_up_no_other() {
    let mut folder = Folder::new();
    let (_, first) = folder.load();
    for broken in [ROLE.replace("tools:", "tool:"), ROLE.replace("tools:", "when: \"(\"\n      tools:")] {
        folder.write("role.yaml", broken);
        folder.write("tool.yaml", TOOL.replace("Reads", "Gets"));
        let (problems, loaded) = folder.load();
        assert_eq!(loaded.world.roles, first.world.roles);
        assert_ne!(loaded.world.tools, first.world.tools, "the other edit is in force");
        let problem = &problems[0];
        assert!(
            problem.starts_with("role.yaml:9: error:") && problem.ends_with("(the last good version stays in force)"),
            "{problem}"
        );
        folder.write("tool.yaml", TOOL);
        folder.load();
    }
}

#[test]
fn an_edit_that_closes_a_circle_is_put_off_and_the_rest_stays_as_it_was() {
    let mut folder = Folder::new();
    let inherits = |name: &str, other: &str| {
        ROLE.replace("name: dev", &format!("name: {name}"))
            .replace("spec:\n", &format!("spec:\n  inherits: [{{name: {other}}}]\n"))
    };
    folder.write("lead.yaml", inherits("lead", "dev"));
    let (problems, first) = folder.load();
    assert!(problems.is_empty(), "{problems:?}");
    folder.write("role.yaml", inherits("dev", "lead"));
    let (problems, loaded) = folder.load();
    assert_eq!(loaded.world, first.world);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn an_old_version_that_helps_no_more_gives_way_to_the_new_one() {
    let mut folder = Folder::new();
    folder.write("viewer.yaml", ROLE.replace("name: dev", "name: viewer"));
    folder.write("role.yaml", ROLE.replace("spec:\n", "spec:\n  inherits: [{name: viewer}]\n"));
    folder.load();
    // The old version of `dev` dangles now, and the new one has a broken rule: the new one is in force, degraded.
    folder.remove("viewer.yaml");
    folder.write(
        "role.yaml",
        format!("{ROLE}      when: \"(\"\n    - {{effect: Allow, servers: [files], prompts: [p]}}\n"),
    );
    let (problems, loaded) = folder.load();
    assert!(problems.len() == 1 && !problems[0].contains("stays in force"), "{problems:?}");
    let rules = &loaded.world.roles[&("default".to_owned(), "dev".to_owned())].rules;
    assert_eq!(rules.iter().map(|rule| rule.rule.index).collect::<Vec<_>>(), [1]);
}

#[test]
fn validate_prints_problems_and_counts_them() {
    let mut folder = Folder::new();
    let print = |folder: &Folder| {
        let mut out = Vec::new();
        let sound = crate::local::validate::validate(folder.folder.path(), &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    };
    assert_eq!(print(&folder), (true, "4 objects, 0 errors, 0 warnings\n".to_owned()));
    folder.write("tool.yaml", TOOL.replace("  description: Reads a file.\n", ""));
    let (sound, text) = print(&folder);
    assert!(
        sound && text.contains("tool.yaml:4: warning: ") && text.ends_with("4 objects, 0 errors, 1 warning\n"),
        "{text}"
    );
    folder.write("role.yaml", ROLE.replace("Allow", "Alow"));
    let (sound, text) = print(&folder);
    assert!(!sound && text.ends_with("4 objects, 1 error, 1 warning\n"), "{text}");
}

#[test]
fn messages_are_one_line_each() {
    let text = ROLE.replace("[read_file]", "[\"a\\nb\", \"a\\nb\"]").replace("effect: Allow", "\"e\\nf\": Allow");
    for problem in parse_text("x.yaml", &text) {
        assert!(!problem.message.contains('\n'), "{problem:?}");
    }
}

proptest! {
    #[test]
    fn any_text_gives_problems_with_lines_in_it(text in "(McpRole|toolgate.dev|[a-z:{}\\[\\]&*!|>%@`\"', \n\t-]){0,40}") {
        for problem in parse_text("x.yaml", &text) {
            prop_assert!(problem.line <= text.lines().count() + 1);
        }
    }

    #[test]
    fn any_damage_to_a_manifest_is_survived(at in 0usize..400, with in "[ -~\n]{0,4}", cut in 0usize..12) {
        let mut text = [SERVER, TOOL, ROLE, GATEWAY].join("---\n");
        let start = at.min(text.len());
        text.replace_range(start..(start + cut).min(text.len()), &with);
        for problem in parse_text("x.yaml", &text) {
            prop_assert!(problem.line <= text.lines().count() + 1 && !problem.message.contains('\n'));
        }
    }
}
