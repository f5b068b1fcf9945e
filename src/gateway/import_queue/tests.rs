use super::*;

type Queue = LookupQueue<u32>;

fn text(n: usize) -> Rc<[ImportedKey]> {
    Rc::from([ImportedKey { id: format!("id {n}"), secret_hash: format!("hash {n}") }])
}

fn join(queue: &mut Queue, n: usize, is_deferred: bool) -> Ticket {
    let (ticket, gone) = queue.join(text(n), is_deferred, u32::try_from(n).unwrap(), 0).unwrap();
    assert!(gone.is_empty());
    ticket
}

fn ids(batch: &LookupBatch) -> Vec<&str> {
    batch.texts.iter().map(|keys| &keys[0].id[3..]).collect()
}

fn queries(queue: &mut Queue, ticket: Ticket, waited: Waited) -> LookupBatch {
    match queue.turn(ticket, waited, 0) {
        Turn::Query(batch) => batch,
        other => panic!("{other:?}"),
    }
}

fn waits(queue: &mut Queue, ticket: Ticket, waited: Waited) -> (u32, Waited) {
    match queue.turn(ticket, waited, 0) {
        Turn::Wait(pause, waited) => (pause, waited),
        other => panic!("{other:?}"),
    }
}

const FRESH: Waited = Waited { milliseconds: 0, without_progress: 0, ended: 0, paced: None };

/// The waiters, by number, of the texts of a query.
fn finish(queue: &mut Queue, batch: &LookupBatch) -> Vec<u32> {
    queue.finish(batch.number, 0).into_iter().flat_map(|asked| asked.waiters).collect()
}

#[test]
fn texts_that_wait_together_are_one_query() {
    let mut queue = Queue::default();
    let tickets: Vec<Ticket> = (0..600).map(|n| join(&mut queue, n, false)).collect();
    let first = queries(&mut queue, tickets[7], FRESH);
    assert_eq!(first.texts.len(), BATCH);
    assert_eq!(ids(&first)[..3], ["7", "0", "1"], "its own first, then in the order of arrival");
    let second = queries(&mut queue, tickets[599], FRESH);
    for one in [0, 7, 300, 550] {
        assert_eq!(waits(&mut queue, tickets[one], FRESH).0, 10, "no more than two lanes");
    }
    assert_eq!(finish(&mut queue, &first).len(), BATCH);
    assert!(matches!(queue.turn(tickets[7], FRESH, 0), Turn::Over));
    let third = queries(&mut queue, tickets[550], FRESH);
    assert_eq!(third.texts.len(), 100);
    for batch in [second, third] {
        finish(&mut queue, &batch);
    }
    assert!(queue.texts.is_empty() && queue.joinable.is_empty());
    assert_eq!(queue.waiting, [0, 0]);
}

#[test]
fn the_same_text_is_queried_once() {
    let mut queue = Queue::default();
    let (a, b) = (join(&mut queue, 1, false), join(&mut queue, 1, false));
    let batch = queries(&mut queue, b, FRESH);
    let c = join(&mut queue, 1, true);
    for ticket in [a, c] {
        waits(&mut queue, ticket, FRESH);
    }
    assert_eq!(ids(&batch), ["1"]);
    assert_eq!(finish(&mut queue, &batch), [1, 1, 1]);
}

#[test]
fn no_request_joins_a_query_from_before_an_import() {
    let mut queue = Queue::default();
    let (a, b) = (join(&mut queue, 1, false), join(&mut queue, 2, false));
    let first = queries(&mut queue, a, FRESH);
    queue.imported();
    let c = join(&mut queue, 1, false);
    join(&mut queue, 2, false);
    let second = queries(&mut queue, c, FRESH);
    assert_eq!(ids(&second), ["1", "2"]);
    assert_eq!(finish(&mut queue, &first), [1, 2]);
    assert!(matches!(queue.turn(b, FRESH, 0), Turn::Over));
    join(&mut queue, 1, false);
    assert_eq!(finish(&mut queue, &second), [1, 1, 2]);
}

#[test]
fn deferred_texts_lead_one_query_per_pause() {
    let mut queue = Queue::default();
    let (a, b) = (join(&mut queue, 1, true), join(&mut queue, 2, true));
    let (pause, rest) = waits(&mut queue, a, FRESH);
    assert_eq!(pause, PAUSE);
    let (_, rest_of_b) = waits(&mut queue, b, FRESH);
    let batch = queries(&mut queue, a, rest);
    assert_eq!(ids(&batch), ["1", "2"]);
    let c = join(&mut queue, 3, true);
    let (_, rest_of_c) = waits(&mut queue, c, FRESH);
    assert_eq!(finish(&mut queue, &batch), [1, 2]);
    let d = join(&mut queue, 4, true);
    waits(&mut queue, d, rest_of_b);
    let batch = queries(&mut queue, c, rest_of_c);
    assert_eq!(ids(&batch), ["3", "4"]);
}

#[test]
fn deferred_texts_never_delay_others_and_share_their_queries() {
    let mut queue = Queue::default();
    let a = join(&mut queue, 1, true);
    let (_, rest) = waits(&mut queue, a, FRESH);
    let led_by_deferred = queries(&mut queue, a, rest);
    let b = join(&mut queue, 2, true);
    let (_, rest) = waits(&mut queue, b, FRESH);
    waits(&mut queue, b, rest);
    let normal = join(&mut queue, 3, false);
    let batch = queries(&mut queue, normal, FRESH);
    assert_eq!(ids(&batch), ["3", "2"]);
    finish(&mut queue, &led_by_deferred);
    let c = join(&mut queue, 4, true);
    let (_, rest) = waits(&mut queue, c, FRESH);
    waits(&mut queue, c, rest);
    finish(&mut queue, &batch);
    let mut tickets: Vec<Ticket> = (100..100 + BATCH).map(|n| join(&mut queue, n, false)).collect();
    let batch = queries(&mut queue, tickets.remove(0), FRESH);
    assert_eq!(batch.texts.len(), BATCH);
    assert!(!ids(&batch).contains(&"4"), "others go first");
}

#[test]
fn a_text_that_an_undeferred_request_waits_for_is_no_longer_deferred() {
    let mut queue = Queue::default();
    let a = join(&mut queue, 1, true);
    let b = join(&mut queue, 1, false);
    assert_eq!(a.text, b.text);
    let batch = queries(&mut queue, a, FRESH);
    assert_eq!(finish(&mut queue, &batch), [1, 1]);
    assert_eq!(queue.waiting, [0, 0]);
}

#[test]
fn texts_of_a_lost_query_wait_again_ahead_of_later_ones() {
    let mut queue = Queue::default();
    let (a, b) = (join(&mut queue, 1, false), join(&mut queue, 2, false));
    let lost = queries(&mut queue, a, FRESH);
    let c = join(&mut queue, 3, false);
    let other = queries(&mut queue, c, FRESH);
    let d = join(&mut queue, 4, false);
    assert!(matches!(queue.turn(d, FRESH, LEASE), Turn::Wait(..)));
    let Turn::Query(batch) = queue.turn(d, FRESH, LEASE + 1) else { panic!("it is queried again") };
    assert_eq!(ids(&batch), ["4", "1", "2", "3"]);
    assert!(
        queue.finish(lost.number, LEASE + 2).is_empty() && queue.finish(other.number, LEASE + 2).is_empty(),
        "no request waits for it any more"
    );
    assert!(matches!(queue.turn(b, FRESH, LEASE + 1), Turn::Wait(..)));
    assert_eq!(finish(&mut queue, &batch), [1, 2, 3, 4]);
}

#[test]
fn a_text_is_removed_with_its_last_request() {
    let mut queue = Queue::default();
    let (a, b, c) = (join(&mut queue, 1, false), join(&mut queue, 1, true), join(&mut queue, 2, false));
    for ticket in [a, a, c] {
        queue.leave(ticket);
    }
    assert_eq!(queue.waiting, [0, 1]);
    let batch = queries(&mut queue, b, FRESH);
    assert_eq!(ids(&batch), ["1"]);
    queue.leave(b);
    assert!(finish(&mut queue, &batch).is_empty());
    assert!(queue.texts.is_empty() && queue.joinable.is_empty());
}

#[test]
fn a_full_queue_refuses_the_newest_unless_the_oldest_is_stale() {
    for (is_deferred, limit) in [(true, DEFERRED), (false, WAITING)] {
        let mut queue = Queue::default();
        let oldest = join(&mut queue, 0, is_deferred);
        for n in 1..limit {
            join(&mut queue, n, is_deferred);
        }
        assert!(queue.join(text(limit), is_deferred, 7, STALE - 1).is_none());
        assert!(queue.join(text(limit), !is_deferred, 7, 0).is_some(), "the others have room");
        let (_, gone) = queue.join(text(limit + 1), is_deferred, 8, STALE).unwrap();
        assert_eq!(gone, [0]);
        assert!(matches!(queue.turn(oldest, FRESH, STALE), Turn::Over));
        assert_eq!(queue.waiting[usize::from(is_deferred)], limit);
    }
    let mut queue = Queue::default();
    for _ in 0..WAITING {
        join(&mut queue, 1, false);
    }
    assert!(queue.join(text(1), false, 7, 0).is_none(), "requests are counted, not texts");
}

#[test]
fn a_waiting_request_takes_turns_less_and_less_often_and_not_for_ever() {
    let mut queue = Queue::default();
    let [a, b, c] = [1, 2, 3].map(|n| join(&mut queue, n, false));
    let batch = queries(&mut queue, a, FRESH);
    let (mut waited, mut pauses) = (FRESH, Vec::new());
    loop {
        assert!(pauses.len() < 1_000, "it waits for ever");
        match queue.turn(a, waited, 0) {
            Turn::Wait(pause, next) => {
                pauses.push(pause);
                waited = next;
            }
            Turn::Over => break,
            Turn::Query(_) => panic!("it is already queried"),
        }
    }
    assert!(pauses.is_sorted() && pauses[0] == 10 && pauses.last() == Some(&250), "{pauses:?}");
    assert!((PATIENCE..PATIENCE + 250).contains(&pauses.iter().sum()) && pauses.len() < 100, "{pauses:?}");
    let mut without_progress = 0;
    for pause in pauses {
        assert_eq!(pause, (without_progress / 4).clamp(10, 250));
        without_progress += pause;
    }
    assert_eq!(finish(&mut queue, &batch), [2, 3]);
    for (took, pause) in [(0, 2), (9, 4), (100, 50), (900, 250)] {
        let ticket = join(&mut queue, 4, false);
        let batch = queries(&mut queue, ticket, FRESH);
        queue.finish(batch.number, took);
        let other = join(&mut queue, 5, false);
        let batch = queries(&mut queue, other, FRESH);
        assert_eq!(waits(&mut queue, other, FRESH).0, pause, "{took}");
        queue.finish(batch.number, took);
    }
    assert!([b, c].into_iter().all(|ticket| matches!(queue.turn(ticket, FRESH, 0), Turn::Over)));
}

/// A round of two queries takes 500 texts. Each query is expected to take 20 ms.
#[test]
fn a_request_waits_longer_for_each_round_of_queries_ahead_of_it() {
    let mut queue = Queue::default();
    for n in 0..2 {
        let ticket = join(&mut queue, n, false);
        queries(&mut queue, ticket, FRESH);
    }
    let tickets: Vec<Ticket> = (2..1_003).map(|n| join(&mut queue, n, false)).collect();
    let mut pause = |n: usize| waits(&mut queue, tickets[n], FRESH).0;
    assert_eq!([0, 499, 500, 999, 1_000].map(&mut pause), [10, 10, 30, 30, 50]);
}

#[test]
fn times_fit_together() {
    assert!(LEASE > u64::from(DEADLINE));
    assert!(u64::from(PATIENCE) > LEASE + u64::from(DEADLINE) + TURNS.end());
}
