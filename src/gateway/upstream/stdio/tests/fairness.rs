//! Children are shared fairly, and a session whose child is gone is told so.

use super::*;

/// Four children, two for one caller; one that is idle gives way at once.
const TIGHT: Bounds = Bounds { children: 4, children_per_caller: 2, spare: Duration::ZERO, ..BOUNDS };

async fn opens(upstream: &StdioUpstream, caller: &str) -> Result<(), UpstreamError> {
    Client::new(upstream, caller).post(INITIALIZE).await.map(|_| ())
}

#[tokio::test]
async fn a_caller_has_no_more_children_than_its_share_and_keeps_nobody_out() {
    let upstream = upstream(Sessions::PerClient, &[], Bounds { spare: Duration::from_mins(10), ..TIGHT });
    for _ in 0..2 {
        opens(&upstream, "guest").await.unwrap();
    }

    let refused = opens(&upstream, "guest").await.unwrap_err();
    assert!(refused.to_string().contains("one caller"), "{refused}");
    assert!(matches!(refused, UpstreamError::Full { free_in, .. } if free_in > Duration::from_mins(9)), "{refused:?}");

    opens(&upstream, "ada").await.unwrap();
    assert_eq!(upstream.children(), 3);
}

#[tokio::test]
async fn clients_that_vanish_keep_nobody_out() {
    let upstream = upstream(Sessions::PerClient, &[], TIGHT);
    // None of them says goodbye, and some listen.
    let mut streams = Vec::new();
    for caller in ["a", "a", "b", "c"] {
        let client = Client::with_session(&upstream, caller).await;
        streams.push(client.get().await);
    }

    for _ in 0..6 {
        opens(&upstream, "ada").await.unwrap();
    }

    assert!(upstream.children() <= 4);
}

#[tokio::test]
async fn the_one_who_holds_most_gives_way_and_learns_that_its_session_is_parked() {
    let upstream = upstream(Sessions::PerClient, &[], TIGHT);
    let guest = Client::with_session(&upstream, "guest").await;
    let other = Client::with_session(&upstream, "guest").await;
    let mut stream = guest.get().await;
    let bob = Client::with_session(&upstream, "bob").await;
    let carol = Client::with_session(&upstream, "carol").await;
    let (bobs, carols) = (bob.pid().await, carol.pid().await);
    other.pid().await; // It was used after the first.

    opens(&upstream, "ada").await.unwrap();

    let Some(Err(end)) = stream.next().await else { panic!("the stream must say why it ends") };
    assert!(matches!(end, UpstreamError::Lost(Loss::Parked)), "{end:?}");
    let lost = guest.call("echo", json!({})).await.unwrap_err();
    assert!(matches!(lost, UpstreamError::Lost(Loss::Parked)), "{lost:?}");
    assert_eq!((bob.pid().await, carol.pid().await), (bobs, carols));
    other.pid().await;
}

#[tokio::test]
async fn a_child_with_a_running_call_never_gives_way() {
    let upstream = upstream(Sessions::PerClient, &[], Bounds { children: 1, children_per_caller: 1, ..TIGHT });
    let busy = Client::with_session(&upstream, "a").await;
    let text = call("1", "hold", &json!({}));
    let mut held = Box::pin(busy.post(&text));
    assert!(futures::poll!(&mut held).is_pending());

    let refused = opens(&upstream, "b").await.unwrap_err();
    assert!(matches!(refused, UpstreamError::Full { .. }), "{refused:?}");

    busy.call("release", json!({})).await.unwrap();
    held.await.unwrap();
    opens(&upstream, "b").await.unwrap();
}

#[tokio::test]
async fn a_session_whose_process_crashed_is_lost_and_not_unknown() {
    for sessions in [Sessions::PerClient, Sessions::Shared] {
        let upstream = upstream(sessions, &[], BOUNDS);
        let client = Client::with_session(&upstream, "a").await;
        let mut stream = client.get().await;

        let died = client.call("die", json!({})).await.unwrap_err();
        assert!(matches!(died, UpstreamError::Gone), "the call in flight may have done something: {died:?}");

        let Some(Err(end)) = stream.next().await else { panic!("the stream must say why it ends") };
        assert!(matches!(end, UpstreamError::Lost(Loss::Ended)), "{end:?}");
        let lost = client.call("echo", json!({})).await.unwrap_err();
        assert!(matches!(lost, UpstreamError::Lost(Loss::Ended)), "{sessions:?}: {lost:?}");
    }
}

#[tokio::test]
async fn callers_without_a_token_share_with_neither_the_gateway_nor_an_identity() {
    let upstream = upstream(Sessions::PerClient, &[], Bounds { spare: Duration::from_mins(10), ..TIGHT });
    let open = async |caller: Option<&str>| {
        let caller = caller.map(Arc::from);
        Client { caller, ..Client::new(&upstream, "") }.post(INITIALIZE).await.map(|_| ())
    };
    for _ in 0..2 {
        open(Some(ANONYMOUS)).await.unwrap();
    }
    assert!(open(Some(ANONYMOUS)).await.is_err());
    open(None).await.unwrap(); // Discovery.
    open(Some("a")).await.unwrap();
}
