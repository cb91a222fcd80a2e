use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::policy::snapshot::{Keys, Registration, ServerRequests};
use crate::policy::world::{self, Gateway};

const BASE: &str = "http://127.0.0.1:8811";

/// Manifests of a folder, without files.
#[derive(Clone, Default)]
struct Folder {
    world: World,
    servers: BTreeMap<Key, McpServer>,
    overlay: Overlay,
}

impl Folder {
    fn server(mut self, namespace: &str, name: &str, source: &serde_json::Value) -> Self {
        let key = (namespace.to_owned(), name.to_owned());
        let server = json!({"metadata": {"name": name, "namespace": namespace}, "spec": {"source": source}});
        let input = crate::policy::snapshot::Input {
            kind: "McpServer".to_owned(),
            name: name.to_owned(),
            uid: String::new(),
            generation: 0,
        };
        let declared = world::Server {
            gateway: "default".to_owned(),
            registration: Registration::Declared,
            server_requests: ServerRequests::default(),
            deny_after_seconds: None,
            on_loss: crate::policy::snapshot::OnLoss::default(),
            labels: BTreeMap::new(),
            input,
        };
        self.world.servers.insert(key.clone(), declared);
        self.servers.insert(key, serde_json::from_value(server).expect("an McpServer"));
        self
    }

    fn stdio(self, name: &str) -> Self {
        self.server("default", name, &container())
    }

    fn issuers(mut self, names: &[&str]) -> Self {
        let issuer = |name: &&str| Issuer {
            name: (*name).to_owned(),
            url: format!("https://{name}.example.com"),
            subject_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            service_accounts: false,
            keys: Keys::Discovery,
        };
        let input = crate::policy::snapshot::Input {
            kind: "McpGateway".to_owned(),
            name: "default".to_owned(),
            uid: String::new(),
            generation: 0,
        };
        let gateway = Gateway {
            url: Some("https://mcp.example.com/mcp".to_owned()),
            issuers: names.iter().map(issuer).collect(),
            anonymous: None,
            input,
        };
        self.world.gateways.insert(("default".to_owned(), "default".to_owned()), gateway);
        self
    }

    fn overlay(mut self, text: &str) -> Self {
        self.overlay = Overlay::parse(text).expect("a valid overlay");
        self
    }

    fn plan(&self, previous: &Desired) -> (Desired, Vec<Problem>) {
        let planned = self.planned(previous);
        (planned.desired, planned.problems)
    }

    fn planned(&self, previous: &Desired) -> Planned {
        let directory = PathBuf::from("/srv/manifests");
        let inputs = Inputs {
            world: &self.world,
            servers: &self.servers,
            overlay: &self.overlay,
            directory: &directory,
            base: BASE,
        };
        let draft = draft(inputs, previous);
        let mut mint = Mint::new(Duration::from_mins(1));
        mint.renew(&draft.identities).expect("keys");
        draft.finish(&mint, inputs, previous)
    }
}

fn container() -> serde_json::Value {
    json!({"container": {
        "image": "example/files:1", "transport": "Stdio", "command": ["/files"],
        "env": [{"name": "LEVEL", "value": "info"}, {"name": "MODE", "value": "strict"}], "sessions": "Shared",
    }})
}

fn messages(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| format!("{text}{}: {}\n", problem.line, problem.message))
}

#[test]
fn the_overlay_replaces_the_command_and_keeps_the_environment() {
    let overlay = "servers: {files: {command: [npx, -y, thing, ./data], env: {LEVEL: debug}}}\n";
    let (desired, problems) = Folder::default().stdio("files").overlay(overlay).plan(&Desired::default());

    assert_eq!(messages(&problems), "");
    let run = stdio::Run::Command(stdio::Command {
        command: ["npx", "-y", "thing", "./data"].map(String::from).into(),
        env: [("LEVEL".to_owned(), "debug".to_owned()), ("MODE".to_owned(), "strict".to_owned())].into(),
        directory: "/srv/manifests".into(),
    });
    let (name, children) = ("files".to_owned(), stdio::Children::default());
    let expected = stdio::Config { name, run, sessions: stdio::Sessions::Shared, children };
    assert_eq!(desired.servers["files"].config, Config::Stdio(expected));
    assert_eq!(desired.servers["files"].policy.snapshot().urls, ["http://127.0.0.1:8811/servers/files/mcp"]);
}

#[test]
fn a_relative_program_counts_from_the_working_directory() {
    let overlay = "servers: {files: {command: [./serve.sh, ./data], directory: tools}}\n";
    let (desired, _) = Folder::default().stdio("files").overlay(overlay).plan(&Desired::default());

    let Config::Stdio(config) = &desired.servers["files"].config else { panic!("a child process") };
    let stdio::Run::Command(program) = &config.run else { panic!("a program") };
    assert_eq!(program.directory, PathBuf::from("/srv/manifests/tools"));
    assert_eq!(program.command, ["/srv/manifests/tools/./serve.sh", "./data"]);
}

#[test]
fn an_image_or_service_needs_a_command_or_a_url_and_a_remote_server_neither() {
    let http = json!({"container": {"image": "example/web:1", "transport": "StreamableHttp", "port": 80}});
    let remote = json!({"remote": {"url": "https://far.example.com/mcp"}});
    let service = json!({"service": {"name": "github-mcp", "port": 8000}});
    let folder = Folder::default().stdio("files").server("default", "web", &http).server("default", "far", &remote);
    let folder = folder.server("default", "near", &service).server("default", "there", &service);
    let folder = folder.overlay("servers: {there: {url: \"http://127.0.0.1:9/mcp\"}}");

    let (desired, problems) = folder.plan(&Desired::default());

    assert_eq!(desired.servers.keys().collect::<Vec<_>>(), ["far", "there"]);
    let far = http::Config { url: "https://far.example.com/mcp".to_owned(), ca: None, reach: Reach::MACHINE };
    assert_eq!(desired.servers["far"].config, Config::Http(far));
    let text = messages(&problems);
    assert!(text.contains("servers.files is missing: an image is not run on a laptop: add the `command`"), "{text}");
    assert!(text.contains("servers.near is missing: a Service of the cluster is not reached from a laptop"), "{text}");
    assert!(text.contains("servers.web is missing: an image is not run on a laptop: start it yourself"), "{text}");
    assert!(problems.iter().all(|problem| problem.file.ends_with("toolgate.local.yaml")));
}

#[test]
fn of_two_servers_with_one_name_the_first_namespace_wins_and_both_are_named() {
    let overlay = "servers: {files: {command: [a]}}\n";
    let folder = Folder::default().server("b", "files", &container()).server("a", "files", &container());

    let (desired, problems) = folder.overlay(overlay).plan(&Desired::default());

    assert_eq!(desired.servers["files"].target.namespace, "a");
    let text = messages(&problems);
    assert!(text.contains("McpServer b/files") && text.contains("McpServer a/files"), "{text}");
}

#[test]
fn an_overlay_entry_without_server_is_told_with_its_line() {
    let overlay = "listen: 127.0.0.1:1\nservers:\n  fils: {command: [a]}\n";
    let (_, problems) = Folder::default().overlay(overlay).plan(&Desired::default());

    assert_eq!(messages(&problems), "3: servers.fils: no McpServer has this name\n");
    assert_eq!(problems[0].severity, Severity::Warning);
}

#[test]
fn a_broken_configuration_keeps_what_runs() {
    let folder = Folder::default().stdio("files").overlay("servers: {files: {command: [a]}}\n");
    let (running, _) = folder.plan(&Desired::default());

    let (desired, problems) = folder.overlay("listen: 127.0.0.1:1\n").plan(&running);

    assert!(messages(&problems).contains("it keeps running as it was"), "{}", messages(&problems));
    assert_eq!(actions(&running, &desired), []);
}

#[test]
fn tokens_are_trusted_beside_each_real_issuer_under_its_name() {
    let overlay = "servers: {files: {command: [a]}}\nidentities: {ada: {subject: ada, issuer: corp}}\n";
    let folder = Folder::default().stdio("files").issuers(&["partner", "corp"]).overlay(overlay);

    let (desired, problems) = folder.plan(&Desired::default());

    assert_eq!(messages(&problems), "");
    let snapshot = desired.servers["files"].policy.snapshot();
    let issuers: Vec<_> = snapshot.issuers.iter().map(|issuer| (issuer.name.as_str(), issuer.url.as_str())).collect();
    let expected = [
        ("corp", "http://127.0.0.1:8811/local-issuer/corp"),
        ("corp", "https://corp.example.com"),
        ("partner", "http://127.0.0.1:8811/local-issuer/partner"),
        ("partner", "https://partner.example.com"),
    ];
    assert_eq!(issuers, expected);
    assert_eq!(desired.identities["ada"].issuer, "corp");
}

#[test]
fn without_any_issuer_the_local_one_counts() {
    let overlay = "servers: {files: {command: [a]}}\nidentities: {ada: {subject: ada}}\n";
    let (desired, problems) = Folder::default().stdio("files").overlay(overlay).plan(&Desired::default());

    assert_eq!(messages(&problems), "");
    assert_eq!(desired.identities["ada"].issuer, "local");
    assert_eq!(desired.servers["files"].policy.snapshot().issuers[0].name, "local");
}

#[test]
fn a_policy_that_does_not_load_is_named_and_the_one_in_force_stays() {
    let folder = Folder::default().stdio("files").overlay("servers: {files: {command: [a]}}\n");
    let (old, _) = folder.clone().issuers(&["corp"]).plan(&Desired::default());

    let twice = folder.issuers(&["corp", "corp"]);
    let planned = twice.planned(&old);

    assert_eq!(planned.unloadable, ["files"]);
    assert!(messages(&planned.problems).ends_with("; the policy in force stays\n"), "{}", messages(&planned.problems));
    assert_eq!(planned.desired.servers["files"].policy.hash(), old.servers["files"].policy.hash());
    assert!(twice.planned(&Desired::default()).desired.servers.is_empty(), "nothing runs without a policy");
}

#[test]
fn an_identity_without_issuer_is_left_out_where_there_are_several() {
    let overlay = "servers: {files: {command: [a]}}\nidentities:\n  ada: {subject: ada}\n";
    let folder = Folder::default().stdio("files").issuers(&["partner", "corp"]).overlay(overlay);

    let (desired, problems) = folder.plan(&Desired::default());

    assert!(desired.identities.is_empty());
    let expected = "3: identities.ada: there are several issuers, choose one: `corp`, `partner` (`issuer`)\n";
    assert_eq!(messages(&problems), expected);
}

#[test]
fn actions_publish_replace_start_and_stop_and_otherwise_leave_alone() {
    let names = ["changed", "gone", "moved", "same"];
    let with = |overlay: &str| names.iter().fold(Folder::default(), |folder, name| folder.stdio(name)).overlay(overlay);
    let before =
        with("servers: {changed: {command: [a]}, gone: {command: [a]}, moved: {command: [a]}, same: {command: [a]}}\n");
    let (old, _) = before.plan(&Desired::default());

    let mut after = before.clone().stdio("new");
    after = after.overlay(
        "servers: {changed: {command: [a]}, moved: {command: [b]}, new: {command: [a]}, same: {command: [a]}}\n",
    );
    let gone = ("default".to_owned(), "gone".to_owned());
    after.world.servers.remove(&gone);
    after.servers.remove(&gone);
    let changed = ("default".to_owned(), "changed".to_owned());
    after.world.servers.get_mut(&changed).unwrap().registration = Registration::Auto;
    let (new, problems) = after.plan(&old);

    assert_eq!(messages(&problems), "");
    let name = |name: &str| name.to_owned();
    let expected = [
        Action::Publish(name("changed")),
        Action::Put(name("moved")),
        Action::Put(name("new")),
        Action::Remove(name("gone")),
    ];
    assert_eq!(actions(&old, &new), expected);
    assert_eq!(actions(&new, &new), []);
}
