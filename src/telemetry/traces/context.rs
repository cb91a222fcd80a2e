//! W3C Trace Context, in and out. The same two texts travel as HTTP headers and in `_meta` (SEP-414).

use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Longest `tracestate` that is passed on (W3C Trace Context §3.3.1.5).
const TRACESTATE_BYTES: usize = 512;

/// The context of a message as it came in; from `_meta` where it is there, else from the headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming<'a> {
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
    /// `tracestate`.
    pub tracestate: Option<&'a str>,
}

/// The context of a message that goes out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outgoing {
    /// `traceparent`.
    pub traceparent: String,
    /// `tracestate`, if there is one.
    pub tracestate: Option<String>,
}

impl Incoming<'_> {
    /// The caller's span, or `None` if there is none or its text is not valid: then a new trace begins.
    pub(super) fn parse(self) -> Option<SpanContext> {
        let text = self.traceparent?;
        let mut fields = text.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !hex(version, 2) || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) || version == "ff" {
            return None;
        }
        if version == "00" && fields.next().is_some() {
            return None; // Later versions may have more fields, this one has not.
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let state = self.tracestate.filter(|state| state.len() <= TRACESTATE_BYTES);
        let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
            true,
            state,
        );
        context.is_valid().then_some(context)
    }
}

impl Outgoing {
    pub(super) fn new(context: &SpanContext) -> Self {
        let (trace, span, flags) = (context.trace_id(), context.span_id(), context.trace_flags());
        let state = context.trace_state().header();
        Self {
            traceparent: format!("00-{trace:032x}-{span:016x}-{:02x}", flags & TraceFlags::SAMPLED),
            tracestate: (!state.is_empty()).then_some(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(traceparent: &str) -> Option<SpanContext> {
        Incoming { traceparent: Some(traceparent), tracestate: Some("vendor=1") }.parse()
    }

    #[test]
    fn a_context_survives_the_way_through() {
        let context = parse(PARENT).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        let out = Outgoing::new(&context);
        assert_eq!((out.traceparent.as_str(), out.tracestate.as_deref()), (PARENT, Some("vendor=1")));
    }

    #[test]
    fn flags_and_versions_are_read_as_the_standard_says() {
        assert!(!parse(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
        assert!(parse(&PARENT.replace("-01", "-ff")).unwrap().is_sampled());
        assert!(parse(&format!("cc{}-more", &PARENT[2..])).is_some());
    }

    #[test]
    fn what_is_not_a_context_begins_a_new_trace() {
        for text in [
            "",
            "00",
            "garbage",
            &format!("{PARENT}-more"),
            &PARENT.to_uppercase(),
            &format!("ff{}", &PARENT[2..]),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert!(Incoming::default().parse().is_none());
    }

    #[test]
    fn a_bad_tracestate_is_left_out() {
        for state in ["no pairs here", &format!("a={}", "x".repeat(600))] {
            let context = Incoming { traceparent: Some(PARENT), tracestate: Some(state) }.parse().unwrap();
            assert_eq!(Outgoing::new(&context).tracestate, None);
        }
    }
}
