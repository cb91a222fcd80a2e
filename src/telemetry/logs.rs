//! The process log: for people on a terminal, JSON for machines. It always goes to standard error, because standard
//! output may carry the audit log.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How the process log looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why the log was not set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Not a filter; the text says what is wrong.
    #[error("failed to read the log filter {filter:?}: {cause}; an example: info,toolgate=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Something else writes this process's log already.
    #[error("failed to set up the log: it is set up already")]
    Twice,
}

/// Sets the log up, once per process. `filter` names levels, in all or by target (`warn,toolgate=debug`); absent:
/// `info`.
pub fn init(format: Format, filter: Option<&str>) -> Result<(), InitError> {
    let filter = parse(filter)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let json = match format {
        Format::Auto => !std::io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let outcome = if json {
        registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).try_init()
    } else {
        registry.with(layer.with_target(false)).try_init()
    };
    outcome.map_err(|_| InitError::Twice)
}

fn parse(filter: Option<&str>) -> Result<Targets, InitError> {
    let filter = filter.unwrap_or("info");
    filter.parse().map_err(|error: tracing_subscriber::filter::ParseError| InitError::Filter {
        filter: filter.to_owned(),
        cause: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_with_an_example() {
        let error = parse(Some("toolgate=loud")).unwrap_err().to_string();
        assert!(error.contains("toolgate=loud") && error.contains("toolgate=debug"), "{error}");
        assert!(parse(Some("warn,toolgate=debug")).is_ok());
    }
}
