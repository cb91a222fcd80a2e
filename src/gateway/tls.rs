//! TLS towards callers, and until when somebody vouches for it. Laptops have none, so that none of its code is in what
//! is built for them.

#[cfg(feature = "sidecar")]
mod served {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use jiff::Timestamp;
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream;

    /// TLS towards callers.
    #[derive(Clone)]
    pub struct Tls {
        /// With the certificate in use.
        pub config: Arc<rustls::ServerConfig>,
        /// Unix time, in seconds, until which somebody vouches for that certificate; in the past if nobody does. From
        /// then on the gateway is not ready, because callers that check find nobody whom they trust.
        pub vouched_until: Arc<AtomicI64>,
    }

    impl Tls {
        pub(in crate::gateway) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
        where
            S: AsyncRead + AsyncWrite + Unpin,
        {
            TlsAcceptor::from(self.config.clone()).accept(stream).await
        }

        pub(in crate::gateway) fn is_vouched_for(&self) -> bool {
            Timestamp::now().as_second() < self.vouched_until.load(Ordering::Relaxed)
        }
    }
}

#[cfg(not(feature = "sidecar"))]
mod served {
    use std::io;

    /// TLS towards callers: never there.
    #[derive(Clone)]
    pub enum Tls {}

    impl Tls {
        #[allow(clippy::unused_async)] // The same shape as where there is TLS.
        pub(in crate::gateway) async fn accept<S>(&self, _: S) -> io::Result<S> {
            match *self {}
        }

        pub(in crate::gateway) fn is_vouched_for(&self) -> bool {
            match *self {}
        }
    }
}

pub use served::Tls;
