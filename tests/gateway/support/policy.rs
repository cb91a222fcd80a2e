//! A policy server for one gateway: it signs what a test says, and notes what the gateway says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use toolgate::policy::Snapshot;
use toolgate::policy::version::Version;
use toolgate::wire::proto::from_gateway::Message as Said;
use toolgate::wire::proto::policy_server::{Policy, PolicyServer as Service};
use toolgate::wire::proto::to_gateway::Message as Word;
use toolgate::wire::proto::{self, FromGateway, Observation, ObserveRequest, ToGateway};
use toolgate::wire::{Signer, seal};

/// The token that the gateway shows.
pub const TOKEN: &str = "the-token-of-the-pod";

type Words = mpsc::Sender<Result<ToGateway, Status>>;

/// What it knows, whether it runs or not.
pub struct PolicyServer {
    pub address: SocketAddr,
    pub signer: Signer,
    shared: Arc<Shared>,
    running: Option<JoinHandle<()>>,
}

struct Shared {
    ca: Issuer<'static, KeyPair>,
    ca_pem: String,
    identity: Identity,
    /// What a gateway gets when it connects.
    now: Mutex<Option<Bytes>>,
    open: Mutex<Vec<Words>>,
    heard: Mutex<Vec<Said>>,
    tokens: Mutex<Vec<String>>,
}

impl PolicyServer {
    /// A place for one, where none answers yet.
    pub async fn absent() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca_pem = parameters.self_signed(&key).unwrap().pem();
        let ca = Issuer::new(parameters, key);
        let own = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&own, &ca).unwrap();
        let identity = Identity::from_pem(certificate.pem(), own.serialize_pem());
        // Nobody else gets this port while the test runs: it is not among those that the kernel gives out again soon.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let shared = Shared {
            ca,
            ca_pem,
            identity,
            now: Mutex::default(),
            open: Mutex::default(),
            heard: Mutex::default(),
            tokens: Mutex::default(),
        };
        Self { address, signer: Signer::from_seed(&[7; 32]).unwrap(), shared: Arc::new(shared), running: None }
    }

    /// One that answers.
    pub async fn start() -> Self {
        let mut server = Self::absent().await;
        server.listen().await;
        server
    }

    /// Begins to answer.
    pub async fn listen(&mut self) {
        let incoming = TcpIncoming::from(TcpListener::bind(self.address).await.unwrap());
        let tls = ServerTlsConfig::new().identity(self.shared.identity.clone());
        let router = Server::builder().tls_config(tls).unwrap().add_service(Service::new(Served(self.shared.clone())));
        self.running = Some(tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() }));
    }

    /// Answers no more, and ends every stream.
    pub async fn vanish(&mut self) {
        let running = self.running.take().expect("it runs");
        running.abort();
        let _ = running.await;
        self.shared.open.lock().clear();
    }

    /// Ends every stream, and answers new ones.
    pub fn hang_up(&self) {
        self.shared.open.lock().clear();
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn ca_pem(&self) -> &str {
        &self.shared.ca_pem
    }

    pub fn seal(&self, snapshot: &Snapshot, version: &Version) -> Bytes {
        let requires: Vec<String> = snapshot.requires().into_iter().map(str::to_owned).collect();
        seal(snapshot, version, &requires, &self.signer).unwrap()
    }

    /// Says what policy is, now and to whoever connects.
    pub async fn publish(&self, sealed: Bytes) {
        *self.shared.now.lock() = Some(sealed.clone());
        self.say(snapshot(&sealed)).await;
    }

    /// Says that what was published is still so.
    pub async fn still(&self, version: &Version) {
        self.say(Word::Still(version.into())).await;
    }

    async fn say(&self, word: Word) {
        let open = self.shared.open.lock().clone();
        for words in open {
            let _ = words.send(Ok(ToGateway { message: Some(word.clone()) })).await;
        }
    }

    /// Everything that was said by gateways.
    pub fn heard(&self) -> Vec<Said> {
        self.shared.heard.lock().clone()
    }

    /// The first word of a kind from `from` on.
    pub fn find<T>(&self, from: usize, wanted: impl Fn(&Said) -> Option<T>) -> Option<T> {
        self.shared.heard.lock().get(from..)?.iter().find_map(wanted)
    }

    /// The tokens that were shown, one a stream.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.tokens.lock().clone()
    }
}

fn snapshot(sealed: &Bytes) -> Word {
    Word::Snapshot(proto::Signed::decode(sealed.clone()).expect("it is sealed"))
}

impl Shared {
    fn certify(&self, csr: &Bytes) -> proto::Certificate {
        let request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).expect("a request");
        proto::Certificate { chain: request.signed_by(&self.ca).unwrap().pem(), error: String::new() }
    }
}

/// The service.
struct Served(Arc<Shared>);

#[tonic::async_trait]
impl Policy for Served {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<ToGateway, Status>> + Send>>;
    type ObserveStream = Pin<Box<dyn Stream<Item = Result<Observation, Status>> + Send>>;

    async fn follow(&self, request: Request<Streaming<FromGateway>>) -> Result<Response<Self::FollowStream>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.0.tokens.lock().push(token.to_owned());
        if !token.starts_with("Bearer ") {
            return Err(Status::unauthenticated("no token"));
        }
        let (words, mut queue) = mpsc::channel(16);
        let first = self.0.now.lock().as_ref().map(snapshot);
        if let Some(first) = first {
            let _ = words.send(Ok(ToGateway { message: Some(first) })).await;
        }
        self.0.open.lock().push(words.clone());
        let weak = words.downgrade();
        drop(words);
        let mut said = request.into_inner();
        let this = self.0.clone();
        tokio::spawn(async move {
            while let Ok(Some(FromGateway { message: Some(word) })) = said.message().await {
                if let Said::CertificateRequest(request) = &word
                    && let Some(words) = weak.upgrade()
                {
                    let certificate = Word::Certificate(this.certify(&request.csr));
                    let _ = words.send(Ok(ToGateway { message: Some(certificate) })).await;
                }
                this.heard.lock().push(word);
            }
        });
        Ok(Response::new(Box::pin(futures::stream::poll_fn(move |context| queue.poll_recv(context)))))
    }

    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        Err(Status::unimplemented("for replicas"))
    }
}
