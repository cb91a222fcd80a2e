//! Any bytes are one message or an error; what was found in a message lies where it says, and means what it says.

#![no_main]
#![allow(clippy::panic)] // A panic is how a finding is told.

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use toolgate::gateway::protocol::envelope::{Envelope, Kind};
use toolgate::json::without_halves;

fuzz_target!(|body: &[u8]| {
    let body = Bytes::copy_from_slice(body);
    let Ok(envelope) = Envelope::parse(body.clone()) else { return };

    // An independent parser agrees on every field that policy will read. Of halves of surrogate pairs it knows nothing.
    let text = std::str::from_utf8(&body).unwrap_or_else(|error| panic!("accepted, but no UTF-8: {error}"));
    let whole = without_halves(text);
    let whole = whole.as_deref().unwrap_or(text);
    assert_eq!(whole.len(), text.len());
    let message: Value = serde_json::from_str(whole).unwrap_or_else(|error| panic!("accepted, but no JSON: {error}"));
    let object = message.as_object().unwrap_or_else(|| panic!("accepted, but no object"));
    assert_eq!(envelope.bytes(), &body, "the bytes stay as they came");
    assert_eq!(object.get("jsonrpc"), Some(&Value::from("2.0")));
    if envelope.kind != Kind::Response {
        assert_eq!(object.get("method").and_then(Value::as_str), Some(envelope.method.as_str()));
    }
    assert_eq!(object.contains_key("id") && !object["id"].is_null(), envelope.id().is_some());
    let params = object.get("params").filter(|params| !params.is_null());
    let field = |key: &str| params.and_then(|params| params.get(key)).filter(|value| !value.is_null());
    assert_eq!(field("name").and_then(Value::as_str), envelope.name.as_deref());
    assert_eq!(field("uri").and_then(Value::as_str), envelope.uri.as_deref());
    assert_eq!(field("taskId").and_then(Value::as_str), envelope.task.as_deref());
    for (key, text) in [("arguments", envelope.arguments()), ("_meta", envelope.meta())] {
        let parsed = text.map(|text| {
            let whole = without_halves(text);
            let whole = whole.as_deref().unwrap_or(text);
            serde_json::from_str::<Value>(whole).unwrap_or_else(|error| panic!("{key}: {error}"))
        });
        assert_eq!(field(key), parsed.as_ref().filter(|value| !value.is_null()), "{key}");
    }
});
