//! One connection to a policy server: opened, spoken on, lost. What is said is for the caller to decide.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::gateway::causes::chain;
use crate::gateway::state;
use crate::policy::version::Version;
use crate::wire::envelope::SEALED_BYTES;
use crate::wire::proto::from_gateway::Message as Said;
use crate::wire::proto::policy_client::PolicyClient;
use crate::wire::proto::to_gateway::Message as Heard;
use crate::wire::proto::{FromGateway, Hello, ToGateway};

/// Time for a connection, TLS and the first answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Silence after which the other side is asked whether it is there.
const PING: Duration = Duration::from_secs(10);
/// Time for its answer, and for it to read what is said.
const PATIENCE: Duration = Duration::from_secs(5);
/// Messages that wait to be sent.
const QUEUE: usize = 16;
/// Longest token, in bytes.
const TOKEN_BYTES: usize = 16 << 10;

/// A policy server, and how to be known to it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `https://HOST:PORT`.
    pub url: String,
    /// The only authorities that may vouch for it, PEM.
    pub ca: String,
    /// File with a token that says who this gateway is. Read for each connection: it is renewed meanwhile.
    pub token: PathBuf,
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The token cannot be read.
    #[error("failed to read the token {0}: {1}")]
    Token(PathBuf, String),
    /// No connection, or no TLS with somebody the CA vouches for.
    #[error("failed to connect to the policy server: {}", chain(.0))]
    Connect(#[from] tonic::transport::Error),
    /// It took too long.
    #[error("the policy server did not answer in time")]
    Timeout,
    /// It refused, or broke off.
    #[error("the policy server said {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// It ended the stream.
    #[error("the policy server ended the stream")]
    Ended,
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// A connection.
pub(super) struct Stream {
    to: mpsc::Sender<FromGateway>,
    from: Streaming<ToGateway>,
}

/// What a policy server says.
pub(super) enum Word {
    /// A sealed snapshot.
    Snapshot(Bytes),
    /// The snapshot sent last is still what policy says, at this version.
    Still(Version),
    /// A certificate chain, PEM.
    Certificate(String),
}

impl Remote {
    /// Connects and says hello.
    pub(super) async fn connect(&self, hello: Hello) -> Result<Stream, StreamError> {
        timeout(CONNECT, self.open(hello)).await.map_err(|_| StreamError::Timeout)?
    }

    async fn open(&self, hello: Hello) -> Result<Stream, StreamError> {
        let unreadable = |why: String| StreamError::Token(self.token.clone(), why);
        let token =
            state::read(self.token.clone(), TOKEN_BYTES).await.map_err(|error| unreadable(error.to_string()))?;
        let token = token.ok_or_else(|| unreadable("there is no such file".to_owned()))?;
        let token = String::from_utf8_lossy(&token);
        let mut bearer: MetadataValue<_> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| unreadable("it holds what no token holds".to_owned()))?;
        bearer.set_sensitive(true);

        let mut client = PolicyClient::new(self.channel().await?).max_decoding_message_size(SEALED_BYTES + (64 << 10));
        let (to, mut queue) = mpsc::channel(QUEUE);
        let _ = to.try_send(FromGateway { message: Some(Said::Hello(hello)) }); // The queue is new: there is room.
        let said = futures::stream::poll_fn(move |context| queue.poll_recv(context));
        let mut request = Request::new(said);
        request.metadata_mut().insert("authorization", bearer);
        let from = client.follow(request).await?.into_inner();
        Ok(Stream { to, from })
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        // No other authority counts, and none of the machine.
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ca));
        Endpoint::from_shared(self.url.clone())?
            .tls_config(tls)?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PATIENCE)
            .keep_alive_while_idle(true)
            .connect()
            .await
    }
}

impl Stream {
    /// The next word. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Word, StreamError> {
        loop {
            let ToGateway { message } = self.from.message().await?.ok_or(StreamError::Ended)?;
            match message {
                Some(Heard::Snapshot(signed)) => return Ok(Word::Snapshot(signed.encode_to_vec().into())),
                Some(Heard::Still(version)) => {
                    if let Ok(version) = version.try_into() {
                        return Ok(Word::Still(version));
                    }
                }
                Some(Heard::Certificate(certificate)) if certificate.chain.is_empty() => {
                    tracing::warn!(error = certificate.error, "the policy server refused to sign a certificate");
                }
                Some(Heard::Certificate(certificate)) => return Ok(Word::Certificate(certificate.chain)),
                None => {} // A newer server's word: what matters is never said in one that may be skipped.
            }
        }
    }

    /// Says something.
    pub(super) async fn say(&self, said: Said) -> Result<(), StreamError> {
        let sent = timeout(PATIENCE, self.to.send(FromGateway { message: Some(said) })).await;
        sent.map_err(|_| StreamError::Timeout)?.map_err(|_| StreamError::Ended)
    }
}
