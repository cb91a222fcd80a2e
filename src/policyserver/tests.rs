//! The policy server on loopback, with a real client and tokens of a test key.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::fixture::{NAMESPACE, TokenKey, caches, keys, object, pod, role, target};
use super::fleet::Fleet;
use super::index::Index;
use super::keys::Keys;
use super::{Caches, Epochs, Observer, Replicas, Server, Settings};
use crate::wire::proto::policy_client::PolicyClient;
use crate::wire::proto::{self, from_gateway, to_gateway};
use crate::wire::{Opened, open};

const HOST: &str = "policy.toolgate.svc";
/// Nothing on loopback takes so long; a test that waits for it has failed.
const SOON: Duration = Duration::from_secs(20);

/// A policy server and what surrounds it.
struct Cluster {
    address: SocketAddr,
    caches: Caches,
    fleet: Arc<Fleet>,
    index: Arc<Index>,
    keys: Arc<Keys>,
    token_key: TokenKey,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    async fn new() -> Self {
        let token_key = TokenKey::new("1");
        let caches = caches(&token_key);
        Self::with(caches, keys(), token_key).await
    }

    async fn with(caches: Caches, keys: Arc<Keys>, token_key: TokenKey) -> Self {
        Self::in_epochs(caches, keys, token_key, Epochs::fixed(1)).await
    }

    async fn in_epochs(caches: Caches, keys: Arc<Keys>, token_key: TokenKey, epochs: Epochs) -> Self {
        let (fleet, index) = (Arc::new(Fleet::default()), Arc::new(Index::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = Settings { listen: address, hosts: vec![HOST.to_owned()] };
        let server = Server::new(
            settings,
            caches.clone(),
            Arc::clone(&index),
            Arc::clone(&fleet),
            Arc::clone(&keys),
            Arc::new(epochs),
        );
        let shutdown = CancellationToken::new();
        tokio::spawn(server.serve(listener, shutdown.clone()));
        Self { address, caches, fleet, index, keys, token_key, shutdown }
    }

    async fn channel(&self, ca: &str) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(HOST);
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address))?.tls_config(tls)?;
        // What HTTP/2 guarantees: so much is on its way at most.
        let window = 65_535;
        endpoint.initial_stream_window_size(window).initial_connection_window_size(window).connect().await
    }

    async fn client(&self) -> PolicyClient<Channel> {
        PolicyClient::new(self.channel(self.keys.ca_pem()).await.unwrap())
    }

    /// Connects as the gateway of a pod.
    async fn follow(&self, token: &str, hello: proto::Hello) -> Result<Gateway, Status> {
        let (say, said) = mpsc::channel(16);
        say.send(from_gateway::Message::Hello(hello)).await.unwrap();
        let said = stream::unfold(said, |mut said| async move {
            let message = proto::FromGateway { message: Some(said.recv().await?) };
            Some((message, said))
        });
        let mut request = Request::new(said);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let heard = self.client().await.follow(request).await?.into_inner();
        Ok(Gateway { say, heard, keys: Arc::clone(&self.keys) })
    }

    async fn github(&self) -> Gateway {
        self.follow(&self.token_key.token("github-1", "uid-github"), hello("github")).await.unwrap()
    }

    /// What was published for the server, once the first judgement is there: gateways are told before it.
    async fn published(&self) -> Arc<super::index::Published> {
        let mut judgements = self.index.changes();
        tokio::time::timeout(SOON, judgements.wait_for(|count| *count > 0)).await.unwrap().unwrap();
        Arc::clone(&self.index.now().published[&target("github")])
    }

    /// Waits until the gateway of a pod has said something.
    async fn reported(&self, is_so: impl Fn(&super::fleet::Report) -> bool) {
        reported(&self.fleet, is_so).await;
    }
}

async fn reported(fleet: &Fleet, is_so: impl Fn(&super::fleet::Report) -> bool) {
    let mut changes = fleet.changes();
    let wait = async {
        while !fleet.of(&target("github")).iter().any(|report| is_so(report)) {
            changes.recv().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the report did not come");
}

fn hello(server: &str) -> proto::Hello {
    proto::Hello {
        namespace: NAMESPACE.to_owned(),
        server: server.to_owned(),
        program: "test".to_owned(),
        format: 1,
        ..proto::Hello::default()
    }
}

/// A gateway as the server sees one.
struct Gateway {
    say: mpsc::Sender<from_gateway::Message>,
    heard: Streaming<proto::ToGateway>,
    keys: Arc<Keys>,
}

impl Gateway {
    async fn next(&mut self) -> Result<Option<to_gateway::Message>, Status> {
        let message = tokio::time::timeout(SOON, self.heard.message()).await.expect("nothing came")?;
        Ok(message.map(|message| message.message.unwrap()))
    }

    async fn snapshot(&mut self) -> Opened {
        match self.next().await.unwrap().unwrap() {
            to_gateway::Message::Snapshot(signed) => {
                open(&prost::Message::encode_to_vec(&signed), self.keys.verify_key()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn say(&self, message: from_gateway::Message) {
        self.say.send(message).await.unwrap();
    }
}

#[tokio::test]
async fn a_gateway_gets_the_policy_of_its_own_server() {
    let cluster = Cluster::new().await;

    let opened = cluster.github().await.snapshot().await;

    assert_eq!(opened.target, target("github"));
    assert_eq!(opened.hash, cluster.published().await.hash);
}

#[tokio::test]
async fn the_pod_of_another_server_is_refused() {
    let cluster = Cluster::new().await;

    let token = cluster.token_key.token("gitlab-1", "uid-gitlab");
    let mut gateway = cluster.follow(&token, hello("github")).await.unwrap();

    assert_eq!(gateway.next().await.unwrap_err().code(), Code::PermissionDenied);
    assert!(cluster.fleet.targets().is_empty());
}

#[tokio::test]
async fn a_foreign_token_is_refused() {
    let cluster = Cluster::new().await;
    let foreign = TokenKey::new("1");

    for token in [foreign.token("github-1", "uid-github"), cluster.keys.replica_token().to_owned(), String::new()] {
        let refused = cluster.follow(&token, hello("github")).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
    }
    let without = cluster.client().await.follow(stream::empty::<proto::FromGateway>()).await.err().unwrap();
    assert_eq!(without.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_server_with_another_ca_is_not_ours() {
    let cluster = Cluster::new().await;

    assert!(cluster.channel(keys().ca_pem()).await.is_err());
}

#[tokio::test]
async fn a_revoked_role_reaches_the_stream_as_a_new_snapshot() {
    let cluster = Cluster::new().await;
    let mut gateway = cluster.github().await;
    let before = gateway.snapshot().await;
    assert!(String::from_utf8(before.snapshot).unwrap().contains("developer"));

    cluster.caches.roles.delete(101, NAMESPACE, "developer");

    let after = gateway.snapshot().await;
    assert!(!after.version.goes_back(&before.version));
    assert_eq!(after.version.seen["McpRole"], 101);
    assert!(!String::from_utf8(after.snapshot).unwrap().contains("developer"));
}

#[tokio::test]
async fn a_change_beside_the_server_is_told_without_the_snapshot() {
    let cluster = Cluster::new().await;
    let mut gateway = cluster.github().await;
    gateway.snapshot().await;

    cluster.caches.tools.apply(130, super::fixture::tool("gitlab", "read_z"));

    let to_gateway::Message::Still(version) = gateway.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(version.seen["McpTool"], 130);
}

/// The gateway does not read while many edits are made, each judged. It then finds what the connection already held,
/// and the newest; never the rest.
#[tokio::test]
async fn a_slow_gateway_gets_only_the_newest() {
    let cluster = Cluster::new().await;
    // Key sets that do not compress fill the connection's window soon.
    let key_set = |edit: u64| {
        let noise = (0..2_000_u64).map(|n| (edit * 7919 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let noise = noise.fold(String::new(), |text, n| text + &format!("{n:x}"));
        serde_json::json!({"keys": [{"kty": "EC", "x": noise}]}).to_string()
    };
    let mut gateway = cluster.github().await;
    gateway.snapshot().await;
    cluster.published().await; // Else the first edit would be taken for judged before it was.
    let mut judged = cluster.index.changes();
    let edits = 30;

    for edit in 1..=edits {
        judged.borrow_and_update();
        let jwks = serde_json::json!({"inline": key_set(edit)});
        let oidc = serde_json::json!({"url": "https://issuer.example.com", "jwks": jwks});
        let spec = serde_json::json!({"issuers": [{"name": "corp", "oidc": oidc}]});
        let generation = 1 + i64::try_from(edit).unwrap();
        cluster.caches.gateways.apply(100 + edit, object("McpGateway", "default", generation, &spec));
        tokio::time::timeout(SOON, judged.changed()).await.unwrap().unwrap();
    }

    let mut received = 0;
    let newest = cluster.published().await.hash.clone();
    loop {
        received += 1;
        if gateway.snapshot().await.hash == newest {
            break;
        }
    }
    assert!(received < edits, "all {received} snapshots had been queued");
}

#[tokio::test]
async fn a_gateway_that_knows_more_waits_until_the_replica_has_caught_up() {
    let cluster = Cluster::new().await;
    let mut version = cluster_version(&cluster).await;
    version.seen.insert("McpRole".to_owned(), 150);
    let hello = proto::Hello { version: Some(version), hash: "sha256:newer".to_owned(), ..hello("github") };
    let token = cluster.token_key.token("github-1", "uid-github");

    let mut gateway = cluster.follow(&token, hello).await.unwrap();
    // The replica asks the API server anew, because a quiet watch does not tell how new it is.
    tokio::time::timeout(SOON, cluster.caches.roles.doubted()).await.unwrap();
    cluster.caches.roles.relist(160, vec![role("developer", 1, &["read_*"])]);

    assert_eq!(gateway.snapshot().await.version.seen["McpRole"], 160);
}

/// A gateway that has just started knows what lies on its disk, and enforces nothing.
#[tokio::test]
async fn who_knows_a_version_and_enforces_nothing_has_acknowledged_nothing() {
    let cluster = Cluster::new().await;
    let version = Some(cluster_version(&cluster).await);
    let token = cluster.token_key.token("github-1", "uid-github");

    let _gateway = cluster.follow(&token, proto::Hello { version, ..hello("github") }).await.unwrap();

    cluster.reported(|report| report.program == "test" && report.acked.is_none()).await;
}

/// A restore of etcd while the operator runs: what was edited since is gone, and versions are lower than before.
#[tokio::test]
async fn after_a_restore_gateways_follow_the_restored_policy() {
    let client = crate::kubernetes::fake::Fake::default().client();
    let secret = crate::kubernetes::secret::SecretAt::new(client, "toolgate", super::keys::SECRET);
    let keys = Arc::new(Keys::load(&secret).await.unwrap());
    let epochs = Epochs::load(secret).await.unwrap();
    let token_key = TokenKey::new("1");
    let cluster = Cluster::in_epochs(caches(&token_key), keys, token_key, epochs).await;
    tokio::spawn(cluster.caches.servers.clone().answer_doubts());
    tokio::spawn(cluster.caches.tools.clone().answer_doubts());
    tokio::spawn(cluster.caches.roles.clone().answer_doubts());
    tokio::spawn(cluster.caches.gateways.clone().answer_doubts());
    tokio::spawn(cluster.caches.config_maps.clone().answer_doubts());
    let mut gateway = cluster.github().await;
    let before = gateway.snapshot().await;

    cluster.caches.roles.delete(90, NAMESPACE, "developer");
    cluster.caches.roles.rewind(90);

    let after = gateway.snapshot().await;
    assert_eq!((after.version.epoch, after.version.seen["McpRole"]), (2, 90));
    assert!(!after.version.goes_back(&before.version));
    assert!(!String::from_utf8(after.snapshot).unwrap().contains("developer"));
}

async fn cluster_version(cluster: &Cluster) -> proto::Version {
    cluster.published().await.version.as_ref().into()
}

#[tokio::test]
async fn what_a_gateway_says_is_in_the_fleet_until_it_goes() {
    let cluster = Cluster::new().await;
    let mut gateway = cluster.github().await;
    let opened = gateway.snapshot().await;

    let ack = proto::Ack { version: Some((&opened.version).into()), hash: opened.hash.clone() };
    gateway.say(from_gateway::Message::Ack(ack)).await;
    cluster.reported(|report| report.acked.as_ref().is_some_and(|acked| acked.hash == opened.hash)).await;
    gateway.say(from_gateway::Message::Nack(proto::Nack { version: None, error: "too new".to_owned() })).await;
    cluster.reported(|report| report.refused.as_deref() == Some("too new") && report.acked.is_some()).await;
    let isolation = proto::Isolation { isolated: false, found: "0.0.0.0:8000".to_owned() };
    gateway.say(from_gateway::Message::Isolation(isolation)).await;
    cluster.reported(|report| report.is_isolated == Some(false) && report.exposed.is_some()).await;
    let tools = vec![proto::OfferedTool { name: "read_x".to_owned(), digest: "sha256:d".to_owned() }];
    gateway.say(from_gateway::Message::Offer(proto::Offer { last: true, tools, ..Default::default() })).await;
    cluster.reported(|report| report.catalogue.as_ref().is_some_and(|offer| offer.tools.len() == 1)).await;

    let mut changes = cluster.fleet.changes();
    drop(gateway);
    let gone = async {
        while !cluster.fleet.targets().is_empty() {
            changes.recv().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn a_gateway_gets_a_certificate_for_its_own_name() {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let cluster = Cluster::new().await;
    let mut gateway = cluster.github().await;
    gateway.snapshot().await;
    let params = rcgen::CertificateParams::new(vec!["gitlab.agents.svc".to_owned()]).unwrap();
    let csr = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();

    gateway.say(from_gateway::Message::CertificateRequest(proto::CertificateRequest { csr: csr.into() })).await;

    let to_gateway::Message::Certificate(certificate) = gateway.next().await.unwrap().unwrap() else { panic!() };
    let der = CertificateDer::from_pem_slice(certificate.chain.as_bytes()).unwrap();
    let names = |name: &[u8]| der.windows(name.len()).any(|window| window == name);
    assert!(names(b"github.agents.svc") && names(b"toolgate://agents/github"));
    assert!(!names(b"gitlab"));
    gateway.say(from_gateway::Message::CertificateRequest(proto::CertificateRequest::default())).await;
    let to_gateway::Message::Certificate(refused) = gateway.next().await.unwrap().unwrap() else { panic!() };
    assert!(refused.chain.is_empty() && !refused.error.is_empty());
}

#[tokio::test]
async fn a_gateway_whose_pod_is_gone_hears_no_more() {
    let cluster = Cluster::new().await;
    let mut gateway = cluster.github().await;
    gateway.snapshot().await;

    cluster.caches.pods.apply(101, pod("github-1", "uid-other", Some("github")));
    cluster.caches.roles.delete(101, NAMESPACE, "developer");

    assert_eq!(gateway.next().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn only_replicas_observe() {
    let cluster = Cluster::new().await;

    for token in [cluster.token_key.token("github-1", "uid-github"), String::new()] {
        let mut request = Request::new(proto::ObserveRequest {});
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let refused = cluster.client().await.observe(request).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn the_leader_hears_the_gateways_of_every_replica() {
    let token_key = TokenKey::new("1");
    let (caches, keys) = (caches(&token_key), keys());
    let one = Cluster::with(caches.clone(), Arc::clone(&keys), token_key).await;
    let other = Cluster::with(caches, Arc::clone(&keys), TokenKey::new("2")).await;
    let mut gateway = one.github().await;
    let opened = gateway.snapshot().await;

    let all = Arc::new(Fleet::default());
    let mut complete = all.is_complete();
    let replicas = Replicas::At(BTreeSet::from([one.address, other.address]));
    let observer = Observer::new(replicas, HOST.to_owned(), keys, Arc::clone(&one.fleet), Arc::clone(&all));
    let shutdown = CancellationToken::new();
    tokio::spawn(observer.run(shutdown.clone()));

    tokio::time::timeout(SOON, complete.wait_for(|is_complete| *is_complete)).await.unwrap().unwrap();
    assert_eq!(all.of(&target("github")).len(), 1);
    // What this replica was told itself is in memory once.
    assert!(Arc::ptr_eq(&all.of(&target("github"))[0], &one.fleet.of(&target("github"))[0]));
    let tools = vec![proto::OfferedTool { name: "read_x".to_owned(), digest: "sha256:d".to_owned() }];
    gateway.say(from_gateway::Message::Offer(proto::Offer { last: true, tools, ..Default::default() })).await;
    let ack = proto::Ack { version: Some((&opened.version).into()), hash: opened.hash.clone() };
    gateway.say(from_gateway::Message::Ack(ack)).await;
    // The catalogue is told once, and stays when something else is told.
    reported(&all, |report| report.acked.is_some() && report.catalogue.as_ref().is_some_and(|o| o.tools.len() == 1))
        .await;
    shutdown.cancel();
}

/// Streams that are asked for nothing end with the server, so that it ends at all.
#[tokio::test]
async fn a_server_that_shuts_down_ends_its_streams() {
    let cluster = Cluster::new().await;
    let mut gateway = cluster.github().await;
    gateway.snapshot().await;

    cluster.shutdown.cancel();

    let end = tokio::time::timeout(SOON, gateway.heard.next()).await.unwrap();
    assert!(end.is_none_or(|end| end.is_err()));
}
