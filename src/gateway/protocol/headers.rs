//! Header rules of 2026-07-28 (SEP-2243): `Mcp-Method` and `Mcp-Name` must say what the body says.
//!
//! Headers are never trusted: policy reads the body. They are compared before anything is rewritten, because a
//! rewritten message would launder a mismatch.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::envelope::{Envelope, Kind};
use super::era::{self, Era};
use super::json;

/// `MCP-Protocol-Version`.
pub const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`.
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// `Mcp-Method`.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`.
pub const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// `X-Accel-Buffering`.
pub const ACCEL: HeaderName = HeaderName::from_static("x-accel-buffering");
/// `_meta` member that repeats the version.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Why headers and body do not fit.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// -32020.
    #[error("{0}")]
    Header(String),
    /// -32022.
    #[error("unsupported protocol version {0:?}")]
    Version(String),
}

/// Era of a message, after its headers were compared with its body.
pub fn agree(headers: &HeaderMap, message: &Envelope) -> Result<Era, Mismatch> {
    let version = single(headers, &VERSION)?;
    let claimed = message.meta().and_then(json::members).and_then(|members| {
        let raw = members.iter().find(|(key, _)| key == META_VERSION)?.1;
        serde_json::from_str::<String>(raw.get()).ok()
    });
    let era = match (version, claimed.as_deref()) {
        (Some(header), Some(body)) if header != body => {
            return Err(Mismatch::Header(format!("MCP-Protocol-Version is {header:?}, the body says {body:?}")));
        }
        (None, Some(body)) if !era::LEGACY.contains(&body) => {
            return Err(Mismatch::Header("MCP-Protocol-Version is missing".to_owned()));
        }
        (version, _) => era::of_header(version).map_err(|unknown| Mismatch::Version(unknown.0))?,
    };
    let name = named(message);
    let said_method = single(headers, &METHOD)?;
    let said_name = single(headers, &NAME)?.map(decode).transpose()?;
    let required = era == Era::Modern && message.kind == Kind::Request;
    match said_method {
        None if required => return Err(Mismatch::Header("Mcp-Method is missing".to_owned())),
        Some(said) if message.kind != Kind::Response && said != message.method => {
            return Err(Mismatch::Header(format!("Mcp-Method is {said:?}, the body says {:?}", message.method)));
        }
        _ => {}
    }
    match (said_name, name) {
        (None, Some(_)) if required => Err(Mismatch::Header("Mcp-Name is missing".to_owned())),
        (Some(said), Some(name)) if said != name => {
            Err(Mismatch::Header(format!("Mcp-Name is {said:?}, the body says {name:?}")))
        }
        _ => Ok(era),
    }
}

/// The value that `Mcp-Name` repeats for this method.
pub fn named(message: &Envelope) -> Option<&str> {
    match message.method.as_str() {
        "tools/call" | "prompts/get" => message.name.as_deref(),
        "resources/read" => message.uri.as_deref(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => message.task.as_deref(),
        _ => None,
    }
}

/// The one value of a header. Repeated headers are refused: two readers could take different ones.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Mismatch> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Mismatch::Header(format!("{name} is repeated")));
    }
    first.map(|value| value.to_str().map_err(|_| Mismatch::Header(format!("{name} is not visible ASCII")))).transpose()
}

/// Decodes a header value, with the base64 sentinel of SEP-2243.
fn decode(value: &str) -> Result<String, Mismatch> {
    let Some(inner) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(value.to_owned());
    };
    let bytes = BASE64_STANDARD.decode(inner).map_err(|_| Mismatch::Header("Mcp-Name is not base64".to_owned()))?;
    String::from_utf8(bytes).map_err(|_| Mismatch::Header("Mcp-Name is not UTF-8".to_owned()))
}

/// Encodes a name for `Mcp-Name`.
pub fn encode(name: &str) -> Option<HeaderValue> {
    let plain = name.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && name.trim() == name
        && !(name.starts_with("=?base64?") && name.ends_with("?="));
    let text = if plain { name.to_owned() } else { format!("=?base64?{}?=", BASE64_STANDARD.encode(name)) };
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str) -> Envelope {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
        );
        Envelope::parse(body.into()).unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn agreeing_headers_make_a_modern_message() {
        let sent = headers(&[
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?w6Rw?="),
        ]);

        assert_eq!(agree(&sent, &call(r#""\u00e4p""#)), Ok(Era::Modern));
    }

    #[test]
    fn a_name_that_differs_from_the_body_is_refused() {
        let sent =
            headers(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "harmless")]);

        assert!(matches!(agree(&sent, &call("\"delete\"")), Err(Mismatch::Header(_))));
    }

    #[test]
    fn a_modern_body_without_or_with_a_legacy_version_header_is_refused() {
        for sent in [headers(&[]), headers(&[("mcp-protocol-version", "2025-11-25")])] {
            assert!(matches!(agree(&sent, &call("\"a\"")), Err(Mismatch::Header(_))));
        }
    }

    #[test]
    fn a_repeated_header_is_refused() {
        let mut sent = headers(&[("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")]);
        sent.append(NAME, HeaderValue::from_static("a"));
        sent.append(NAME, HeaderValue::from_static("b"));

        assert!(matches!(agree(&sent, &call("\"a\"")), Err(Mismatch::Header(_))));
    }

    #[test]
    fn names_survive_encoding() {
        for name in ["plain", " padded ", "\u{fc}ml", "=?base64?x?=", "line\nbreak"] {
            assert_eq!(decode(encode(name).unwrap().to_str().unwrap()).unwrap(), name);
        }
    }
}
