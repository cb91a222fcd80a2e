//! Any bytes load as a policy or give an error; a policy that loads decides about any call without a panic, never
//! allows what lists do not show, and decides alike about all spellings of a URI.

#![no_main]
#![allow(clippy::panic)] // A panic is how a finding is told.

use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Map, json};
use toolgate::policy::{Call, Identity, Item, Policy, Reason, Verdict};

/// Callers that the corpus knows.
fn callers(policy: &Policy) -> Vec<Option<Identity>> {
    let issuer = policy.snapshot().issuers.first().map_or("local", |issuer| &issuer.name).to_owned();
    let claims: Map<_, _> =
        [("department".to_owned(), json!("platform")), ("mfa".to_owned(), json!(true))].into_iter().collect();
    let ada = Identity {
        issuer,
        subject: "ada@example.com".to_owned(),
        groups: vec!["engineering".to_owned()],
        scopes: vec!["mcp:deploy".to_owned()],
        claims,
    };
    vec![None, Some(Identity { groups: Vec::new(), claims: Map::new(), ..ada.clone() }), Some(ada)]
}

/// Arguments that may be read in two ways.
const ODD: &str = r#"{"path":"/data/a","Path":"/etc","environment":"\ud800"}"#;

/// Spellings of one URI each.
const SPELLINGS: [&[&str]; 4] = [
    &["repo://acme/a%2Fb", "REPO://acme/./a%2fb", "repo://acme/x/../%61%2Fb"],
    &["https://h/caf\u{e9} b", "https://h:443/caf%C3%A9%20b", "HTTPS://H./caf%c3%a9 b"],
    &["file:///etc/passwd", "file://localhost/etc/passwd", "file:/etc/./%70asswd"],
    &["mem:x", "MEM:%78"],
];

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(policy) = Policy::from_json(bytes) else { return Corpus::Keep };
    let hash = policy.snapshot().hash();
    let canonical = policy.snapshot().canonical();
    let again = Policy::from_json(&canonical).unwrap_or_else(|error| panic!("what loads loads again: {error}"));
    assert_eq!(again.hash().as_ref(), hash, "the canonical form is the same policy");

    let now: jiff::Timestamp = "2026-11-24T14:30:00Z".parse().unwrap_or_default();
    let tools = policy.snapshot().tools.iter().map(|tool| Item::Tool(&tool.name));
    let items =
        tools.chain([Item::Tool("write_file"), Item::Prompt("review_code"), Item::Resource("repo://acme/a%2Fb")]);
    let items: Vec<Item<'_>> = items.collect();
    for caller in callers(&policy) {
        let view = policy.subject(caller.as_ref());
        for item in &items {
            for arguments in
                [None, Some("{}"), Some(r#"{"path":"/data/a","environment":"dev","replicas":3}"#), Some(ODD), Some("[")]
            {
                let decision = policy.decide(&view, &Call { item: *item, arguments }, now);
                if matches!(decision.reason, Reason::Unclear { .. }) {
                    assert_eq!(arguments, Some(ODD), "only what is odd is unclear");
                }
                if decision.verdict == Verdict::Allow {
                    assert!(policy.visible(&view, *item, now), "allowed but hidden: {item:?} {arguments:?}");
                }
            }
            for spellings in SPELLINGS {
                let mut decisions = spellings
                    .iter()
                    .map(|uri| policy.decide(&view, &Call { item: Item::Resource(uri), arguments: None }, now));
                let first = decisions.next();
                assert!(decisions.all(|decision| Some(&decision) == first.as_ref()), "{spellings:?} differ");
            }
            let template = Item::ResourceTemplate("repo://{owner}/{+path}");
            let _ = policy.visible(&view, template, now);
        }
    }
    Corpus::Keep
});
