//! With real processes: `tests/servers/scripted.py` does what a test asks of it.

use std::path::Path;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::*;

/// Small enough to wait for, large enough for a busy machine.
const BOUNDS: Bounds = Bounds {
    children: 3,
    children_per_caller: 3,
    spare: Duration::from_mins(10),
    sessions: 8,
    child_idle: Duration::from_mins(10),
    session_idle: Duration::from_mins(10),
    start: Duration::from_secs(20),
    probe: Duration::from_secs(10),
    idle: Duration::from_secs(20),
    write: Duration::from_millis(500),
    grace: Duration::from_millis(500),
    message: 100_000,
};

fn config(sessions: Sessions, flags: &[&str]) -> Config {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/scripted.py");
    let mut command = vec!["python3".to_owned(), "-S".to_owned(), script.to_string_lossy().into_owned()];
    command.extend(flags.iter().map(|&flag| flag.to_owned()));
    let env = BTreeMap::from([("DECLARED".to_owned(), "yes".to_owned())]);
    let run = Run::Command(Command { command, env, directory: std::env::temp_dir() });
    Config { name: "scripted".to_owned(), run, sessions, children: Children::default() }
}

fn upstream(sessions: Sessions, flags: &[&str], bounds: Bounds) -> StdioUpstream {
    StdioUpstream::bounded(config(sessions, flags), bounds).unwrap()
}

fn per_client(flags: &[&str]) -> StdioUpstream {
    upstream(Sessions::PerClient, flags, BOUNDS)
}

/// One client: its caller, its session, its era.
#[derive(Clone)]
struct Client<'a> {
    upstream: &'a StdioUpstream,
    caller: Option<Arc<str>>,
    session: Option<Arc<str>>,
    era: Era,
}

impl<'a> Client<'a> {
    fn new(upstream: &'a StdioUpstream, caller: &str) -> Self {
        let caller = (!caller.is_empty()).then(|| caller.into());
        Self { upstream, caller, session: None, era: Era::Legacy }
    }

    async fn with_session(upstream: &'a StdioUpstream, caller: &str) -> Self {
        let mut client = Self::new(upstream, caller);
        let reply = client.post(INITIALIZE).await.unwrap();
        client.session = Some(reply.session.expect("a session"));
        client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.unwrap();
        client
    }

    async fn send(&self, verb: Verb) -> Result<Reply, UpstreamError> {
        let (caller, session) = (self.caller.clone(), self.session.clone());
        self.upstream.send(Outbound { verb, era: self.era, caller, session, headers: HeaderMap::new() }).await
    }

    async fn post(&self, message: &str) -> Result<Reply, UpstreamError> {
        self.send(Verb::Post(Envelope::parse(message.to_owned().into()).unwrap())).await
    }

    /// Calls a tool and collects the messages of the answer.
    async fn messages(&self, id: &str, tool: &str, arguments: Value) -> Result<Vec<Value>, UpstreamError> {
        collect(self.post(&call(id, tool, &arguments)).await?.content).await
    }

    /// Calls a tool that answers at once.
    async fn call(&self, tool: &str, arguments: Value) -> Result<Value, UpstreamError> {
        let mut messages = self.messages("1", tool, arguments).await?;
        Ok(messages.pop().expect("an answer")["result"].take())
    }

    async fn pid(&self) -> i64 {
        self.call("echo", json!({})).await.unwrap()["pid"].as_i64().unwrap()
    }

    async fn get(&self) -> EventStream {
        match self.send(Verb::Get).await.unwrap().content {
            Content::Events(events) => events,
            _ => panic!("no events"),
        }
    }
}

async fn collect(content: Content) -> Result<Vec<Value>, UpstreamError> {
    match content {
        Content::Json(text) => Ok(vec![serde_json::from_slice(&text).unwrap()]),
        Content::Events(mut events) => {
            let mut found = Vec::new();
            while let Some(event) = events.next().await {
                found.push(data(event?));
            }
            Ok(found)
        }
        Content::Empty | Content::Opaque(_) => panic!("no answer"),
    }
}

fn data(event: Event) -> Value {
    assert!(event.is_message(), "{event:?}");
    serde_json::from_slice(&event.data.unwrap()).unwrap()
}

fn call(id: &str, tool: &str, arguments: &Value) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments},"_meta":{{"progressToken":"tok"}}}}}}"#
    )
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}"#;

/// Waits for something that another task or process is about to do.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process exists, running or as a zombie.
fn exists(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Processes, zombies included, of the group of `leader`.
fn group_of(leader: i64) -> Vec<i64> {
    let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let group = |stat: String| stat.rsplit(") ").next()?.split(' ').nth(2)?.parse::<i64>().ok();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|pid| stat(pid).and_then(group) == Some(leader))
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

mod answers;
mod fairness;
mod lifetimes;
mod sharing;
