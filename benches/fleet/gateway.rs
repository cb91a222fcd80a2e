//! What one simulated gateway does: hello, load, acknowledge, and again after each broken stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use toolgate::policy::{Policy, snapshot};
use toolgate::wire::envelope;
use toolgate::wire::proto::from_gateway::Message as Said;
use toolgate::wire::proto::policy_client::PolicyClient;
use toolgate::wire::proto::to_gateway::Message as Heard;
use toolgate::wire::proto::{Ack, FromGateway, Hello, Isolation, Offer, OfferedTool};

use crate::api::{Cluster, ROLE, Simulated, Trust};

/// Longest wait for anything that is measured.
const PATIENCE: Duration = Duration::from_mins(10);
/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(500);

/// Every gateway, and which generation of the role each enforces since when.
pub(crate) struct Fleet {
    size: usize,
    enforced: Mutex<HashMap<String, (i64, Instant)>>,
    connected: watch::Sender<usize>,
    changed: watch::Sender<u64>,
}

impl Fleet {
    pub(crate) fn new(size: usize) -> Self {
        let (connected, changed) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { size, enforced: Mutex::default(), connected, changed }
    }

    /// Starts a gateway for each pod.
    pub(crate) fn start(
        self: &Arc<Self>,
        cluster: &Cluster,
        url: &str,
        trust: &Trust,
        pods: Vec<Simulated>,
        tools: usize,
    ) {
        for pod in pods {
            let (fleet, url, trust) = (self.clone(), url.to_owned(), trust.clone());
            let namespace = cluster.namespace().to_owned();
            tokio::spawn(async move {
                loop {
                    if let Err(error) = fleet.live(&namespace, &url, &trust, &pod, tools).await {
                        eprintln!("{}: {error:#}", pod.server);
                    }
                    sleep(AGAIN).await;
                }
            });
        }
    }

    async fn live(
        &self,
        namespace: &str,
        url: &str,
        trust: &Trust,
        pod: &Simulated,
        tools: usize,
    ) -> anyhow::Result<()> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trust.ca));
        let channel = Endpoint::from_shared(url.to_owned())?.tls_config(tls)?.connect().await?;
        let mut client = PolicyClient::new(channel).max_decoding_message_size(4 << 20);
        let (sender, mut receiver) = mpsc::channel::<FromGateway>(16);
        let say = async |said: Said| sender.send(FromGateway { message: Some(said) }).await;
        say(Said::Hello(Hello {
            namespace: namespace.to_owned(),
            server: pod.server.clone(),
            program: "bench".to_owned(),
            format: snapshot::FORMAT,
            ..Hello::default()
        }))
        .await?;
        let mut request = Request::new(futures::stream::poll_fn(move |context| receiver.poll_recv(context)));
        request.metadata_mut().insert("authorization", format!("Bearer {}", pod.token).parse()?);
        let mut words = client.follow(request).await?.into_inner();
        let _held = Held::new(&self.connected);
        let mut is_first = true;
        while let Some(word) = words.message().await? {
            let Some(Heard::Snapshot(signed)) = word.message else { continue };
            let opened = envelope::open(&signed.encode_to_vec(), &trust.key)?;
            let policy = Policy::from_json(&opened.snapshot)?;
            let role = policy.snapshot().inputs.iter().find(|input| input.kind == "McpRole" && input.name == ROLE);
            let generation = role.map_or(0, |role| role.generation);
            say(Said::Ack(Ack { version: Some((&opened.version).into()), hash: opened.hash })).await?;
            self.enforced.lock().insert(pod.server.clone(), (generation, Instant::now()));
            self.changed.send_modify(|changed| *changed += 1);
            if std::mem::take(&mut is_first) {
                say(Said::Isolation(Isolation { isolated: true, ..Isolation::default() })).await?;
                say(Said::Offer(offer(tools))).await?;
            }
        }
        Ok(())
    }

    /// Waits until every gateway enforces this generation of the role; when the last one did.
    pub(crate) async fn enforced(&self, generation: i64) -> anyhow::Result<Instant> {
        let mut changed = self.changed.subscribe();
        let all = async {
            loop {
                changed.borrow_and_update();
                {
                    let enforced = self.enforced.lock();
                    let mut since = enforced.values().filter(|(found, _)| *found >= generation).map(|(_, at)| *at);
                    if enforced.values().filter(|(found, _)| *found >= generation).count() == self.size {
                        return since.by_ref().max().expect("there is a gateway");
                    }
                }
                changed.changed().await.expect("the sender is here");
            }
        };
        Ok(timeout(PATIENCE, all).await?)
    }

    /// Waits until every gateway has a stream.
    pub(crate) async fn connected(&self) -> anyhow::Result<()> {
        let mut connected = self.connected.subscribe();
        timeout(PATIENCE, connected.wait_for(|count| *count == self.size)).await??;
        Ok(())
    }
}

/// A stream that is counted for as long as it lives.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn offer(tools: usize) -> Offer {
    let tool =
        |number| OfferedTool { name: crate::api::tool_name(number), digest: format!("sha256:{}", "0".repeat(64)) };
    Offer {
        id: 1,
        last: true,
        name: "bench".to_owned(),
        version: "1".to_owned(),
        protocol_versions: vec!["2025-11-25".to_owned()],
        tools: (0..tools).map(tool).collect(),
        ..Offer::default()
    }
}
