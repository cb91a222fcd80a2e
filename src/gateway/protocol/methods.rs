//! One table: method × era → class. A method that is not in it is refused.
//!
//! The class says what policy a message needs; nothing else in the gateway looks at a method's name to decide that.

use super::envelope::Kind;
use super::era::Era;

/// What kind of message it is, in the eyes of policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Opens a legacy session.
    Initialize,
    /// Asks what the server can do: allowed to every caller that was let in.
    Discover,
    /// Concerns the connection itself: allowed to every caller that was let in.
    Session,
    /// A list, filtered by what the caller may use.
    List(List),
    /// Uses a tool.
    Tool,
    /// Uses a prompt.
    Prompt,
    /// Reads or watches a resource.
    Resource,
    /// Completes an argument of a prompt or a template.
    Complete,
    /// Asks about a task; only its creator may.
    Task,
    /// Opens a stream of notifications.
    Listen,
}

/// The four lists.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum List {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

struct Row {
    method: &'static str,
    kind: Kind,
    legacy: bool,
    modern: bool,
    class: Class,
}

const fn row(method: &'static str, kind: Kind, legacy: bool, modern: bool, class: Class) -> Row {
    Row { method, kind, legacy, modern, class }
}

const REQUEST: Kind = Kind::Request;
const NOTICE: Kind = Kind::Notification;

/// Messages that a client may send. Busiest first.
#[rustfmt::skip]
const FROM_CLIENT: [Row; 24] = [
    //  method                              kind     legacy modern class
    row("tools/call",                       REQUEST, true,  true,  Class::Tool),
    row("tools/list",                       REQUEST, true,  true,  Class::List(List::Tools)),
    row("initialize",                       REQUEST, true,  false, Class::Initialize),
    row("notifications/initialized",        NOTICE,  true,  false, Class::Session),
    row("ping",                             REQUEST, true,  false, Class::Session),
    row("server/discover",                  REQUEST, false, true,  Class::Discover),
    row("prompts/list",                     REQUEST, true,  true,  Class::List(List::Prompts)),
    row("prompts/get",                      REQUEST, true,  true,  Class::Prompt),
    row("resources/list",                   REQUEST, true,  true,  Class::List(List::Resources)),
    row("resources/templates/list",         REQUEST, true,  true,  Class::List(List::Templates)),
    row("resources/read",                   REQUEST, true,  true,  Class::Resource),
    row("resources/subscribe",              REQUEST, true,  false, Class::Resource),
    row("resources/unsubscribe",            REQUEST, true,  false, Class::Resource),
    row("completion/complete",              REQUEST, true,  true,  Class::Complete),
    row("logging/setLevel",                 REQUEST, true,  false, Class::Session),
    row("subscriptions/listen",             REQUEST, false, true,  Class::Listen),
    row("tasks/get",                        REQUEST, true,  true,  Class::Task),
    row("tasks/update",                     REQUEST, false, true,  Class::Task),
    row("tasks/cancel",                     REQUEST, true,  true,  Class::Task),
    row("tasks/result",                     REQUEST, true,  false, Class::Task),
    row("notifications/cancelled",          NOTICE,  true,  true,  Class::Session),
    row("notifications/progress",           NOTICE,  true,  false, Class::Session),
    row("notifications/roots/list_changed", NOTICE,  true,  false, Class::Session),
    row("notifications/tasks/status",       NOTICE,  true,  false, Class::Session),
];

/// Class of a message from a client, or `None` if it is refused.
pub fn from_client(method: &str, kind: Kind, era: Era) -> Option<Class> {
    let row = FROM_CLIENT.iter().find(|row| row.method == method && row.kind == kind)?;
    match era {
        Era::Legacy => row.legacy,
        Era::Modern => row.modern,
    }
    .then_some(row.class)
}

/// What a server asks of a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asked {
    /// `ping`.
    Ping,
    /// `elicitation/create`.
    Elicitation,
    /// `sampling/createMessage`.
    Sampling,
    /// `roots/list`.
    Roots,
}

/// Class of a request from a server; `None` is refused.
pub fn from_server(method: &str) -> Option<Asked> {
    match method {
        "ping" => Some(Asked::Ping),
        "elicitation/create" => Some(Asked::Elicitation),
        "sampling/createMessage" => Some(Asked::Sampling),
        "roots/list" => Some(Asked::Roots),
        _ => None,
    }
}

/// What a server announces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// About the call or the stream that it comes on.
    Plain,
    /// About one resource: only for those who may see it.
    ResourceUpdated,
    /// About one task, with its result: only for its creator.
    Task,
}

/// Class of a notification from a server; `None` is dropped.
pub fn notice_from_server(method: &str) -> Option<Notice> {
    match method {
        "notifications/progress"
        | "notifications/message"
        | "notifications/cancelled"
        | "notifications/tools/list_changed"
        | "notifications/prompts/list_changed"
        | "notifications/resources/list_changed"
        | "notifications/elicitation/complete"
        | "notifications/subscriptions/acknowledged" => Some(Notice::Plain),
        "notifications/tasks" | "notifications/tasks/status" => Some(Notice::Task),
        "notifications/resources/updated" => Some(Notice::ResourceUpdated),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_is_not_in_the_table_is_refused() {
        for method in ["tools/Call", "tools/call ", "", "tasks/list", "skills/list", "completion/Complete"] {
            assert_eq!(from_client(method, Kind::Request, Era::Legacy), None, "{method}");
            assert_eq!(from_client(method, Kind::Request, Era::Modern), None, "{method}");
        }
    }

    #[test]
    fn removed_methods_are_refused_in_the_modern_era() {
        for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
            assert_ne!(from_client(method, Kind::Request, Era::Legacy), None, "{method}");
            assert_eq!(from_client(method, Kind::Request, Era::Modern), None, "{method}");
        }
    }

    #[test]
    fn a_call_without_an_id_is_refused() {
        assert_eq!(from_client("tools/call", Kind::Notification, Era::Legacy), None);
    }

    #[test]
    fn every_method_stands_once() {
        for (at, row) in FROM_CLIENT.iter().enumerate() {
            assert!(FROM_CLIENT[at + 1..].iter().all(|other| other.method != row.method), "{}", row.method);
        }
    }
}
