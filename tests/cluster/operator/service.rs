//! Stands for a Service: one port, behind which whoever listens gets the next connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Forwards connections to the ports behind it, one after the other, as long as the test's runtime lives.
pub(crate) async fn serve(port: u16, behind: &[u16]) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    let behind: Arc<[u16]> = behind.into();
    tokio::spawn(async move {
        let next = Arc::new(AtomicUsize::new(0));
        while let Ok((mut caller, _)) = listener.accept().await {
            let (behind, next) = (behind.clone(), next.clone());
            tokio::spawn(async move {
                for _ in 0..behind.len() {
                    let port = behind[next.fetch_add(1, Ordering::Relaxed) % behind.len()];
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut caller, &mut server).await; // Either side may break off.
                        return;
                    }
                }
            });
        }
    });
}
