use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::local::{identity, manifests::Loader, overlay::Overlay};
use crate::policy::compile;
use crate::policy::snapshot::Target;

const DAY: &str = "2026-11-24T10:00:00Z";
const NIGHT: &str = "2026-11-24T23:00:00Z";

/// The quickstart's policies and identities.
struct Quickstart {
    policies: BTreeMap<String, Arc<Policy>>,
    identities: BTreeMap<String, Identity>,
}

impl Quickstart {
    fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
        let world = Loader::new(&folder).load().unwrap().world;
        let policy = |server: &str| {
            let target = Target { namespace: "default".to_owned(), server: server.to_owned() };
            Arc::new(Policy::load(compile(&world, &target, &[]).unwrap()).unwrap())
        };
        let overlay = Overlay::read(&folder).unwrap();
        let resolve = |(name, entry): (&String, _)| (name.clone(), identity::resolve(entry, "corp".to_owned()));
        Self {
            policies: ["everything", "files"].map(|server| (server.to_owned(), policy(server))).into(),
            identities: overlay.identities.iter().map(resolve).collect(),
        }
    }

    fn registry(&self, answers: &BTreeMap<&str, Result<Catalogue, String>>, now: &str) -> Registry {
        let known = self
            .policies
            .iter()
            .map(|(name, policy)| (name.as_str(), Known { policy, catalogue: answers.get(name.as_str()) }));
        Registry::new(known, &self.identities, now.parse().unwrap())
    }
}

fn offers(tools: &[&str], prompts: &[&str]) -> Result<Catalogue, String> {
    let list = |names: &[&str]| {
        names.iter().map(|&name| Listed { name: name.to_owned(), ..Listed::default() }).collect::<Vec<_>>()
    };
    Ok(Catalogue { tools: list(tools), prompts: list(prompts), ..Catalogue::default() })
}

fn everything() -> Result<Catalogue, String> {
    offers(&["echo", "get-env", "get-sum", "trigger-long-running-operation"], &["simple-prompt", "args-prompt"])
}

#[test]
fn the_table_says_who_may_use_what_and_counts_the_rest() {
    let files = offers(&["write_file", "read_text_file", "read_file", "read_media_file"], &[]);
    let answers = [("everything", everything()), ("files", files)].into();

    let text = Quickstart::load().registry(&answers, DAY).render();

    let expected = concat!(
        "SERVER      TOOL                                             WHO MAY USE IT\n",
        "everything  echo                                             ada, grace, guest\n",
        "everything  get-sum                                          ada, grace\n",
        "everything  nightly-job (is trigger-long-running-operation)  grace~\n",
        "files       read_text_file                                   ada, grace, guest\n",
        "files       write_file                                       ada*, grace\n",
        "\n",
        "SERVER      KIND    NAME OR URI    WHO MAY USE IT\n",
        "everything  prompt  simple-prompt  ada, grace\n",
    );
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("everything: 1 more tool is not declared (registration: Declared)"), "{text}");
    assert!(text.contains("files: 2 more tools are not declared (registration: Declared)"), "{text}");
    assert!(text.contains("files: `move_file` is declared, but the server does not offer it"), "{text}");
}

#[test]
fn a_server_that_fails_is_told_and_the_others_stay_in_the_table() {
    let answers = [("everything", everything()), ("files", Err("the server went away".to_owned()))].into();
    let text = Quickstart::load().registry(&answers, DAY).render();
    assert!(text.contains("files: no answer: the server went away"), "{text}");
    assert!(text.contains("everything  echo"), "{text}");
}

#[test]
fn changes_are_told_one_line_for_each_thing_that_differs() {
    let quickstart = Quickstart::load();
    let answers = [("everything", everything()), ("files", offers(&["write_file"], &[]))].into();
    let day = quickstart.registry(&answers, DAY);
    let night = quickstart.registry(&answers, NIGHT);

    let job = "everything tool trigger-long-running-operation";
    assert_eq!(day.changes(&night), [format!("{job}: grace~ -> grace*")]);
    assert_eq!(day.changes(&day), Vec::<String>::new());

    let fewer = [("everything", everything()), ("files", offers(&[], &[]))].into();
    assert_eq!(day.changes(&quickstart.registry(&fewer, DAY)), ["files tool write_file: gone"]);
}
