//! What a server asks its caller in an answer: `inputRequests` of a round trip (2026-07-28) or of a task, and the error
//! that asks for a URL to be opened (2025-11-25).

use serde_json::value::RawValue;

use super::fields::{self, Unclear, present};
use super::json::members;

/// URL elicitation required (MCP 2025-11-25).
const URL_REQUIRED: f64 = -32042.0;

/// Checks that `inputRequests`, if it is there, is an object of requests that no reader could read otherwise.
pub fn check(requests: Option<&RawValue>) -> Result<Option<&RawValue>, Unclear> {
    let Some(requests) = present(requests) else { return Ok(None) };
    for (_, request) in members(requests.get()).ok_or(Unclear::Other("inputRequests is no object"))? {
        let [method, params] = fields::read(request.get(), &["method", "params"])?;
        if method.is_none_or(|method| serde_json::from_str::<String>(method.get()).is_err()) {
            return Err(Unclear::Other("a method of inputRequests is no string"));
        }
        if let Some(params) = present(params) {
            fields::read(params.get(), &["mode"])?;
        }
    }
    Ok(Some(requests))
}

/// Whether an error response, JSON text, asks for a URL to be opened.
pub fn asks_for_url(response: &str) -> Result<bool, Unclear> {
    let [error] = fields::read(response, &["error"])?;
    let Some(error) = error.filter(|error| error.get().starts_with('{')) else { return Ok(false) };
    let [code] = fields::read(error.get(), &["code"])?;
    Ok(code.is_some_and(|code| code.get().trim_matches('"').parse() == Ok(URL_REQUIRED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<bool, Unclear> {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        check(Some(&raw)).map(|requests| requests.is_some())
    }

    #[test]
    fn input_requests_that_readers_could_read_otherwise_are_refused() {
        for text in [
            "[]",
            r#"[{"method":"sampling/createMessage"}]"#,
            "\"x\"",
            "7",
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":{"method":7}}"#,
            r#"{"a":{"method":"elicitation/create","method":"sampling/createMessage"}}"#,
            r#"{"a":{"method":"elicitation/create","Method":"sampling/createMessage"}}"#,
            r#"{"a":{"method":"elicitation/create","params":{"mode":"form","mode":"url"}}}"#,
            r#"{"a":{"method":"elicitation/create","params":{},"params":{"mode":"url"}}}"#,
            r#"{"a":{"method":"elicitation/create","params":[{"mode":"url"}]}}"#,
        ] {
            assert!(checked(text).is_err(), "{text}");
        }
        assert_eq!(checked(r#"{"a":{"method":"roots/list"},"b":{"method":"x","params":null}}"#), Ok(true));
        assert_eq!(checked("null"), Ok(false), "absent to every reader");
    }

    #[test]
    fn the_error_that_asks_for_a_url_is_found_however_its_code_is_written() {
        for code in ["-32042", "-32042.0", "-3.2042e4", "\"-32042\""] {
            assert_eq!(asks_for_url(&format!(r#"{{"error":{{"code":{code}}}}}"#)), Ok(true), "{code}");
        }
        assert_eq!(asks_for_url(r#"{"error":{"code":-32602}}"#), Ok(false));
        assert_eq!(asks_for_url(r#"{"error":"-32042"}"#), Ok(false));
        assert!(asks_for_url(r#"{"error":{"code":1,"code":-32042}}"#).is_err());
    }
}
