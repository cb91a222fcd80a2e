//! What the gateway itself says to a child: `initialize` for pooled ones, `server/discover` to learn the era.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout;

use super::child::Child;
use super::{Bounds, UpstreamError};
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::era::{LEGACY, MODERN};
use crate::gateway::protocol::json::{members, range_in, splice};

/// The `InitializeResult` of a pooled child, to be repeated for its clients.
#[derive(Debug)]
pub(super) struct Greeting {
    result: String,
}

/// Initialises a child as the gateway: latest legacy revision, no capabilities, so that a server which keeps to the
/// specification asks nothing of callers that it cannot tell apart.
pub(super) async fn initialize(child: &Arc<Child>, bounds: &Bounds) -> Result<Greeting, UpstreamError> {
    let answer = child.ask(&hello()?, bounds.start).await?;
    let text = String::from_utf8_lossy(&answer);
    let Some(result) = result_of(&text) else {
        let why = members(&text).and_then(|all| all.into_iter().find(|(key, _)| key == "error"));
        let why = why.map_or("no result", |(_, raw)| raw.get());
        return Err(UpstreamError::Garbage(format!("it refused initialize: {why}")));
    };
    child.notify(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()).await?;
    Ok(Greeting { result: result.to_owned() })
}

/// Learns the era of a fresh child. `Ok(false)`: legacy.
///
/// Silence is not taken for an old server while a launcher may still be downloading it: after [`Bounds::probe`]
/// `initialize` is asked as well, and the first answer tells.
pub(super) async fn is_modern(child: &Arc<Child>, bounds: &Bounds) -> Result<bool, UpstreamError> {
    let (discover, hello) = (discover()?, hello()?);
    let mut asked = Box::pin(child.ask(&discover, bounds.start));
    if let Ok(answer) = timeout(bounds.probe, &mut asked).await {
        return Ok(is_result(&answer?));
    }
    tokio::select! {
        biased;
        answer = asked => Ok(is_result(&answer?)),
        answer = child.ask(&hello, bounds.start) => answer.map(|_| false),
    }
}

/// Whether a response is a result, not an error.
pub(super) fn is_result(response: &[u8]) -> bool {
    result_of(&String::from_utf8_lossy(response)).is_some()
}

impl Greeting {
    /// Answers a client's `initialize` with what the server once said, in the client's revision if the gateway knows
    /// it and it is no newer than the server's: legacy revisions only added to each other.
    pub(super) fn repeat_for(&self, message: &Envelope) -> Result<Bytes, UpstreamError> {
        let id = message.id().ok_or(UpstreamError::Gone)?;
        let version = |text: &str| {
            let raw = members(text)?.into_iter().find(|(key, _)| key == "protocolVersion")?.1;
            Some((serde_json::from_str::<String>(raw.get()).ok()?, range_in(text, raw.get())))
        };
        let age = |version: &str| LEGACY.iter().position(|known| *known == version);
        let mut result = self.result.clone();
        if let (Some((asked, _)), Some((said, range))) = (message.params().and_then(version), version(&self.result))
            && let (Some(theirs), Some(ours)) = (age(&asked), age(&said))
            && theirs > ours
        {
            result = splice(&result, &[(range, format!("\"{asked}\""))]);
        }
        Ok(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into())
    }
}

fn result_of(text: &str) -> Option<&str> {
    members(text)?.into_iter().find(|(key, _)| key == "result").map(|(_, raw)| raw.get())
}

fn hello() -> Result<Envelope, UpstreamError> {
    ours(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{}}}}}"#,
        LEGACY[0],
        info()
    ))
}

fn discover() -> Result<Envelope, UpstreamError> {
    ours(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{}}}}}}}"#,
        info()
    ))
}

fn info() -> String {
    format!(r#"{{"name":"toolgate","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}

fn ours(text: String) -> Result<Envelope, UpstreamError> {
    Envelope::parse_trusting(text.into()).map_err(|error| UpstreamError::Garbage(error.to_string()))
}
