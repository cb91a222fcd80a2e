use super::*;

const MIB: usize = 1 << 20;

fn caller(name: &str) -> Owner {
    Owner::Caller(Some(name.into()))
}

/// Of a process that may have 128 MiB: 64 may be held, 24 by one caller.
fn budget() -> Budget {
    Budget::new(128 * MIB)
}

#[tokio::test(start_paused = true)]
async fn one_caller_has_a_share_and_others_are_served_while_it_is_used_up() {
    let budget = budget();
    let mut greedy = budget.hold(caller("greedy"));
    greedy.grow(24 * MIB).await.unwrap();
    let begun = Instant::now();

    assert_eq!(budget.hold(caller("greedy")).grow(limits::MEMORY_FREE + 1).await, Err(NoRoom));

    assert_eq!(begun.elapsed(), limits::MEMORY_WAIT, "it waits briefly");
    budget.hold(caller("greedy")).grow(limits::MEMORY_FREE).await.unwrap(); // A small call costs nothing.
    budget.hold(caller("other")).grow(16 * MIB).await.unwrap();
    budget.hold(Owner::Caller(None)).grow(16 * MIB).await.unwrap();
    assert_eq!((begun.elapsed(), budget.held()), (limits::MEMORY_WAIT, 24 * MIB));
}

#[tokio::test(start_paused = true)]
async fn when_many_fill_the_budget_those_who_hold_little_are_served() {
    let budget = budget();
    let mut holds = Vec::new();
    for index in 0..14 {
        let mut hold = budget.hold(caller(&index.to_string()));
        hold.grow(4 * MIB).await.unwrap();
        holds.push(hold);
    }

    assert_eq!(budget.hold(caller("large")).grow(4 * MIB).await, Err(NoRoom));
    budget.hold(caller("small")).grow(limits::MEMORY_SMALL).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_served_as_soon_as_there_is_room() {
    let budget = budget();
    let mut first = budget.hold(caller("a"));
    first.grow(22 * MIB).await.unwrap();
    let mut second = budget.hold(caller("a"));
    let mut growing = Box::pin(second.grow(4 * MIB));
    assert!(futures::poll!(&mut growing).is_pending());

    first.shrink(16 * MIB);

    growing.await.unwrap();
    assert_eq!(budget.held(), 20 * MIB);
    drop((first, second));
    assert_eq!(budget.held(), 0);
    assert!(budget.0.table.lock().owners.is_empty(), "nothing is kept of who held something once");
}

#[tokio::test]
async fn bytes_are_held_until_the_last_copy_of_them_is_gone() {
    let budget = budget();
    let mut hold = budget.hold(caller("a"));
    hold.grow(MIB).await.unwrap();
    let bytes = hold.attach(vec![7; MIB].into());
    let part = bytes.slice(10..20);
    drop(bytes);
    assert_eq!((budget.held(), part.as_ref()), (MIB, &[7; 10][..]));

    drop(part);

    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn the_largest_messages_pass_with_a_copy_of_them_while_another_caller_uses_up_its_share() {
    for limit in [MIN_LIMIT, 128 * MIB, 1 << 30] {
        let budget = Budget::new(limit);
        let (message, body) = (budget.largest_message(), budget.largest_body());
        let mut greedy = budget.hold(caller("greedy"));
        greedy.grow(limit / 16 * 3).await.unwrap();
        let mut held = budget.hold(caller("a"));
        held.grow(message).await.unwrap();
        let mut copy = budget.hold(Owner::Gateway);
        copy.grow(message).await.unwrap();
        drop((held, copy));
        budget.hold(caller("a")).grow(2 * body).await.unwrap();
    }
    assert_eq!(budget().largest_message(), limits::MESSAGE_BYTES, "what the documentation promises");
    assert_eq!(budget().largest_body(), limits::BODY_BYTES);
}

#[tokio::test]
async fn pieces_make_the_whole_and_are_held_before_they_are_kept() {
    let budget = budget();
    let whole: Vec<u8> = (0..MIB).map(|index| u8::try_from(index % 251).unwrap()).collect();
    for announced in [0, MIB] {
        let mut gathered = Gathered::new(budget.hold(caller("a")), 2);
        gathered.expect(announced).await.unwrap();
        for piece in whole.chunks(10_000) {
            gathered.push(Bytes::copy_from_slice(piece), 4 * MIB).await.unwrap();
            assert!(budget.held() >= 2 * gathered.len() || gathered.len() <= limits::MEMORY_FREE);
            assert!(gathered.len() <= 4 * MIB);
        }
        let bytes = gathered.finish();
        assert_eq!((bytes.as_ref() == whole, budget.held()), (true, 2 * MIB), "{announced}");
        drop(bytes);
        assert_eq!(budget.held(), 0);
    }
}

#[tokio::test]
async fn one_piece_is_shared_and_not_copied() {
    let piece = Bytes::from(vec![1; 100]);
    let mut gathered = Gathered::new(budget().hold(caller("a")), 2);
    gathered.push(piece.clone(), MIB).await.unwrap();

    assert_eq!(gathered.finish().as_ptr(), piece.as_ptr());
}
