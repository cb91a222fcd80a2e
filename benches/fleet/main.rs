//! A thousand gateways that are not there: each speaks the policy stream as a gateway does, and loads what it gets.
//!
//! Owns the load on a control plane: objects, the pods that no kubelet runs, one stream for each. Decides no calls.
//! `control_plane.py` starts what is measured and says what to do, one word a line on standard input; each is answered
//! with one line of JSON.
//!
//! ```text
//! bench-fleet --namespace NS --servers N --tools N --policy-server URL
//! create      objects, pods and streams, until every object is Accepted and Programmed   {"seconds": …}
//! edit N      N edits of a role that concerns every server, every second one a revocation: milliseconds from the
//!             API server's answer until the last gateway enforces it              {"ms": […]}
//! verify      until every gateway is connected again and every object is still Programmed  {"seconds": …}
//! ```
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a bench: what fails ends it")]

mod api;
mod gateway;

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;

use clap::Parser;
use serde_json::{Value, json};
use tokio::time::Instant;
use toolgate::api::{McpGateway, McpRole, McpServer, McpTool};

use api::Cluster;
use gateway::Fleet;

/// What is simulated.
#[derive(Clone, Parser)]
struct Arguments {
    /// Where the objects are.
    #[arg(long)]
    namespace: String,
    /// How many McpServers, each with one gateway.
    #[arg(long)]
    servers: usize,
    /// How many McpTools each has.
    #[arg(long)]
    tools: usize,
    /// What gateways dial.
    #[arg(long)]
    policy_server: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("the first provider");
    let arguments = Arguments::parse();
    let cluster = Cluster::new(kube::Client::try_default().await?, &arguments.namespace);
    let fleet = Arc::new(Fleet::new(arguments.servers));
    let lines = std::io::stdin().lock().lines();
    for line in lines {
        let line = line?;
        let answer = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["create"] => create(&arguments, &cluster, &fleet).await?,
            ["edit", count] => edit(&cluster, &fleet, count.parse()?).await?,
            ["verify"] => verify(&arguments, &cluster, &fleet).await?,
            _ => anyhow::bail!("unknown word: {line}"),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn create(arguments: &Arguments, cluster: &Cluster, fleet: &Arc<Fleet>) -> anyhow::Result<Value> {
    let start = Instant::now();
    cluster.declare(arguments.servers, arguments.tools).await?;
    let declared = start.elapsed();
    let pods = cluster.pods(arguments.servers).await?;
    let trust = cluster.trust().await?;
    fleet.start(cluster, &arguments.policy_server, &trust, pods, arguments.tools);
    programmed(arguments, cluster).await?;
    Ok(json!({"seconds": seconds(start), "declared_seconds": declared.as_secs_f64()}))
}

async fn edit(cluster: &Cluster, fleet: &Fleet, count: usize) -> anyhow::Result<Value> {
    let mut taken = Vec::new();
    for number in 0..count {
        let generation = cluster.edit_role(number % 2 == 0).await?;
        let start = Instant::now();
        let last = fleet.enforced(generation).await?;
        taken.push(last.saturating_duration_since(start).as_secs_f64() * 1e3);
    }
    Ok(json!({"ms": taken}))
}

async fn verify(arguments: &Arguments, cluster: &Cluster, fleet: &Fleet) -> anyhow::Result<Value> {
    let start = Instant::now();
    fleet.connected().await?;
    programmed(arguments, cluster).await?;
    Ok(json!({"seconds": seconds(start)}))
}

/// Waits until everything is in force.
async fn programmed(arguments: &Arguments, cluster: &Cluster) -> anyhow::Result<()> {
    let Arguments { servers, tools, .. } = *arguments;
    cluster.programmed::<McpServer>(servers).await?;
    cluster.programmed::<McpTool>(servers * tools).await?;
    cluster.programmed::<McpRole>(1).await?;
    cluster.programmed::<McpGateway>(1).await
}

fn seconds(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 10.0).round() / 10.0
}
