use proptest::prelude::*;

use super::*;

fn message(text: &str) -> Envelope {
    Envelope::parse_trusting(text.to_owned().into()).unwrap()
}

fn call(id: &str) -> Envelope {
    message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a"}}}}"#))
}

fn session(name: &str) -> Owner {
    Owner::Session(name.into())
}

fn own() -> Calls<char> {
    Calls::new(Era::Legacy, Some(session("s")), Duration::from_mins(1))
}

fn pooled(era: Era) -> Calls<char> {
    Calls::new(era, None, Duration::from_mins(1))
}

fn deliver(calls: &mut Calls<char>, text: &str) -> Delivery<char> {
    calls.deliver(&message(text), false, Instant::now())
}

fn open(calls: &mut Calls<char>, owner: Owner, id: &str, sink: char) -> u64 {
    calls.open(owner, &call(id), sink, Instant::now()).unwrap().0
}

const QUESTION: &str = r#"{"jsonrpc":"2.0", "id":"q","method":"elicitation/create","params":{}}"#;

#[test]
fn nothing_of_a_message_changes_but_its_id() {
    let mut calls = own();
    let text = r#"{ "params": {"x": 1e2, "id": 5, "_meta": {"progressToken": "t"}}, "id" : "a\u00e4", "method":"tools/call","jsonrpc":"2.0"}"#;

    let (id, sent) = calls.open(session("s"), &message(text), 'a', Instant::now()).unwrap();

    assert_eq!(sent, text.replace(r#""a\u00e4""#, "1"));
    let answer = r#"{"result":{"id":1, "n":12345678901234567890123},"id": 1,"jsonrpc":"2.0"}"#;
    let expected = answer.replace(r#""id": 1,"#, r#""id": "a\u00e4","#);
    assert_eq!((id, deliver(&mut calls, answer)), (1, Delivery::Last('a', expected)));
}

#[test]
fn a_line_that_can_be_read_in_two_ways_reaches_its_caller_to_be_refused_there() {
    let line = r#"{"jsonrpc":"2.0","id":2,"result":{},"result":{}}"#;
    let mut calls = pooled(Era::Legacy);
    open(&mut calls, session("a"), "7", 'a');
    open(&mut calls, session("b"), "7", 'b');

    assert!(matches!(calls.unclear(None, line, false), Delivery::Dropped(_)), "it may be anybody's");
    assert_eq!(calls.unclear(Some("2"), line, false), Delivery::Last('b', line.to_owned()));
    assert_eq!(calls.unclear(Some("2"), line, false), Delivery::Note(1, 'a', line.to_owned()), "one caller is left");
}

#[test]
fn equal_ids_of_two_clients_do_not_meet() {
    let mut calls = pooled(Era::Legacy);
    let first = open(&mut calls, session("a"), "7", 'a');
    let second = open(&mut calls, session("b"), "7", 'b');

    let answer = |id: u64| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{id}}}"#);

    assert_eq!(
        deliver(&mut calls, &answer(second)),
        Delivery::Last('b', r#"{"jsonrpc":"2.0","id":7,"result":2}"#.into())
    );
    assert_eq!(
        deliver(&mut calls, &answer(first)),
        Delivery::Last('a', r#"{"jsonrpc":"2.0","id":7,"result":1}"#.into())
    );
}

#[test]
fn a_response_to_an_unknown_id_goes_nowhere() {
    let mut calls = own();
    open(&mut calls, session("s"), "7", 'a');

    for id in ["7", "99", "\"1\"", "1.0", "-1", "null"] {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        assert!(matches!(deliver(&mut calls, &answer), Delivery::Dropped(_)), "{id}");
    }
}

#[test]
fn a_question_goes_to_the_oldest_call_and_its_answer_back_with_the_servers_id() {
    let mut calls = own();
    open(&mut calls, session("s"), "1", 'a');
    open(&mut calls, session("s"), "2", 'b');

    assert_eq!(deliver(&mut calls, QUESTION), Delivery::Note(1, 'a', QUESTION.to_owned()));

    let answer = message(r#"{"jsonrpc":"2.0","id":"\u0071","result":{"action":"accept"}}"#);
    let other = message(r#"{"jsonrpc":"2.0","id":"z","result":{}}"#);
    assert_eq!(calls.answer(&session("s"), &other), None);
    assert_eq!(
        calls.answer(&session("s"), &answer).unwrap(),
        r#"{"jsonrpc":"2.0","id":"q","result":{"action":"accept"}}"#
    );
    assert_eq!(calls.answer(&session("s"), &answer), None);
}

#[test]
fn a_question_without_a_call_goes_to_the_open_stream_or_is_refused() {
    let mut calls = own();

    assert!(
        matches!(deliver(&mut calls, QUESTION), Delivery::Back(text) if text.contains("-32603") && text.contains(r#""id":"q""#))
    );

    let heard = calls.deliver(&message(QUESTION), true, Instant::now());
    assert_eq!(heard, Delivery::Sessions(Whose::All, QUESTION.to_owned()));
    let answer = message(r#"{"jsonrpc":"2.0","id":"q","result":{}}"#);
    assert!(calls.answer(&session("s"), &answer).is_some());
}

#[test]
fn a_shared_child_asks_only_a_caller_that_is_alone() {
    let mut calls = pooled(Era::Legacy);
    let first = open(&mut calls, session("a"), "1", 'a');
    open(&mut calls, session("a"), "2", 'x');

    let Delivery::Note(at, 'a', text) = deliver(&mut calls, QUESTION) else { panic!("not asked") };
    let seen = message(&text).id().unwrap().to_owned();
    assert_eq!((at, seen.as_str()), (first, "3"));

    let answer = message(&format!(r#"{{"jsonrpc":"2.0","id":{seen},"result":{{}}}}"#));
    assert_eq!(calls.answer(&session("b"), &answer), None);
    assert_eq!(calls.answer(&Owner::Nobody, &answer), None);
    assert_eq!(calls.answer(&session("a"), &answer).unwrap(), r#"{"jsonrpc":"2.0","id":"q","result":{}}"#);

    open(&mut calls, session("b"), "1", 'b');
    assert!(matches!(deliver(&mut calls, QUESTION), Delivery::Back(text) if text.contains("-32603")));
}

#[test]
fn an_abandoned_call_counts_until_it_is_answered_or_forgotten() {
    let mut calls = pooled(Era::Legacy);
    let now = Instant::now();
    let first = open(&mut calls, session("a"), "1", 'a');
    open(&mut calls, session("b"), "1", 'b');
    let log = message(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"secret of a"}}"#);

    calls.abandon(first, now);
    assert!(matches!(calls.deliver(&log, false, now), Delivery::Dropped(_)));
    assert!(!calls.is_idle(now));

    let later = now + Duration::from_secs(61);
    assert!(matches!(calls.deliver(&log, false, later), Delivery::Note(2, 'b', _)));
    let late = format!(r#"{{"jsonrpc":"2.0","id":{first},"result":{{}}}}"#);
    assert!(matches!(deliver(&mut calls, &late), Delivery::Dropped(_)));
}

#[test]
fn somebody_who_cannot_be_told_apart_is_never_asked_and_never_cancels() {
    let mut calls = pooled(Era::Legacy);
    open(&mut calls, Owner::Nobody, "1", 'a');

    assert!(matches!(deliver(&mut calls, QUESTION), Delivery::Back(_)));
    let cancel = message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#);
    assert_eq!(calls.cancel(&Owner::Nobody, &cancel, Instant::now()), None);
}

#[test]
fn a_cancellation_carries_the_childs_id_and_only_of_ones_own_call() {
    let mut calls = pooled(Era::Legacy);
    open(&mut calls, session("a"), "9", 'a');
    open(&mut calls, session("b"), "\"x\"", 'b');
    let cancel =
        message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x","reason":"r"}}"#);

    assert_eq!(calls.cancel(&session("a"), &cancel, Instant::now()), None);
    assert_eq!(
        calls.cancel(&session("b"), &cancel, Instant::now()),
        Some((
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2,"reason":"r"}}"#.into(),
            Some('b')
        ))
    );
}

#[test]
fn progress_tokens_are_exchanged_in_a_pool_and_kept_elsewhere() {
    let text =
        r#"{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"_meta":{"progressToken":"t"},"name":"a"}}"#;
    let progress = |token: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        )
    };
    let now = Instant::now();

    let mut calls = pooled(Era::Legacy);
    open(&mut calls, session("b"), "1", 'b');
    let (_, sent) = calls.open(session("a"), &message(text), 'a', now).unwrap();
    assert_eq!(sent, text.replace("\"t\"", "2").replace("\"c\"", "2"));
    assert_eq!(deliver(&mut calls, &progress("2")), Delivery::Note(2, 'a', progress("\"t\"")));
    for stray in ["1", "\"t\"", "3"] {
        assert!(matches!(deliver(&mut calls, &progress(stray)), Delivery::Dropped(_)), "{stray}");
    }

    let mut calls = own();
    open(&mut calls, session("s"), "1", 'b');
    let (_, sent) = calls.open(session("s"), &message(text), 'a', now).unwrap();
    assert_eq!(sent, text.replace("\"c\"", "2"));
    assert_eq!(deliver(&mut calls, &progress("\"t\"")), Delivery::Note(2, 'a', progress("\"t\"")));
    assert_eq!(deliver(&mut calls, &progress("\"u\"")), Delivery::Sessions(Whose::All, progress("\"u\"")));
}

#[test]
fn changes_go_to_streams_and_updates_in_a_pool_to_who_watches() {
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"u"}}"#;
    let mut calls = pooled(Era::Legacy);

    assert_eq!(deliver(&mut calls, changed), Delivery::Sessions(Whose::All, changed.to_owned()));
    assert_eq!(deliver(&mut calls, updated), Delivery::Sessions(Whose::Watching("u".into()), updated.to_owned()));
    assert_eq!(deliver(&mut own(), updated), Delivery::Sessions(Whose::All, updated.to_owned()));
}

#[test]
fn a_log_message_goes_to_the_one_call_or_the_open_stream() {
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":1}}"#;
    let mut calls = own();
    assert_eq!(deliver(&mut calls, log), Delivery::Sessions(Whose::All, log.to_owned()));

    open(&mut calls, session("s"), "1", 'a');
    assert_eq!(calls.deliver(&message(log), true, Instant::now()), Delivery::Note(1, 'a', log.to_owned()));

    open(&mut calls, session("s"), "2", 'b');
    assert_eq!(calls.deliver(&message(log), true, Instant::now()), Delivery::Sessions(Whose::All, log.to_owned()));
    assert_eq!(deliver(&mut calls, log), Delivery::Note(1, 'a', log.to_owned()));
}

#[test]
fn a_modern_log_message_goes_to_the_request_that_asked_for_its_level() {
    let ask = |id: &str, level: &str| {
        message(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a","_meta":{{"io.modelcontextprotocol/logLevel":{level}}}}}}}"#
        ))
    };
    let log = |level: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#)
    };
    let me = Owner::Caller("me".into());
    let mut calls = pooled(Era::Modern);
    open(&mut calls, me.clone(), "1", 'a');
    assert!(matches!(deliver(&mut calls, &log("emergency")), Delivery::Dropped(_)), "it asked for none");

    calls.open(me.clone(), &ask("2", "\"warning\""), 'b', Instant::now()).unwrap();
    calls.open(me, &ask("3", "\"debug\""), 'c', Instant::now()).unwrap();
    assert_eq!(deliver(&mut calls, &log("error")), Delivery::Note(2, 'b', log("error")));
    assert_eq!(deliver(&mut calls, &log("info")), Delivery::Note(3, 'c', log("info")));

    open(&mut calls, Owner::Caller("other".into()), "1", 'd');
    assert!(matches!(deliver(&mut calls, &log("error")), Delivery::Dropped(_)), "it may be the other's");
}

#[test]
fn a_subscription_keeps_the_clients_id() {
    let mut calls = pooled(Era::Modern);
    let listen = message(r#"{"jsonrpc":"2.0","id":"L","method":"subscriptions/listen","params":{}}"#);
    let (own, _) = calls.open(Owner::Caller("me".into()), &listen, 'a', Instant::now()).unwrap();
    let meta = |id: &str| format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
    let change = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{{}}}}}"#, meta(id))
    };
    let end = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{}}}}}"#, meta(id));

    assert_eq!(deliver(&mut calls, &change("1")), Delivery::Note(own, 'a', change("\"L\"")));
    assert!(matches!(deliver(&mut calls, &change("2")), Delivery::Dropped(_)));
    assert!(matches!(deliver(&mut calls, QUESTION), Delivery::Back(text) if text.contains("-32601")));
    assert_eq!(deliver(&mut calls, &end("1")), Delivery::Last('a', end("\"L\"")));
}

#[test]
fn a_server_that_cancels_a_subscription_ends_it_and_one_that_cancels_its_question_is_heard() {
    let cancel =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    let mut calls = pooled(Era::Modern);
    open(&mut calls, Owner::Caller("me".into()), "\"L\"", 'a');
    assert_eq!(deliver(&mut calls, &cancel("1")), Delivery::Last('a', cancel("\"L\"")));

    let mut calls = pooled(Era::Legacy);
    open(&mut calls, session("s"), "7", 'a');
    deliver(&mut calls, QUESTION);
    assert_eq!(deliver(&mut calls, &cancel("\"q\"")), Delivery::Note(1, 'a', cancel("2")));
    assert!(matches!(deliver(&mut calls, &cancel("\"q\"")), Delivery::Dropped(_)));
}

#[test]
fn a_ping_of_the_server_is_answered_here_and_unknown_methods_are_refused() {
    let ping = r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#;
    let odd = r#"{"jsonrpc":"2.0","id":5,"method":"tools/call"}"#;

    assert_eq!(deliver(&mut own(), ping), Delivery::Back(r#"{"jsonrpc":"2.0","id":5,"result":{}}"#.into()));
    assert!(matches!(deliver(&mut own(), odd), Delivery::Back(text) if text.contains("-32601")));
}

#[test]
fn calls_and_questions_are_bounded() {
    let mut calls = own();
    open(&mut calls, session("s"), "0", 'a');
    for _ in 0..ASKED {
        assert!(matches!(deliver(&mut calls, QUESTION), Delivery::Note(..)));
    }
    assert!(matches!(deliver(&mut calls, QUESTION), Delivery::Back(text) if text.contains("too many")));

    for id in 1..CALLS {
        open(&mut calls, session("s"), &id.to_string(), 'a');
    }
    let more = calls.open(session("s"), &call("1"), 'a', Instant::now());
    assert!(matches!(more, Err(UpstreamError::Exhausted(_))));
    assert_eq!(calls.drain().len(), CALLS);
}

proptest! {
    #[test]
    fn whatever_a_child_says_only_the_owner_of_an_id_gets_an_answer(
        ids in prop::collection::vec("(\"[a-z]{1,3}\"|[1-9][0-9]{0,22})", 1..8),
        answers in prop::collection::vec(0u64..12, 0..16),
    ) {
        let mut calls: Calls<usize> = Calls::new(Era::Legacy, None, Duration::from_mins(1));
        for (at, id) in ids.iter().enumerate() {
            calls.open(session(&at.to_string()), &call(id), at, Instant::now()).unwrap();
        }
        let mut answered = std::collections::HashSet::new();
        for own in answers {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{own},"result":{own}}}"#);
            match calls.deliver(&message(&text), false, Instant::now()) {
                Delivery::Last(sink, text) => {
                    prop_assert!(answered.insert(sink));
                    prop_assert_eq!(sink as u64 + 1, own);
                    prop_assert_eq!(text, format!(r#"{{"jsonrpc":"2.0","id":{},"result":{own}}}"#, ids[sink]));
                }
                Delivery::Dropped(_) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
