//! `Follow`: one gateway, from its hello to its end.
//!
//! Two halves. The listening half reads what the gateway says and keeps its [`Report`]; it never waits for the other.
//! The speaking half is the body of the answer: it is asked for the next message only when the connection has room, and
//! then looks at what is true at that moment. So a gateway that reads slowly gets the newest snapshot, and nothing
//! queues up for it.

pub(super) mod delivery;
mod offer;
mod roster;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use self::delivery::{Delivery, Next};
use self::offer::Chunks;
pub(super) use self::offer::{cut, whole};
use self::roster::{Place, Roster};
use super::epoch::Epochs;
use super::fleet::{Acked, Fleet, Report};
use super::identity::{Caller, Identities};
use super::keys::Keys;
use super::outbox::{Outbox, Parcels};
use crate::policy::version::Version;
use crate::wire::proto::{self, from_gateway, to_gateway};

/// Most gateways of one replica.
const STREAMS: usize = 20_000;
/// Time for the hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long a stream lives at least, so that gateways spread over replicas again.
const LIFE: Duration = Duration::from_mins(30);
/// How much longer, at random.
const MORE_LIFE: Duration = Duration::from_mins(30);
/// Answers to signing requests that may wait for the connection; more requests wait unread.
const CERTIFICATES: usize = 2;
/// Longest text of a gateway that is kept, in bytes.
const TEXT: usize = 1 << 10;

/// What the body of an answer is made of.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<proto::ToGateway, Status>> + Send>>;

/// Serves `Follow`.
pub(super) struct Follow {
    identities: Identities,
    outbox: Arc<Outbox>,
    keys: Arc<Keys>,
    epochs: Arc<Epochs>,
    roster: Arc<Roster>,
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Follow {
    pub(super) fn new(
        identities: Identities,
        outbox: Arc<Outbox>,
        keys: Arc<Keys>,
        epochs: Arc<Epochs>,
        fleet: Arc<Fleet>,
        shutdown: CancellationToken,
    ) -> Self {
        let roster = Roster::new(fleet);
        Self { identities, outbox, keys, epochs, roster, room: Arc::new(Semaphore::new(STREAMS)), shutdown }
    }

    pub(super) async fn follow(
        &self,
        request: Request<Streaming<proto::FromGateway>>,
    ) -> Result<Response<Messages>, Status> {
        let token = bearer(&request).ok_or(super::identity::Refused::NoToken)?;
        let caller = self.identities.authenticate(token).await?;
        let full = || Status::resource_exhausted("this replica serves as many gateways as it may: try another");
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(|_| full())?;

        let place = self.roster.take(&caller);
        let ended = place.ended.clone();
        let (greeted, greeting) = oneshot::channel();
        let (certificates, to_send) = mpsc::channel(CERTIFICATES);
        let keys = Arc::clone(&self.keys);
        let listener = Listener { caller: caller.clone(), place, keys, certificates, greeted: Some(greeted) };
        tokio::spawn(listener.run(request.into_inner()));

        let speaker = Speaker {
            parcels: self.outbox.subscribe(&caller.target),
            judgements: self.outbox.judgements(),
            identities: self.identities.clone(),
            keys: Arc::clone(&self.keys),
            epochs: Arc::clone(&self.epochs),
            caller,
            greeting: Some(greeting),
            delivery: Delivery::new(None),
            certificates: to_send,
            until: Instant::now() + lifetime(),
            ended,
            shutdown: self.shutdown.clone(),
            _permit: permit,
        };
        let messages = stream::unfold(Some(speaker), |speaker| async move {
            let mut speaker = speaker?;
            match speaker.next().await {
                Some(Ok(message)) => Some((Ok(message), Some(speaker))),
                Some(Err(status)) => Some((Err(status), None)),
                None => None,
            }
        });
        Ok(Response::new(messages.boxed()))
    }
}

/// The bearer token of a call.
pub(super) fn bearer<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

fn lifetime() -> Duration {
    let mut random = [0; 4];
    // Without randomness streams end together, which is a burst and no harm.
    let share = aws_lc_rs::rand::fill(&mut random).map_or(0.0, |()| f64::from(u32::from_le_bytes(random)));
    LIFE + MORE_LIFE.mul_f64(share / f64::from(u32::MAX))
}

/// What a gateway says first.
struct Greeting {
    floor: Option<Version>,
}

/// The listening half.
struct Listener {
    caller: Caller,
    place: Place,
    keys: Arc<Keys>,
    certificates: mpsc::Sender<proto::Certificate>,
    greeted: Option<oneshot::Sender<Result<Greeting, Status>>>,
}

impl Listener {
    /// Reads until the gateway, a newer stream of it, or the speaking half ends.
    async fn run(mut self, mut messages: Streaming<proto::FromGateway>) {
        let ended = self.place.ended.clone();
        let outcome = tokio::select! {
            () = ended.cancelled() => Ok(()),
            outcome = self.listen(&mut messages) => outcome,
        };
        if let Err(status) = outcome {
            let Caller { target, name, .. } = &self.caller;
            tracing::info!(
                namespace = target.namespace, server = target.server, pod = name, %status,
                "a gateway's stream broke off"
            );
            if let Some(greeted) = self.greeted.take() {
                let _ = greeted.send(Err(status)); // Whoever is gone needs no answer.
            }
        }
    }

    async fn listen(&mut self, messages: &mut Streaming<proto::FromGateway>) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO, messages.message());
        let first = first.await.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(from_gateway::Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        // The Fleet has the same one: it is copied where the next message changes it.
        let mut told = Arc::new(self.greet(hello)?);
        self.place.report(&told);
        let mut chunks = Chunks::default();
        while let Some(message) = messages.message().await? {
            let mut report = Report::clone(&told);
            match message.message {
                Some(from_gateway::Message::Hello(_)) => {
                    return Err(Status::invalid_argument("a second hello"));
                }
                Some(from_gateway::Message::Ack(ack)) => {
                    report.acked = Some(acked(ack)?);
                    report.refused = None;
                }
                Some(from_gateway::Message::Nack(nack)) => {
                    let error = if nack.error.is_empty() { "no reason was given".to_owned() } else { nack.error };
                    report.refused = Some(cut(error, TEXT));
                }
                Some(from_gateway::Message::Offer(chunk)) => match chunks.take(chunk) {
                    Some(offer) => report.catalogue = Some(Arc::new(offer)),
                    None => continue,
                },
                Some(from_gateway::Message::Isolation(proto::Isolation { isolated, found })) => {
                    report.is_isolated = Some(isolated);
                    report.exposed = (!isolated).then(|| cut(found, TEXT));
                }
                Some(from_gateway::Message::CertificateRequest(request)) => {
                    let certificate = self.certify(&request.csr);
                    // The gateway is not read further until there is room: it waits for what it asked for.
                    if self.certificates.send(certificate).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                // A message of a newer gateway: what it adds, this version cannot know.
                None => continue,
            }
            told = Arc::new(report);
            self.place.report(&told);
        }
        Ok(())
    }

    fn greet(&mut self, hello: proto::Hello) -> Result<Report, Status> {
        let proto::Hello { namespace, server, program, format: _, understands: _, version, hash } = hello;
        let target = &self.caller.target;
        if (namespace.as_str(), server.as_str()) != (target.namespace.as_str(), target.server.as_str()) {
            return Err(Status::permission_denied("a gateway gets the policy of its own server alone"));
        }
        let floor = version.map(version_of).transpose()?;
        // Without a hash nothing is in force yet, however much it knows.
        let acked = floor.clone().filter(|_| !hash.is_empty());
        let acked = acked.map(|version| Acked { version, hash: cut(hash, TEXT) });
        if let Some(greeted) = self.greeted.take() {
            let _ = greeted.send(Ok(Greeting { floor })); // The speaking half is gone: so will this one be.
        }
        Ok(Report { pod: self.caller.uid.clone(), program: cut(program, TEXT), acked, ..Report::default() })
    }

    fn certify(&self, request: &[u8]) -> proto::Certificate {
        match self.keys.gateway_certificate(&self.caller.target, request, Timestamp::now()) {
            Ok(chain) => proto::Certificate { chain, error: String::new() },
            Err(error) => proto::Certificate { chain: String::new(), error: error.to_string() },
        }
    }
}

fn acked(proto::Ack { version, hash }: proto::Ack) -> Result<Acked, Status> {
    Ok(Acked { version: version_of(version.unwrap_or_default())?, hash: cut(hash, TEXT) })
}

fn version_of(version: proto::Version) -> Result<Version, Status> {
    version.try_into().map_err(|error: crate::wire::VersionError| Status::invalid_argument(error.to_string()))
}

/// The speaking half.
struct Speaker {
    parcels: Parcels,
    judgements: watch::Receiver<u64>,
    identities: Identities,
    keys: Arc<Keys>,
    epochs: Arc<Epochs>,
    caller: Caller,
    greeting: Option<oneshot::Receiver<Result<Greeting, Status>>>,
    delivery: Delivery,
    certificates: mpsc::Receiver<proto::Certificate>,
    until: Instant,
    ended: CancellationToken,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Speaker {
    /// The next message; `None` at the end of the stream's life.
    async fn next(&mut self) -> Option<Result<proto::ToGateway, Status>> {
        if let Some(greeting) = self.greeting.take() {
            match greeting.await {
                Ok(Ok(Greeting { floor })) => self.delivery = Delivery::new(floor),
                Ok(Err(status)) => return Some(Err(status)),
                Err(_) => return None,
            }
        }
        loop {
            let parcel = self.parcels.borrow_and_update().clone();
            let mut is_behind = false;
            self.judgements.borrow_and_update();
            if let Some(parcel) = parcel {
                // Its Pod may be gone, or be another server's by now.
                if !self.identities.is_current(&self.caller) {
                    return Some(Err(super::identity::Refused::UnknownPod.into()));
                }
                match self.delivery.next(&parcel, self.keys.signer()) {
                    Next::Snapshot(sealed) => return Some(snapshot(sealed)),
                    Next::Still(version) => return Some(Ok(to(to_gateway::Message::Still(version.as_ref().into())))),
                    Next::Nothing => {}
                    Next::Behind => {
                        is_behind = true;
                        if let Some(floor) = self.delivery.floor() {
                            self.epochs.claim(&self.caller.target, floor);
                        }
                    }
                }
            }
            tokio::select! {
                changed = self.parcels.changed() => changed.ok()?,
                changed = self.judgements.changed(), if is_behind => changed.ok()?,
                certificate = self.certificates.recv() => {
                    // The listening half is gone, and with it the gateway.
                    return Some(Ok(to(to_gateway::Message::Certificate(certificate?))));
                }
                () = self.ended.cancelled() => return None,
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
            }
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.ended.cancel(); // The listening half ends with this one.
    }
}

fn to(message: to_gateway::Message) -> proto::ToGateway {
    proto::ToGateway { message: Some(message) }
}

/// The sealed bytes are an encoded `Signed`; it is taken apart without a copy.
fn snapshot(sealed: bytes::Bytes) -> Result<proto::ToGateway, Status> {
    let signed = <proto::Signed as prost::Message>::decode(sealed);
    let signed = signed.map_err(|_| Status::internal("the snapshot was not sealed rightly"))?;
    Ok(to(to_gateway::Message::Snapshot(signed)))
}
