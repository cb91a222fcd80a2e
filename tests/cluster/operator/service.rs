//! Stands for a Service, or for the way to one: a port, behind which one of several addresses gets each connection. It
//! can be moved to others, and held, as a network does that loses everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Largest piece that is passed on at once, in bytes.
const PIECE: usize = 16 << 10;

/// Forwards connections to the addresses behind it, one after the other, as long as the test's runtime lives.
pub(crate) struct Service {
    route: watch::Sender<Route>,
}

#[derive(Clone)]
struct Route {
    behind: Arc<[String]>,
    /// Connections of an earlier move are over.
    moves: usize,
    is_held: bool,
}

impl Service {
    /// Listens on a port of 127.0.0.1, in front of addresses `HOST:PORT`.
    pub(crate) async fn start(port: u16, behind: &[String]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let route = watch::Sender::new(Route { behind: behind.into(), moves: 0, is_held: false });
        let routes = route.subscribe();
        tokio::spawn(async move {
            let next = Arc::new(AtomicUsize::new(0));
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(connect(caller, routes.clone(), next.clone()));
            }
        });
        Self { route }
    }

    /// Sends new connections to these addresses alone, and ends those that stand.
    pub(crate) fn move_to(&self, behind: &[String]) {
        self.route.send_modify(|route| {
            route.behind = behind.into();
            route.moves += 1;
        });
    }

    /// Whether nothing passes: connections stand, and both sides are silent.
    pub(crate) fn hold(&self, is_held: bool) {
        self.route.send_modify(|route| route.is_held = is_held);
    }
}

/// `127.0.0.1:PORT`.
pub(crate) fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

async fn connect(caller: TcpStream, routes: watch::Receiver<Route>, next: Arc<AtomicUsize>) {
    let Route { behind, moves, .. } = routes.borrow().clone();
    for _ in 0..behind.len() {
        let address = &behind[next.fetch_add(1, Ordering::Relaxed) % behind.len()];
        let Ok(server) = TcpStream::connect(address).await else { continue };
        let ((from_caller, to_caller), (from_server, to_server)) = (caller.into_split(), server.into_split());
        let both = async {
            tokio::join!(pass(from_caller, to_server, routes.clone()), pass(from_server, to_caller, routes.clone()))
        };
        let mut until = routes.clone();
        tokio::select! {
            _ = both => {} // Either side may break off.
            _ = until.wait_for(|route| route.moves != moves) => {}
        }
        return;
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut routes: watch::Receiver<Route>,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece).await?;
        let _ = routes.wait_for(|route| !route.is_held).await; // Its sender is gone with the test.
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..count]).await?;
    }
}
