//! Events (`events.k8s.io/v1`): what a person reads in `kubectl describe`.
//!
//! Owns how they are written. Callers tell transitions alone, so a state that lasts makes one Event. An Event that
//! cannot be written is lost: it never holds a reconcile up.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// Time for one Event.
const CALL: Duration = Duration::from_secs(5);
/// Most bytes of a note (`events.k8s.io/v1`).
const NOTE: usize = 1024;

/// One thing to tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// Whether somebody should do something about it.
    pub is_warning: bool,
    /// CamelCase, as the condition's.
    pub reason: String,
    /// What happened, for people.
    pub note: String,
}

/// Writes Events. It remembers the last minutes to count repetitions instead of writing each, so there is one a
/// controller.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events of one controller, as `toolgate/mcpserver`, of this process.
    pub fn new(client: &Client, controller: &str, identity: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client.clone(), reporter) }
    }

    /// Tells about an object.
    pub async fn tell(&self, object: &ObjectReference, told: &Told) {
        let event = Event {
            type_: if told.is_warning { EventType::Warning } else { EventType::Normal },
            reason: told.reason.clone(),
            note: Some(shortened(&told.note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(CALL, self.recorder.publish(&event, object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an Event was lost"),
            Err(_) => tracing::debug!("an Event was lost: no answer in time"),
        }
    }
}

/// At most [`NOTE`] bytes, whole characters.
fn shortened(note: &str) -> String {
    if note.len() <= NOTE {
        return note.to_owned();
    }
    let end = (0..=NOTE - '…'.len_utf8()).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", note.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_too_long_ends_with_an_ellipsis_between_characters() {
        assert_eq!(shortened("short"), "short");
        for fill in ["x", "ü", "語"] {
            let note = shortened(&fill.repeat(2000));
            assert!(note.len() <= NOTE && note.len() > NOTE - 8 && note.ends_with('…'), "{}", note.len());
        }
    }
}
