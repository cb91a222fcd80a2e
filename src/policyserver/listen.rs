//! TLS for the policy stream: connections in, with a certificate that renews itself.
//!
//! The certificate is issued by the CA of [`Keys`] when the process starts, and again long before it ends. Connections
//! that stand keep the one that they began with.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use jiff::Timestamp;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::keys::{Keys, KeysError, SERVER_LIFE};

/// Handshakes at one time; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Connections at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 24_000;
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Pause after the kernel refuses a connection, most likely for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The TLS library refuses its own certificate.
    #[error("failed to set up TLS")]
    Tls(#[from] rustls::Error),
}

/// The certificate that is shown now.
pub(super) struct Certificate {
    keys: Arc<Keys>,
    hosts: Vec<String>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

impl Certificate {
    /// A certificate for these DNS names and addresses.
    pub(super) fn issue(keys: Arc<Keys>, hosts: Vec<String>) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(certified(&keys, &hosts)?);
        Ok(Arc::new(Self { keys, hosts, current }))
    }

    /// Renews it after two thirds of its life, until `shutdown`.
    pub(super) async fn renew(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SERVER_LIFE * 2 / 3) => {}
                () = shutdown.cancelled() => return,
            }
            match certified(&self.keys, &self.hosts) {
                Ok(renewed) => *self.current.write() = renewed,
                Err(error) => tracing::error!(%error, "the certificate of the policy server was not renewed"),
            }
        }
    }

    /// TLS 1.3 and 1.2 as the library sees fit, HTTP/2 alone.
    pub(super) fn acceptor(self: Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certified(keys: &Keys, hosts: &[String]) -> Result<Arc<CertifiedKey>, TlsError> {
    let made = keys.server_certificate(hosts, Timestamp::now())?;
    let key = PrivateKeyDer::Pkcs8(made.key.into());
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(made.certificate)], key)))
}

/// A connection, and its place among [`CONNECTIONS`].
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {} // Callers are known by their tokens alone.
}

/// Connections whose handshake is done. A slow one holds nobody up. Ends with `shutdown`.
pub(super) fn connections(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let (done, ready) = mpsc::channel(1);
    tokio::spawn(accept(listener, acceptor, done, shutdown));
    stream::unfold(ready, |mut ready| async move { Some((Ok(ready.recv().await?), ready)) })
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    done: mpsc::Sender<Connection>,
    shutdown: CancellationToken,
) {
    let (handshakes, places) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let next = async {
            let handshake = Arc::clone(&handshakes).acquire_owned().await;
            let place = Arc::clone(&places).acquire_owned().await;
            (handshake, place, listener.accept().await)
        };
        let (permit, place, accepted) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => return,
        };
        let connection = match accepted {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = place else { return }; // Nobody closes the semaphore.
        let _ = connection.set_nodelay(true); // A hint.
        let (handshake, done) = (acceptor.accept(connection), done.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => {
                    let connection = Connection { stream, _place: place };
                    let _ = done.send(connection).await; // The server is gone: so is the connection.
                }
                Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
                Err(_) => tracing::debug!("a handshake took too long"),
            }
            drop(permit);
        });
    }
}
