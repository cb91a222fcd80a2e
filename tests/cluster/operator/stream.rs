//! Speaks the policy stream by hand, to ask for what no gateway of ours would.

use tokio::time::timeout;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use toolgate::wire::proto::policy_client::PolicyClient;
use toolgate::wire::proto::{FromGateway, Hello, ToGateway, from_gateway};

use super::world::World;
use crate::harness::{DEADLINE, within};

/// Asks for the policy of a server with a token; the first message, or why there is none.
pub(crate) async fn follow(world: &World, ca: &str, server: &str, token: &str) -> Result<ToGateway, Status> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(world.policy_url()).unwrap().tls_config(tls).unwrap();
    let channel = within("connect to the policy server", endpoint.connect()).await.expect("it listens, with that CA");
    let hello = Hello {
        namespace: world.space.name().to_owned(),
        server: server.to_owned(),
        program: "test".to_owned(),
        format: toolgate::policy::snapshot::FORMAT,
        ..Hello::default()
    };
    let hello = FromGateway { message: Some(from_gateway::Message::Hello(hello)) };
    // The sender lives on: a stream that ended would be answered with its end.
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    sender.send(hello).await.unwrap();
    let outgoing = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let mut request = Request::new(outgoing);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut client = PolicyClient::new(channel);
    let answer = async {
        let mut incoming = client.follow(request).await?.into_inner();
        incoming.message().await?.ok_or_else(|| Status::new(Code::Unknown, "the stream ended"))
    };
    let answer = timeout(DEADLINE, answer).await.expect("the policy server answers");
    drop(sender);
    answer
}
