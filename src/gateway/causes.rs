//! An error with its causes in one line, for what has but one: a report, a log record, an answer.

/// The error and what it came from, from the outside in.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}
