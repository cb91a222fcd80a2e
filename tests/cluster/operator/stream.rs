//! Speaks the policy stream by hand, to ask for what no gateway of ours would, or as one of another version.

use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use toolgate::wire::proto::policy_client::PolicyClient;
use toolgate::wire::proto::{FromGateway, Hello, ToGateway, from_gateway};

use super::world::World;
use crate::harness::{DEADLINE, within};

/// A stream that was opened. It ends when this is dropped.
pub(crate) struct Follower {
    to: mpsc::Sender<FromGateway>,
    from: Streaming<ToGateway>,
}

impl Follower {
    /// Connects and says hello; the namespace and the server in it are filled in.
    pub(crate) async fn connect(
        world: &World,
        ca: &str,
        server: &str,
        token: &str,
        hello: Hello,
    ) -> Result<Self, Status> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        let endpoint = Endpoint::from_shared(world.policy_url()).unwrap().tls_config(tls).unwrap();
        let channel =
            within("connect to the policy server", endpoint.connect()).await.expect("it listens, with that CA");
        let hello = Hello { namespace: world.space.name().to_owned(), server: server.to_owned(), ..hello };
        let (to, mut receiver) = mpsc::channel(1);
        to.send(FromGateway { message: Some(from_gateway::Message::Hello(hello)) }).await.unwrap();
        let outgoing = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut request = Request::new(outgoing);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let answer = timeout(DEADLINE, PolicyClient::new(channel).follow(request)).await;
        Ok(Self { to, from: answer.expect("the policy server answers")?.into_inner() })
    }

    /// The next message, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<ToGateway, Status> {
        let next = timeout(DEADLINE, self.from.message()).await.expect("the policy server says something");
        next?.ok_or_else(|| Status::new(Code::Unknown, "the stream ended"))
    }

    /// Says something.
    pub(crate) async fn say(&self, message: Option<from_gateway::Message>) {
        self.to.send(FromGateway { message }).await.expect("the stream is open");
    }
}

/// Asks for the policy of a server with a token; the first message, or why there is none.
pub(crate) async fn follow(world: &World, ca: &str, server: &str, token: &str) -> Result<ToGateway, Status> {
    let hello = Hello { program: "test".to_owned(), format: toolgate::policy::snapshot::FORMAT, ..Hello::default() };
    Follower::connect(world, ca, server, token, hello).await?.next().await
}
