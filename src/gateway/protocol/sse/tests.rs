use proptest::prelude::*;

use super::*;

fn decode(chunks: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new(1 << 20);
    let mut found = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(event) = decoder.next() {
            found.push(event.unwrap());
        }
    }
    found
}

fn data(stream: &str) -> Vec<Option<String>> {
    let text = |data: Bytes| String::from_utf8(data.to_vec()).unwrap();
    decode(&[stream.as_bytes()]).into_iter().map(|event| event.data.map(text)).collect()
}

fn some(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

#[test]
fn lines_of_data_are_joined_and_comments_carry_none() {
    assert_eq!(data(": hello\n\n"), [None]);
    assert_eq!(data("id: 7\ndata: {\ndata:}\n\ndata\n\ndata\ndata\n\n"), some(&["{\n}", "", "\n"]));
    assert_eq!(data("data:\ndata:x\n\n"), some(&["\nx"]));
}

#[test]
fn fields_are_read_as_the_standard_says() {
    assert_eq!(data("database: x\n\n"), [None]);
    assert_eq!(data(" data: x\n\nDATA: x\n\n"), [None, None]);
    assert_eq!(data("data:  x\n\ndata:\tx\n\n"), some(&[" x", "\tx"]));
    let read = |text: &str| decode(&[text.as_bytes()]).remove(0);
    assert_eq!(read("id: 1\nid: 2\n\n").id.as_deref(), Some(&b"2"[..]));
    assert_eq!(read("id: 1\nid: a\0b\n\n").id.as_deref(), Some(&b"1"[..]));
    assert_eq!(read("id\n\n").id.as_deref(), Some(&b""[..]));
    assert_eq!(read("retry: 10\nretry: x\nretry: +1\n\n").retry, Some(10));
    assert_eq!(read("event: ping\nevent: message\n\n").name.as_deref(), Some(&b"message"[..]));
}

#[test]
fn one_byte_order_mark_before_a_stream_is_skipped() {
    let stream = b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\n".as_slice();
    let found = |chunks: &[&[u8]]| decode(chunks).into_iter().map(|event| event.data).collect::<Vec<_>>();
    let expected = [Some(Bytes::from_static(b"1")), None];

    assert_eq!(found(&[stream]), expected, "a second mark belongs to the name of a field");
    assert_eq!(found(&stream.chunks(1).collect::<Vec<_>>()), expected);
    assert_eq!(found(&[b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n"]), [None]);
    assert_eq!(without_mark(Bytes::from_static(b"\xef\xbb\xbf{}")), "{}");
}

#[test]
fn a_carriage_return_ends_a_line_at_once() {
    let mut decoder = Decoder::new(64);
    decoder.push(b"data: 1\r\r");
    assert_eq!(decoder.next().unwrap().unwrap().data.unwrap(), "1");
    decoder.push(b"\ndata: 2\r\n\r");
    assert_eq!(decoder.next().unwrap().unwrap().data.unwrap(), "2");
    decoder.push(b"\n");
    assert!(decoder.next().is_none());
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn only_events_without_a_name_and_message_events_are_messages() {
    let is_message = |text: &str| decode(&[text.as_bytes()])[0].is_message();

    for text in
        ["data: {}\n\n", "event: message\ndata: {}\n\n", "event\ndata: {}\n\n", "event: x\nevent:\ndata: {}\n\n"]
    {
        assert!(is_message(text), "{text:?}");
    }
    for text in
        ["event: ping\ndata: {}\n\n", "event: Message\ndata: {}\n\n", "event:  message\ndata: {}\n\n", "data\n\n"]
    {
        assert!(!is_message(text), "{text:?}");
    }
}

#[test]
fn an_event_beyond_the_limit_is_refused_before_it_ends() {
    let mut decoder = Decoder::new(16);
    decoder.push(b"data: 0123456789abcdef");

    assert!(matches!(decoder.next(), Some(Err(TooLarge))));
}

#[test]
fn the_end_of_a_stream_tells_a_cut_message_from_a_whole_one() {
    let rest = |text: &str| {
        let mut decoder = Decoder::new(64);
        decoder.push(text.as_bytes());
        while decoder.next().is_some() {}
        decoder.finish()
    };

    for whole in ["", "data: 1\n\n", "data: 1\r\r", "data: 1\n\n: bye", "data: 1\n\nid: 2\n", "dat"] {
        assert_eq!(rest(whole), Ok(()), "{whole:?}");
    }
    for cut in ["data: 1", "data: 1\n", "data: 1\r", "data: 1\n\ndata: 2\n"] {
        assert_eq!(rest(cut), Err(Truncated), "{cut:?}");
    }
}

#[test]
fn another_message_keeps_the_event_id() {
    let framed = |text: &[u8], message| frame(&decode(&[text])[0], message);

    assert_eq!(framed(b"id: 9\nevent: message\ndata: old\n\n", "new"), "id: 9\nevent: message\ndata: new\n\n");
    assert_eq!(framed(b"data:old\rretry:5\r: c\r\r", "{\n}"), "retry: 5\ndata: {\ndata: }\n\n");
    assert_eq!(framed(b"id: 9\ndata:\n\n", ""), "id: 9\ndata:\n\n");
    assert_eq!(framed(b"retry: 9\n\n", ""), "retry: 9\n\n");
}

#[test]
fn nothing_of_an_event_passes_that_a_lenient_reader_could_split() {
    let smuggled = "{\"a\":\"\u{2028}\u{2028}data: {}\u{85}data: {}\u{2029}\"}";

    assert_eq!(
        encode(smuggled),
        "event: message\ndata: {\"a\":\"\u{2028}\\u2028data: {}\\u0085data: {}\u{2029}\"}\n\n"
    );
    let id = "id: 1\u{2028}data: {}\ndata: x\n\n";
    assert_eq!(decode(&[id.as_bytes()])[0].id, None);
}

#[test]
fn many_lines_of_data_are_joined_in_one_pass() {
    let many = format!("{}\n", "data:x\n".repeat(140_000));
    let found = decode(&[many.as_bytes()]);

    assert_eq!(found[0].data.as_ref().unwrap().len(), 2 * 140_000 - 1);
}

proptest! {
    #[test]
    fn packets_may_break_anywhere(text in "(\u{feff})?(data: [a-z]{0,6}(\n|\r\n|\r)|(\n|\r\n|\r)|: c\n){0,12}", cuts in prop::collection::vec(0usize..80, 0..6)) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&bytes[from..cut]);
            from = cut;
        }
        chunks.push(&bytes[from..]);

        prop_assert_eq!(decode(&chunks), decode(&[bytes]));
    }

    #[test]
    fn a_message_survives_framing(message in "[ -~]{1,80}") {
        let found = decode(&[&encode(&message)]);

        prop_assert_eq!(found[0].data.as_deref(), Some(message.as_bytes()));
    }
}
