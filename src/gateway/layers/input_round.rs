//! What a server asks inside a result, and what its caller answers in the next request (MCP 2026-07-28, multi round-trip
//! requests). Each question and each answer has its audit line, as requests of a server have in earlier revisions.

use serde_json::value::RawValue;

use super::deliver::{Delivery, not_asked};
use super::from_server::forbidden_input;
use super::record::Recorder;
use crate::gateway::audit::Busy;
use crate::gateway::limits;
use crate::gateway::protocol::envelope::Envelope;
use crate::gateway::protocol::error::{PARAMS, Reject};
use crate::gateway::protocol::json::members;
use crate::gateway::upstream::{Reached, UpstreamError};

const ANSWERS: &str = "inputResponses";

/// Why a question was refused.
pub(super) const FORBIDDEN: &str = "policy does not let this server ask that";

impl Delivery {
    /// Records one question. One that cannot be recorded must not reach the caller.
    pub(super) fn record_question(&self, method: &str, refused: Option<&str>) -> Result<(), Reject> {
        let recorded = self.record.input_request(method, refused);
        recorded.map_err(|Busy| Reject::not_ready("the audit log cannot take another record").reached(Reached::Yes))
    }

    /// Records what a result asks of the caller. A question that policy forbids or that cannot be recorded must not
    /// reach the caller, and neither does the rest of the result.
    pub(super) fn record_input_requests(&self, requests: &RawValue) -> Result<(), Reject> {
        let forbidden = forbidden_input(self.current().0.policy.snapshot().server_requests, requests);
        let mut asked: Vec<String> = members(requests.get())
            .unwrap_or_default()
            .iter()
            .map(|(_, raw)| text_in(raw.get(), "method").unwrap_or_default())
            .collect();
        if asked.len() > limits::INPUT_REQUESTS {
            let most = limits::INPUT_REQUESTS;
            let error = UpstreamError::Garbage(format!("it asks more than {most} things at once"));
            return Err(Reject::from(error).reached(Reached::Yes));
        }
        if let Some(method) = &forbidden
            && !asked.contains(method)
        {
            asked.push(method.clone()); // What cannot be read as questions was refused all the same.
        }
        for method in &asked {
            let refused = forbidden
                .as_ref()
                .map(|forbidden| if forbidden == method { FORBIDDEN } else { "what it came with was refused" });
            self.record_question(method, refused)?;
        }
        match forbidden {
            None => Ok(()),
            Some(method) => Err(not_asked(&method)),
        }
    }
}

/// Records the answers in a request, before it is sent. What cannot be recorded is not sent.
pub(in crate::gateway) async fn record_answers(record: &Recorder) -> Result<(), Reject> {
    let Some(answers) = record.received().map(answers).transpose()?.filter(|answers| !answers.is_empty()) else {
        return Ok(());
    };
    for Answer { key, method, action } in answers {
        let reason = action.map_or_else(|| "answered".to_owned(), |action| format!("answered: {action}"));
        let recorded = record.input_answer(method, &key, &reason).await;
        recorded.map_err(|Busy| Reject::not_ready("the audit log cannot take another record"))?;
    }
    Ok(())
}

/// One of the answers in a request.
#[derive(Debug, Eq, PartialEq)]
struct Answer {
    /// The server's name for its question.
    key: String,
    /// What was asked, as far as its answer tells.
    method: &'static str,
    /// What the user did with a form or a URL.
    action: Option<String>,
}

fn answers(message: &Envelope) -> Result<Vec<Answer>, Reject> {
    // Almost no request has any: without the word, and without an escape that could hide it, nothing is parsed again.
    let bytes = message.text().as_bytes();
    if memchr::memmem::find(bytes, ANSWERS.as_bytes()).is_none() && memchr::memchr(b'\\', bytes).is_none() {
        return Ok(Vec::new());
    }
    let params = message.params().and_then(members).unwrap_or_default();
    let Some(found) = params.iter().find(|(key, _)| key == ANSWERS).and_then(|(_, raw)| members(raw.get())) else {
        return Ok(Vec::new());
    };
    if found.len() > limits::INPUT_REQUESTS {
        let most = limits::INPUT_REQUESTS;
        return Err(Reject::malformed(PARAMS, format!("invalid params: at most {most} {ANSWERS}")));
    }
    let answer = |(key, raw): (std::borrow::Cow<'_, str>, &RawValue)| {
        let has = |name: &str| members(raw.get()).is_some_and(|all| all.iter().any(|(key, _)| key == name));
        let method = match () {
            () if has("action") => "elicitation/create",
            () if has("roots") => "roots/list",
            () if has("role") || has("model") => "sampling/createMessage",
            () => "unknown",
        };
        let action = text_in(raw.get(), "action").filter(|text| ["accept", "decline", "cancel"].contains(&&**text));
        Answer { key: key.into_owned(), method, action }
    };
    Ok(found.into_iter().map(answer).collect())
}

fn text_in(object: &str, name: &str) -> Option<String> {
    let raw = members(object)?.into_iter().find(|(key, _)| key == name)?.1;
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(params: &str) -> Envelope {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        Envelope::parse(text.into()).unwrap()
    }

    #[test]
    fn every_answer_is_found_however_its_key_is_spelled() {
        for key in ["inputResponses", "inputRespons\\u0065s"] {
            let found = answers(&request(&format!(
                r#"{{"name":"a","{key}":{{"form":{{"action":"accept","content":{{}}}},"dirs":{{"roots":[]}},
                "say":{{"role":"assistant","content":{{}}}},"odd":7}}}}"#
            )))
            .unwrap();
            let shown: Vec<_> = found.iter().map(|it| (it.key.as_str(), it.method, it.action.as_deref())).collect();
            assert_eq!(
                shown,
                [
                    ("form", "elicitation/create", Some("accept")),
                    ("dirs", "roots/list", None),
                    ("say", "sampling/createMessage", None),
                    ("odd", "unknown", None)
                ],
                "{key}"
            );
        }
        assert_eq!(answers(&request(r#"{"name":"a","arguments":{"inputResponses":{"x":{}}}}"#)).unwrap(), []);
    }

    #[test]
    fn answers_are_bounded() {
        let many: Vec<String> = (0..=limits::INPUT_REQUESTS).map(|at| format!(r#""{at}":{{}}"#)).collect();
        let error = answers(&request(&format!(r#"{{"inputResponses":{{{}}}}}"#, many.join(",")))).unwrap_err();
        assert_eq!(error.code, PARAMS);
    }
}
