//! Servers that run elsewhere: a gateway with a Deployment of its own, in front of a Service or of a URL.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::client::{Caller, UNKNOWN_TOOL};
use super::kubelet::Pod;
use super::process::{Process, free_port};
use super::world::{Server, World, declared};
use crate::harness::eventually;

/// The server cannot be reached, or what it says is no MCP.
const UNAVAILABLE: i64 = -31003;
/// Where clouds keep the credentials of a machine.
const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

/// A world in which `tickets` is what that source says, and `caller` may use `ok`.
async fn world(source: &str) -> (World, Process) {
    let world = World::new().await;
    let operator = world.operator().await;
    world.apply(&declared("tickets", &format!("{{source: {source}}}"))).await;
    world.apply_role("callers", "caller", "ok").await;
    (world, operator)
}

/// A gateway that enforces, whatever is behind it. Its pod is Ready: a gateway waits only for a server in its own pod, for
/// which it must take what is on loopback here.
async fn gateway(world: &World, pod: &Pod) -> (Process, Caller) {
    let mut gateway = pod.start_gateway(world).await;
    gateway.answers(pod.admin, "/startupz").await;
    pod.mark(&world.space.api(), true).await;
    world.condition("McpServer", "tickets", "Programmed", "True").await;
    (gateway, world.caller("caller", "tickets", pod.port).await)
}

/// What is allowed passes, what is not never arrives, and status says that all is well.
async fn is_governed(world: &World, caller: &Caller, server: &Server) {
    assert_eq!(caller.call("ok").await.text(), "ok {}");
    assert_eq!(caller.call("secret").await.refusal(), UNKNOWN_TOOL);
    let stranger = world.token("default", &caller.url, None).await;
    assert_eq!(caller.with_token(stranger).call("ok").await.refusal(), UNKNOWN_TOOL);
    assert_eq!((server.calls("ok"), server.calls("secret")), (1, 0));
    world.condition("McpServer", "tickets", "Discovered", "True").await;
    let isolated = world.condition("McpServer", "tickets", "Isolated", "Unknown").await;
    assert_eq!(isolated["reason"], "NotInThePod", "{isolated}");
    world.condition("McpServer", "tickets", "Ready", "True").await;
}

/// It does not answer: status says why, and so much is told to callers.
async fn is_unavailable(world: &World, caller: &Caller, why: &str) {
    let discovered = world.condition("McpServer", "tickets", "Discovered", "False").await;
    assert_eq!(discovered["reason"], "NoAnswer", "{discovered}");
    assert!(discovered["message"].as_str().unwrap().contains(why), "{discovered}");
    world.condition("McpServer", "tickets", "Ready", "False").await;
    assert_eq!(caller.call("ok").await.refusal().1, UNAVAILABLE);
    assert_eq!(caller.call("secret").await.refusal(), UNKNOWN_TOOL, "what is not allowed is refused in any case");
}

/// A Service of somebody else.
async fn apply_service(world: &World) {
    world
        .apply(
            r"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8000}]}
",
        )
        .await;
}

#[tokio::test]
async fn a_service_is_governed_by_a_gateway_in_front_of_it() {
    let (world, _operator) = world("{service: {name: web, port: 80}}").await;
    let resolved = world.condition("McpServer", "tickets", "ResolvedRefs", "False").await;
    assert!(resolved["message"].as_str().unwrap().contains("`web` does not exist"), "{resolved}");
    apply_service(&world).await;
    world.condition("McpServer", "tickets", "ResolvedRefs", "True").await;

    let server = Server::start(&world, "web");
    let pod = Pod::of(&world, "tickets").await.with_name(&format!("web.{}.svc:80", world.space.name()), server.port);
    let (_gateway, caller) = gateway(&world, &pod).await;

    is_governed(&world, &caller, &server).await;
}

#[tokio::test]
async fn a_service_without_endpoints_is_told_and_used_as_soon_as_it_has_one() {
    let (world, _operator) = world("{service: {name: web, port: 80}}").await;
    apply_service(&world).await;
    // Nobody listens there, as behind the address of a Service without endpoints.
    let port = free_port();
    let pod = Pod::of(&world, "tickets").await.with_name(&format!("web.{}.svc:80", world.space.name()), port);
    let (_gateway, caller) = gateway(&world, &pod).await;
    is_unavailable(&world, &caller, "refused").await;

    let server = Server::at(&world, "web", port, "honest");
    eventually("be used", async || caller.call("ok").await.is_result().then_some(())).await;
    world.condition("McpServer", "tickets", "Ready", "True").await;
    assert_eq!(server.calls("secret"), 0);
}

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// TLS in front of a port, with a certificate for that name; the port where it listens.
    async fn serve(&self, name: &str, behind: u16) -> u16 {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![leaf.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Whoever does not trust the certificate breaks off here.
                    let Ok(mut caller) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                    let _ = copy_bidirectional(&mut caller, &mut server).await; // Either side may.
                });
            }
        });
        port
    }
}

/// A remote with a certificate of its own authority, of which the gateway is told this one.
async fn remote(trusted: &Authority, name: &str, authority: &Authority) -> (World, Process, Server) {
    let world = World::new().await;
    let server = Server::start(&world, "remote");
    let port = authority.serve(name, server.port).await;
    let bundle = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp"}, "data": {"ca.pem": trusted.pem},
    });
    world.apply(&bundle.to_string()).await;
    let operator = world.operator().await;
    let source = json!({"remote": {
        "url": format!("https://localhost:{port}/mcp"), "caBundle": {"configMapRef": {"name": "corp", "key": "ca.pem"}},
    }});
    world.apply(&declared("tickets", &json!({"source": source}).to_string())).await;
    world.apply_role("callers", "caller", "ok").await;
    (world, operator, server)
}

#[tokio::test]
async fn a_remote_with_a_private_certificate_is_governed_by_a_gateway_in_front_of_it() {
    let authority = Authority::new();
    let (world, _operator, server) = remote(&authority, "localhost", &authority).await;
    let pod = Pod::of(&world, "tickets").await;
    let (_gateway, caller) = gateway(&world, &pod).await;

    is_governed(&world, &caller, &server).await;
}

#[tokio::test]
async fn a_remote_with_a_wrong_certificate_gets_nothing_and_is_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (trusted, name) in [(&other, "localhost"), (&authority, "mcp.example.com")] {
        let (world, _operator, server) = remote(trusted, name, &authority).await;
        let pod = Pod::of(&world, "tickets").await;
        let (_gateway, caller) = gateway(&world, &pod).await;

        is_unavailable(&world, &caller, "certificate").await;
        assert_eq!(server.calls("ok"), 0, "{name}");
    }
}

#[tokio::test]
async fn a_remote_that_redirects_to_the_metadata_service_is_not_followed_and_told() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let redirect = async || (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, METADATA)]);
    tokio::spawn(axum::serve(listener, axum::Router::new().fallback(redirect)).into_future());
    let (world, _operator) = world(&format!("{{remote: {{url: 'http://localhost:{port}/mcp'}}}}")).await;
    let pod = Pod::of(&world, "tickets").await;
    let (_gateway, caller) = gateway(&world, &pod).await;

    is_unavailable(&world, &caller, "redirects are not followed").await;
}
