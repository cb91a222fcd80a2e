//! Packets may break anywhere: any split of a byte stream decodes to the same events, and no byte is lost.

#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate::gateway::protocol::sse::{Decoder, encode, replace_data};

/// Small, so that the fuzzer reaches it.
const LIMIT: usize = 512;

/// (bytes of an event, message in it) in order, and whether an event was too large.
type Events = (Vec<(Vec<u8>, Option<Vec<u8>>)>, bool);

fn decode<'a>(packets: impl Iterator<Item = &'a [u8]>) -> Events {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    for packet in packets {
        decoder.push(packet);
        while let Some(next) = decoder.next() {
            let Ok(event) = next else { return (events, true) };
            assert!(event.raw.len() <= LIMIT);
            let message = std::str::from_utf8(event.data.as_deref().unwrap_or_default());
            if let Ok(message) = message.map(|message| message.replace('\n', " ")) {
                // What we frame ourselves comes back as it was.
                for framed in [encode(&message), replace_data(&event, &message)] {
                    let mut again = Decoder::new(usize::MAX);
                    again.push(&framed);
                    let back = again.next().and_then(Result::ok).and_then(|event| event.data);
                    assert_eq!(back.as_deref().unwrap_or_default(), message.as_bytes());
                }
            }
            events.push((event.raw.to_vec(), event.data.map(|data| data.to_vec())));
        }
    }
    (events, false)
}

fuzz_target!(|input: &[u8]| {
    // The first byte says how the rest is cut.
    let Some((cut, stream)) = input.split_first() else { return };
    let (whole, whole_too_large) = decode(std::iter::once(stream));
    let (cut, cut_too_large) = decode(stream.chunks(usize::from(*cut % 32) + 1));
    let (bytewise, bytewise_too_large) = decode(stream.chunks(1));

    let raw: Vec<u8> = whole.iter().flat_map(|(raw, _)| raw.iter().copied()).collect();
    assert!(stream.starts_with(&raw), "events are the stream, in order");
    assert_eq!(cut, bytewise);
    assert_eq!(cut_too_large, bytewise_too_large);
    assert_eq!((&whole, whole_too_large), (&bytewise, bytewise_too_large));
});
