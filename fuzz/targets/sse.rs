//! Packets may break anywhere: any split of a byte stream decodes to the same events, and those that the standard has.

#![no_main]
#![allow(unreachable_pub)] // Its modules are its own.

#[path = "../reference/mod.rs"]
#[allow(dead_code, clippy::indexing_slicing)] // Another target reads messages with it.
mod reference;

use libfuzzer_sys::fuzz_target;
use toolgate::gateway::protocol::sse::{Decoder, Event, encode, frame};

/// Small, so that the fuzzer reaches it.
const LIMIT: usize = 512;

/// Events in order, and whether an event was too large.
fn decode<'a>(packets: impl Iterator<Item = &'a [u8]>, limit: usize) -> (Vec<Event>, bool) {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for packet in packets {
        decoder.push(packet);
        while let Some(next) = decoder.next() {
            let Ok(event) = next else { return (events, true) };
            let message = std::str::from_utf8(event.data.as_deref().unwrap_or_default());
            if let Ok(message) = message.map(|message| message.replace('\n', " ")) {
                // What we frame ourselves comes back as it was, but for escapes of what only lenient readers split.
                for framed in [encode(&message), frame(&event, &message)] {
                    let mut again = Decoder::new(usize::MAX);
                    again.push(&framed);
                    let back = again.next().and_then(Result::ok).and_then(|event| event.data).unwrap_or_default();
                    let back = String::from_utf8_lossy(&back).into_owned();
                    let same = ['\u{85}', '\u{2028}', '\u{2029}'].iter().fold(back, |text, separator| {
                        text.replace(&format!("\\u{:04x}data", u32::from(*separator)), &format!("{separator}data"))
                    });
                    assert!(same == message || message.contains("\\u"));
                }
            }
            events.push(event);
        }
    }
    (events, false)
}

fuzz_target!(|input: &[u8]| {
    // The first byte says how the rest is cut.
    let Some((cut, stream)) = input.split_first() else { return };
    let whole = decode(std::iter::once(stream), LIMIT);
    let cut = decode(stream.chunks(usize::from(*cut % 32) + 1), LIMIT);
    let bytewise = decode(stream.chunks(1), LIMIT);
    assert_eq!(cut, bytewise);
    assert_eq!(whole, bytewise);

    // Whatever its size, the reference reads the same.
    let (all, _) = decode(std::iter::once(stream), usize::MAX);
    let ours = all.iter().filter_map(|event| {
        let data = String::from_utf8_lossy(event.data.as_deref()?).into_owned();
        Some((String::from_utf8_lossy(event.name.as_deref().unwrap_or_default()).into_owned(), data))
    });
    let theirs = reference::events(stream).into_iter().map(|event| (event.name, event.data));
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
});
