//! What programs of different versions say to each other: what the first one wrote is read for ever, and what it reads
//! is what is written, as long as the format is the first.
//!
//! A test that fails here means that gateways which run are cut off by an upgrade: they would refuse every new policy.
//! Whoever must change the format raises `FORMAT`, goes on writing the one before for gateways whose hello asks for it,
//! and records the new one beside this one.

use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;
use toolgate::policy::parse::{Objects, parse};
use toolgate::policy::snapshot::{FORMAT, Snapshot, Target};
use toolgate::policy::version::Version;
use toolgate::policy::{Policy, compile};
use toolgate::wire::proto::from_gateway::Message as Said;
use toolgate::wire::proto::to_gateway::Message as Word;
use toolgate::wire::proto::{self, FromGateway, ToGateway};
use toolgate::wire::{Signer, UNDERSTOOD, open};

use crate::support::Server;
use crate::support::policy::PolicyServer;
use crate::support::sidecar::Pod;
use crate::support::{eventually, until};

/// `format-1.yaml` is a world, `format-1.json` what it compiled to, and `format-1.sealed` the same as it is sent and
/// stored, signed with the key of the tests.
fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/gateway/recorded/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(recorded(name)).unwrap()
}

fn signer() -> Signer {
    Signer::from_seed(&[7; 32]).unwrap()
}

fn version(role: u64) -> Version {
    Version { epoch: 3, seen: [("McpRole".to_owned(), role), ("McpTool".to_owned(), 4)].into() }
}

fn objects() -> Objects {
    let mut objects = Objects::default();
    for object in serde_saphyr::from_multiple::<Value>(&text("format-1.yaml")).unwrap() {
        match object["kind"].as_str().unwrap() {
            "McpServer" => objects.servers.push(serde_json::from_value(object).unwrap()),
            "McpTool" => objects.tools.push(serde_json::from_value(object).unwrap()),
            "McpRole" => objects.roles.push(serde_json::from_value(object).unwrap()),
            _ => objects.gateways.push(serde_json::from_value(object).unwrap()),
        }
    }
    objects
}

/// What the world compiles to now.
fn compiled() -> Snapshot {
    let (world, findings) = parse(&objects());
    assert!(findings.is_empty(), "{findings:?}");
    let target = Target { namespace: "agents".to_owned(), server: "frozen".to_owned() };
    compile(&world, &target, &["https://frozen.agents.svc:8443/mcp".to_owned()]).unwrap()
}

#[test]
fn what_is_written_is_what_gateways_of_the_first_version_read() {
    let snapshot = compiled();

    assert_eq!(snapshot.format, 1);
    assert_eq!(snapshot.requires(), ["disconnected-deny"]);
    assert_eq!(String::from_utf8(snapshot.canonical()).unwrap(), text("format-1.json").trim_end());
}

/// An operator that is rolled back, a boot ConfigMap that an older one left.
#[test]
fn what_the_first_version_wrote_is_read() {
    let opened = open(&recorded("format-1.sealed"), &signer().verify_key().unwrap()).unwrap();

    assert_eq!((opened.target.namespace.as_str(), opened.target.server.as_str()), ("agents", "frozen"));
    assert_eq!((opened.version, opened.format), (version(17), FORMAT));
    assert_eq!(opened.requires, ["disconnected-deny"]);
    assert!(opened.requires.iter().all(|required| UNDERSTOOD.contains(&required.as_str())));
    assert_eq!(String::from_utf8(opened.snapshot.clone()).unwrap(), text("format-1.json").trim_end());
    assert_eq!(*Policy::from_json(&opened.snapshot).unwrap().snapshot(), compiled());
}

/// Members may be added to a message, and no version minds: what is there keeps its number and its meaning.
#[test]
fn every_message_of_the_stream_is_spelt_as_in_the_first_version() {
    let seen = Some((&version(17)).into());
    let said = |message| FromGateway { message: Some(message) }.encode_to_vec();
    let words = |message| ToGateway { message: Some(message) }.encode_to_vec();
    let hello = proto::Hello {
        namespace: "agents".to_owned(),
        server: "frozen".to_owned(),
        program: "0.1.0".to_owned(),
        format: 1,
        understands: vec!["disconnected-deny".to_owned()],
        version: seen.clone(),
        hash: "sha256:00".to_owned(),
    };
    let offer = proto::Offer {
        id: 1,
        last: true,
        name: "n".to_owned(),
        version: "1".to_owned(),
        protocol_versions: vec!["2025-11-25".to_owned()],
        tools: vec![proto::OfferedTool { name: "ok".to_owned(), digest: "sha256:01".to_owned() }],
        prompts: 2,
        resources: 3,
        error: "e".to_owned(),
    };
    let isolation = proto::Isolation { isolated: false, found: "f".to_owned() };
    let signed = proto::Signed { body: Bytes::from_static(b"b"), signature: Bytes::from_static(b"s") };
    let certificate = proto::Certificate { chain: "c".to_owned(), error: "e".to_owned() };
    let messages = [
        ("hello", said(Said::Hello(hello))),
        ("ack", said(Said::Ack(proto::Ack { version: seen.clone(), hash: "h".to_owned() }))),
        ("nack", said(Said::Nack(proto::Nack { version: seen.clone(), error: "e".to_owned() }))),
        ("offer", said(Said::Offer(offer))),
        ("isolation", said(Said::Isolation(isolation))),
        ("request", said(Said::CertificateRequest(proto::CertificateRequest { csr: Bytes::from_static(b"r") }))),
        ("snapshot", words(Word::Snapshot(signed))),
        ("certificate", words(Word::Certificate(certificate))),
        ("still", words(Word::Still((&version(18)).into()))),
    ];

    let spelt: Vec<String> = messages.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    assert_eq!(spelt.concat(), text("stream-1.txt"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// A newer operator may say what this gateway has never heard of: it must not take a policy for weaker than it is.
#[tokio::test]
async fn a_gateway_boots_from_what_the_first_version_wrote_and_keeps_it_when_a_newer_format_comes() {
    let server = Server::start("fixture-hostile", &[]);
    let (pod, mut policy) = (Pod::new("frozen", ["--upstream", server.url.as_str()]), PolicyServer::absent().await);
    pod.boot(&recorded("format-1.sealed").into());
    let gateway = pod.start(&policy).await;
    eventually("it enforces", async || (gateway.status("/startupz").await == 200).then_some(())).await;
    assert!(gateway.allows("ok").await && gateway.allows("sluggish").await);
    for tool in ["secret", "never", "slow"] {
        assert!(!gateway.allows(tool).await, "{tool}");
    }

    let newer = Snapshot { format: FORMAT + 1, ..pod.allowing(&["*"]) };
    policy.publish(policy.seal(&newer, &version(18))).await;
    policy.listen().await;
    let reason = until("it is refused", || {
        policy.find(0, |said| match said {
            Said::Nack(nack) => Some(nack.error.clone()),
            _ => None,
        })
    })
    .await;

    assert!(reason.contains("has format 2") && reason.contains("update the gateway"), "{reason}");
    assert!(gateway.allows("ok").await && !gateway.allows("secret").await);
    // The next one in a format that it reads is in force: it was never cut off.
    policy.publish(policy.seal(&pod.allowing(&["secret"]), &version(19))).await;
    eventually("it follows again", async || gateway.allows("secret").await.then_some(())).await;
}
