//! One exchange, from the first byte to the last: the order of the layers is the order of this file.
//!
//! listen -> authenticate -> envelope -> session -> authorize => permit -> audit -> forward -> deliver

use std::sync::Arc;

use futures::stream::pending;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::audit::Busy;
use super::body::Body;
use super::endpoint::{Caller, Endpoint, Force, OpenStream};
use super::layers::authorize::{self, Asked};
use super::layers::deliver::{Delivery, Purpose, refuse};
use super::layers::early::Early;
use super::layers::forward::Sending;
use super::layers::lasting::lasting;
use super::layers::list_changes::Subscription;
use super::layers::pending::Awaited;
use super::layers::record::Recorder;
use super::layers::session::Session;
use super::layers::{authenticate, input_round, listen};
use super::protocol::envelope::{Envelope, Kind};
use super::protocol::era::Era;
use super::protocol::error::{REQUEST, Reject, upstream_label};
use super::protocol::headers::{self, LAST_EVENT, SESSION};
use super::protocol::methods::{self, Class};
use super::server::Shared;
use super::upstream::{Content, Reply, Verb};
use super::{limits, memory};

/// Answers one HTTP request. Never fails: what goes wrong is an answer too.
pub(super) async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let mut response = answer(shared, head, &mut body).await;
    if !listen::discard(&mut body).await {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(shared: Arc<Shared>, head: Parts, body: &mut Incoming) -> Response<Body> {
    let request_id = shared.request_ids.next();
    let early = Early { shared: &shared, head: &head, request_id: &request_id, started: Instant::now() };
    if let Err(reject) = listen::check_size(&head).and_then(|()| shared.hosts.check(&head.headers)) {
        return early.refuse(&reject, None, None);
    }
    let (endpoint, metadata) = match find(&shared, head.uri.path()) {
        Ok(found) => found,
        Err(reject) => return early.refuse(&reject, None, None),
    };
    let Some(force) = endpoint.force.load_full() else {
        // No policy is not "allow".
        return early.refuse(&Reject::not_ready("no policy is in force yet"), Some(&endpoint), None);
    };
    if metadata {
        return early.serve(&endpoint, &force, authenticate::document(&force, &head));
    }
    let verb = match head.method {
        Method::POST => "POST",
        Method::GET => "GET",
        Method::DELETE => "DELETE",
        _ => {
            let reject = Reject::http(StatusCode::METHOD_NOT_ALLOWED, "only POST, GET and DELETE are served here")
                .with_header(header::ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
            return early.refuse(&reject, Some(&endpoint), Some(&force));
        }
    };
    let record = Recorder::start(&shared, request_id, verb, endpoint.clone(), force.clone());
    let exchange = Exchange { shared, endpoint, force, head, record };
    exchange.run(body).await
}

fn unrecorded(_: Busy) -> Reject {
    Reject::not_ready("the audit log cannot take another record")
}

/// The endpoint that a path names, and whether its metadata is asked for.
fn find(shared: &Shared, path: &str) -> Result<(Arc<Endpoint>, bool), Reject> {
    let at = if shared.sole.is_some() { "/mcp" } else { "/servers/NAME/mcp" };
    let nothing = || Reject::http(StatusCode::NOT_FOUND, format!("nothing is served here; try {at}"));
    let page = match &shared.sole {
        Some(server) => listen::sole_page(path, server),
        None => listen::page(path),
    };
    let (name, metadata) = match page {
        Some(listen::Page::Mcp(name)) => (name, false),
        Some(listen::Page::Metadata(name)) => (name, true),
        None => return Err(nothing()),
    };
    let endpoint = shared.endpoints.load().get(name).cloned().ok_or_else(nothing)?;
    Ok((endpoint, metadata))
}

struct Exchange {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    force: Arc<Force>,
    head: Parts,
    record: Recorder,
}

/// A message on its way to the server and back.
struct Way {
    caller: Caller,
    session: Option<Arc<Session>>,
    era: Era,
    id: Option<String>,
    purpose: Purpose,
    open: Option<OpenStream>,
    subscription: Option<Subscription>,
    awaited: Option<Awaited>,
}

impl Exchange {
    async fn run(mut self, body: &mut Incoming) -> Response<Body> {
        let forwarded = match authenticate::caller(&self.shared.metrics, &self.force, &self.head).await {
            Err(reject) => Err(reject),
            Ok(caller) => {
                match (self.record.caller(&caller).await.map_err(unrecorded), &self.head.method) {
                    (Err(reject), _) => Err(reject), // What cannot be audited does not happen.
                    (Ok(()), &Method::POST) => self.post(caller, body).await,
                    (Ok(()), &Method::GET) => self.get(caller).await,
                    (Ok(()), _) => self.delete(caller).await,
                }
            }
        };
        match forwarded {
            Err(reject) => refuse(self.record, &reject),
            Ok((way, reply)) => {
                Delivery {
                    endpoint: self.endpoint,
                    force: self.force,
                    caller: way.caller,
                    session: way.session,
                    era: way.era,
                    id: way.id,
                    purpose: way.purpose,
                    open: way.open,
                    subscription: way.subscription,
                    awaited: way.awaited,
                    record: self.record,
                }
                .deliver(reply)
                .await
            }
        }
    }

    /// The caller under the policy that is enforced now. What was acknowledged is enforced for every decision made
    /// afterwards, and another policy may have been acknowledged while a body trickled in or keys were fetched; its
    /// issuers need not trust the token any more.
    async fn renew(&mut self, mut caller: Caller) -> Result<Caller, Reject> {
        loop {
            match self.endpoint.force.load_full() {
                Some(force) if !Arc::ptr_eq(&force, &self.force) => {
                    self.record.policy(&force);
                    self.force = force;
                    caller = authenticate::caller(&self.shared.metrics, &self.force, &self.head).await?;
                    self.record.renewed(&caller);
                }
                _ => break,
            }
        }
        self.endpoint.check_link(&self.force)?; // A policy that may be out of date and then denies, denies.
        Ok(caller)
    }

    /// One message from the client.
    async fn post(&mut self, caller: Caller, body: &mut Incoming) -> Result<(Way, Reply), Reject> {
        listen::check_type(&self.head)?;
        let whole = listen::read(body, memory::budget(), caller.key().cloned()).await?;
        let caller = self.renew(caller).await?;
        let message = Envelope::parse(whole)?;
        self.record.message(&message);
        let era = headers::agree(&self.head.headers, &message)?;
        let session = self.session(&caller, era)?;
        if message.kind == Kind::Response {
            return self.answer(caller, session, message).await;
        }
        let class = methods::from_client(&message.method, message.kind, era)
            .ok_or_else(|| Reject::unknown_method(&message.method, message.kind, era))?;
        self.record.class(class);
        self.record.trace(&self.head.headers);
        if class == Class::Initialize {
            self.endpoint.sessions.check_room(&caller)?;
        }
        let (open, subscription) = match class {
            Class::Listen => {
                let subscription = Subscription::listen(message.id(), message.params());
                (Some(self.open_stream(&caller)?), Some(subscription))
            }
            _ => (None, None),
        };
        let asked = Asked { endpoint: &self.endpoint, force: &self.force, caller: &caller, head: &self.head, era };
        if session.is_none() || class == Class::Initialize {
            authorize::admit(&asked, (class, message.kind), &mut self.record)?;
        }
        let id = message.id().map(str::to_owned);
        let permit = authorize::authorize(&asked, class, message, &mut self.record)?;
        let purpose = permit.purpose().clone();
        let awaited = match (&session, &id) {
            (Some(session), Some(id)) => Some(Awaited::begin(session, id, purpose.clone())?),
            _ => None,
        };
        let sent = self.announce_and_send(&caller, session.as_ref(), era, permit).await;
        if let (Err(_), Some(awaited)) = (&sent, &awaited) {
            awaited.answered(); // The caller gets an error.
        }
        Ok((Way { caller, session, era, id, purpose, open, subscription, awaited }, sent?))
    }

    async fn announce_and_send(
        &mut self,
        caller: &Caller,
        session: Option<&Arc<Session>>,
        era: Era,
        permit: authorize::Permit,
    ) -> Result<Reply, Reject> {
        if era == Era::Modern {
            input_round::record_answers(&self.record).await?;
        }
        if !permit.read_only() {
            self.record.intent().await.map_err(unrecorded)?;
        }
        let trace = self.record.outgoing();
        self.sending(caller, session, era).permitted(permit, trace).await
    }

    /// The client's answer to a request from the server: only to one that was asked, in that session.
    async fn answer(
        &mut self,
        caller: Caller,
        session: Option<Arc<Session>>,
        message: Envelope,
    ) -> Result<(Way, Reply), Reject> {
        let nobody = || Reject::malformed(REQUEST, "no request of the server waits for this answer");
        let session = session.ok_or_else(nobody)?;
        if !message.id().is_some_and(|id| session.answered(id)) {
            return Err(nobody());
        }
        let reply = self.sending(&caller, Some(&session), Era::Legacy).in_session(Verb::Post(message)).await?;
        Ok((Way::plain(caller, session), reply))
    }

    /// The stream of a session.
    async fn get(&mut self, caller: Caller) -> Result<(Way, Reply), Reject> {
        let caller = self.renew(caller).await?;
        let session = self.session(&caller, Era::Legacy)?.ok_or_else(no_stream)?;
        if let Some(event) = headers::single(&self.head.headers, &LAST_EVENT)?
            && !session.has_seen(event.as_bytes())
        {
            if !session.had_seen(event.as_bytes()) {
                return Err(Reject::malformed(REQUEST, "Last-Event-ID is no event that this session saw lately"));
            }
            self.head.headers.remove(LAST_EVENT); // The server's new session cannot resume the old one's stream.
        }
        let open = self.open_stream(&caller)?;
        let sending = self.sending(&caller, Some(&session), Era::Legacy);
        let mut reply = sending.in_session(Verb::Get).await?;
        if reply.status == StatusCode::METHOD_NOT_ALLOWED {
            // The server has nothing to say on its own, but the gateway may: it declares that lists change.
            reply = Reply { status: StatusCode::OK, content: Content::Events(Box::pin(pending())), ..reply };
        }
        if let Content::Events(events) = reply.content {
            let (anew, headers) = (sending.anew(&session), sending.stream_headers());
            reply.content = Content::Events(lasting(anew, headers, session.life.upstream(), events));
        }
        let subscription = Some(Subscription::session());
        Ok((Way { open: Some(open), subscription, ..Way::plain(caller, session) }, reply))
    }

    /// The end of a session.
    async fn delete(&mut self, caller: Caller) -> Result<(Way, Reply), Reject> {
        let caller = self.renew(caller).await?;
        let session = self.session(&caller, Era::Legacy)?.ok_or_else(no_stream)?;
        // The client's word is enough. A server that does not end sessions on demand (405) ends its own in its time.
        self.endpoint.sessions.remove(&session.id);
        let ended = self.sending(&caller, Some(&session), Era::Legacy).end(&session).await;
        if !ended.as_ref().is_ok_and(|reply| reply.status.is_success()) {
            let status = ended.as_ref().ok().map(|reply| reply.status.as_u16());
            tracing::debug!(server = %self.endpoint.name, status, "a session that is over was not ended at its server");
        }
        if let Err(error) = ended {
            self.force.metrics.upstream_error(upstream_label(&error));
        }
        Ok((Way::plain(caller, session), Reply::empty(StatusCode::OK)))
    }

    /// The session that the request names. The modern era has none, and its header is ignored.
    fn session(&self, caller: &Caller, era: Era) -> Result<Option<Arc<Session>>, Reject> {
        if era == Era::Modern {
            return Ok(None);
        }
        let id = headers::single(&self.head.headers, &SESSION)?;
        id.map(|id| self.endpoint.sessions.find(id, caller)).transpose()
    }

    fn sending<'a>(&'a self, caller: &'a Caller, session: Option<&'a Arc<Session>>, era: Era) -> Sending<'a> {
        Sending {
            endpoint: &self.endpoint,
            force: &self.force,
            caller,
            session,
            era,
            head: &self.head,
            audit: &self.shared.audit,
            request_id: self.record.request_id(),
        }
    }

    fn open_stream(&self, caller: &Caller) -> Result<OpenStream, Reject> {
        self.endpoint.streams.open(caller).ok_or_else(|| {
            let message = format!("at most {} streams for one caller: close one", limits::STREAMS_PER_CALLER);
            Reject::limited_for(message, None) // No time frees one.
        })
    }
}

impl Way {
    fn plain(caller: Caller, session: Arc<Session>) -> Self {
        Self {
            caller,
            session: Some(session),
            era: Era::Legacy,
            id: None,
            purpose: Purpose::Plain,
            open: None,
            subscription: None,
            awaited: None,
        }
    }
}

/// GET and DELETE without a session: what a server without sessions answers.
fn no_stream() -> Reject {
    Reject::http(StatusCode::METHOD_NOT_ALLOWED, "GET and DELETE need a session")
        .with_header(header::ALLOW, HeaderValue::from_static("POST"))
}
