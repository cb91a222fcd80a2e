use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tower_service::Service as _;

use super::*;
use crate::gateway::audit::Sink;
use crate::gateway::lookup::Lookups;
use crate::gateway::reach::{Connector, Reach};
use crate::gateway::upstream::{Config, http};
use crate::gateway::{Settings, limits};
use crate::policy::snapshot::{FORMAT, ServerRequests};
use crate::telemetry::traces::Tracer;
use crate::wire::{Signer, seal};

fn snapshot() -> Snapshot {
    let snapshot = json!({
        "format": FORMAT, "target": {"namespace": "agents", "server": "github"},
        "urls": ["https://github.agents.svc/mcp"], "registration": "Auto",
        "serverRequests": ServerRequests::default(), "tools": [], "roles": [], "issuers": [], "inputs": [],
    });
    serde_json::from_value(snapshot).unwrap()
}

/// With a runtime as the programs have it, but for a single thread for blocking work: whoever shares it, waits.
#[test]
fn a_snapshot_is_in_force_within_a_second_while_200_calls_wait_for_a_resolver_that_hangs() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    let (release, hangs) = mpsc::channel::<()>();
    runtime.block_on(async {
        let (hangs, asked) = (Mutex::new(hangs), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let lookups = Lookups::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.lock().recv();
            Ok(Vec::new())
        });
        let connector = Connector::with(Reach::NETWORKS, lookups, |_| {});
        let calls: Vec<_> = (0..200)
            .map(|call| {
                let to = format!("http://host{}.example/", call % 20).parse().unwrap();
                tokio::spawn(connector.clone().call(to))
            })
            .collect();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }

        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            admin: None,
            audit: Sink::File(folder.path().join("audit")),
            allow_local_fetch: false,
            tracer: Tracer::off(),
            hosts: Vec::new(),
            memory: None,
            tls: None,
            sole: Some("github".to_owned()),
        });
        let gateway = gateway.await.unwrap();
        let upstream = http::Config { url: "http://127.0.0.1:1/mcp".to_owned(), ca: None, reach: Reach::MACHINE };
        gateway.put_server("github", Config::Http(upstream)).await.unwrap();
        let signer = Signer::from_seed(&[7; 32]).unwrap();
        let sealed = seal(&snapshot(), &Version::default(), &[], &signer).unwrap();
        let state = State::open(&folder.path().join("state")).unwrap();
        let key = signer.verify_key().unwrap();
        let mut keeper = Keeper::new(&gateway, snapshot().target, key, state.clone());
        let begun = Instant::now();

        keeper.consider(&sealed).await.unwrap();

        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(state.read(LAST, SEALED_BYTES).await.unwrap(), Some(sealed), "it is written down as well");
        assert!(asked.load(Ordering::SeqCst) <= limits::LOOKUP_THREADS, "lookups are bounded, and one for each name");
        assert!(calls.iter().all(|call| !call.is_finished()));
        // Whoever goes away is not held by the thread that asks for it.
        for call in calls {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
    });
    drop(release);
}
