//! Connections of the test client: in the clear, or over TLS to a name that leads where a test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use hyper::Uri;
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes in both directions.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// `HOST:PORT` to where it leads, and the authority (PEM) that must vouch for it, if any must.
static ROUTES: LazyLock<Mutex<Routes>> = LazyLock::new(Mutex::default);
type Routes = HashMap<String, (SocketAddr, Option<String>)>;

/// From now on `https://AUTHORITY` leads there.
pub fn route(authority: &str, to: SocketAddr, ca_pem: Option<&str>) {
    ROUTES.lock().insert(authority.to_owned(), (to, ca_pem.map(str::to_owned)));
}

/// Connects as a URL says.
pub async fn connect(uri: &Uri) -> Pin<Box<dyn Wire>> {
    let authority = uri.authority().expect("an absolute URL");
    if uri.scheme_str() != Some("https") {
        return Box::pin(TcpStream::connect(authority.as_str()).await.expect("the server listens"));
    }
    let (to, ca) = ROUTES.lock().get(authority.as_str()).cloned().expect("a route");
    let name = ServerName::try_from(authority.host().to_owned()).expect("a name");
    let stream = TcpStream::connect(to).await.expect("the server listens");
    let connector = TlsConnector::from(Arc::new(config(ca.as_deref())));
    Box::pin(connector.connect(name, stream).await.expect("TLS with a certificate that is trusted"))
}

/// Whether TLS succeeds if this authority alone is trusted.
pub async fn is_vouched_for(authority: &str, ca_pem: &str) -> bool {
    let (to, _) = ROUTES.lock().get(authority).cloned().expect("a route");
    let host = authority.split(':').next().expect("a host").to_owned();
    let stream = TcpStream::connect(to).await.expect("the server listens");
    let connector = TlsConnector::from(Arc::new(config(Some(ca_pem))));
    connector.connect(ServerName::try_from(host).expect("a name"), stream).await.is_ok()
}

fn config(ca_pem: Option<&str>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    match ca_pem {
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)).with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a certificate");
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    }
}

/// Trusts anybody: for what is not about certificates.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
