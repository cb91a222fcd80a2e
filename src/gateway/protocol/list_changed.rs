//! `list_changed`: what the gateway promises and says of it by itself.
//!
//! What a caller may see changes with policy, whatever the server does. So the gateway declares the capability where
//! the server has such lists, acknowledges it on listen streams that ask, and writes the notification. Owns the bytes;
//! when to say it is the layer's.

use super::json::{self, members, range_in, splice};
use super::methods::List;

/// The kinds of lists of which a change is announced. Templates are announced with resources.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `notifications/tools/list_changed`.
    Tools,
    /// `notifications/prompts/list_changed`.
    Prompts,
    /// `notifications/resources/list_changed`.
    Resources,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    /// The kind that announces changes of this list.
    pub const fn of(list: List) -> Self {
        match list {
            List::Tools => Self::Tools,
            List::Prompts => Self::Prompts,
            List::Resources | List::Templates => Self::Resources,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
        }
    }

    /// Its member in the filter of `subscriptions/listen` (2026-07-28).
    const fn filter(self) -> &'static str {
        match self {
            Self::Tools => "toolsListChanged",
            Self::Prompts => "promptsListChanged",
            Self::Resources => "resourcesListChanged",
        }
    }

    /// The notification as JSON text. `subscription` is the JSON-RPC id of the listen request (2026-07-28).
    pub fn notification(self, subscription: Option<&str>) -> String {
        let params = subscription.map_or_else(String::new, |id| {
            format!(r#","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#)
        });
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/{}/list_changed"{params}}}"#, self.name())
    }
}

/// The result of `initialize` or `server/discover` with `listChanged: true` for each list that the server has; `None`
/// if it says so already.
pub fn declare(result: &str) -> Option<String> {
    let all = members(result)?;
    let (_, capabilities) = all.iter().find(|(key, _)| key == "capabilities")?;
    let declared = members(capabilities.get())?;
    let mut edits = Vec::new();
    for (_, capability) in declared.iter().filter(|(key, _)| Kind::ALL.iter().any(|kind| kind.name() == key)) {
        if let Some(changed) = with_true(capability.get(), "listChanged") {
            edits.push((range_in(result, capability.get()), changed));
        }
    }
    (!edits.is_empty()).then(|| splice(result, &edits))
}

/// The kinds that the parameters of `subscriptions/listen` ask for.
pub fn asked(params: &str) -> Vec<Kind> {
    let filter = members(params).and_then(|all| {
        all.iter().find(|(key, _)| key == "notifications").and_then(|(_, filter)| members(filter.get()))
    });
    let asks = |kind: &Kind| filter.iter().flatten().any(|(key, raw)| key == kind.filter() && raw.get() == "true");
    Kind::ALL.into_iter().filter(asks).collect()
}

/// `notifications/subscriptions/acknowledged` with the kinds that were asked for; `None` if they are in it already.
pub fn acknowledge(message: &str, asked: &[Kind]) -> Option<String> {
    let all = members(message)?;
    let (_, params) = all.iter().find(|(key, _)| key == "params")?;
    let params = members(params.get())?;
    let (_, filter) = params.iter().find(|(key, _)| key == "notifications")?;
    let mut text = filter.get().to_owned();
    for kind in asked {
        text = with_true(&text, kind.filter()).unwrap_or(text);
    }
    (text != filter.get()).then(|| splice(message, &[(range_in(message, filter.get()), text)]))
}

/// An object with `key: true` in it; `None` if that is so already, or if it is no object.
fn with_true(object: &str, key: &str) -> Option<String> {
    let all = members(object)?;
    match all.iter().find(|(known, _)| known == key) {
        Some((_, value)) if value.get() == "true" => None,
        Some((_, value)) => Some(splice(object, &[(range_in(object, value.get()), "true".to_owned())])),
        None => {
            let body = object.trim_end().strip_suffix('}')?;
            let comma = if all.is_empty() { "" } else { "," };
            Some(format!("{body}{comma}{}:true}}", json::quote(key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_the_server_has_are_declared_to_change_and_no_others() {
        let result = r#"{"protocolVersion":"x","capabilities":{"tools":{}, "prompts" : {"listChanged":false,"a":1e2},"logging":{}}}"#;

        assert_eq!(
            declare(result).unwrap(),
            r#"{"protocolVersion":"x","capabilities":{"tools":{"listChanged":true}, "prompts" : {"listChanged":true,"a":1e2},"logging":{}}}"#
        );
        assert_eq!(declare(r#"{"capabilities":{"resources":{"subscribe":true,"listChanged":true}}}"#), None);
        assert_eq!(declare(r#"{"capabilities":{}}"#), None);
        assert_eq!(declare(r#"{"capabilities":{"tools":3}}"#), None);
    }

    #[test]
    fn a_listen_stream_is_told_of_what_it_asked_for_only() {
        let params =
            r#"{"notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":[]}}"#;
        assert_eq!(asked(params), [Kind::Tools]);
        assert_eq!(asked("{}"), []);

        let ack = r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"resourceSubscriptions":["a"]},"_meta":{}}}"#;
        assert_eq!(
            acknowledge(ack, &[Kind::Tools]).unwrap(),
            ack.replace(r#"["a"]}"#, r#"["a"],"toolsListChanged":true}"#)
        );
        assert_eq!(acknowledge(ack, &[]), None);
    }

    #[test]
    fn the_notification_names_its_subscription() {
        assert_eq!(Kind::Tools.notification(None), r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
        assert_eq!(
            Kind::Resources.notification(Some("\"a\"")),
            r#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"a"}}}"#
        );
    }
}
