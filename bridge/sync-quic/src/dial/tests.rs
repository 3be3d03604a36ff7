//! When attempts begin and end, by a clock that the tests move.

use std::sync::Mutex;

use super::*;

/// When an attempt began, and when it ended before its time, in tenths of a second.
type Lived = (u64, Option<u64>);

/// What became of each attempt.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Lived>>>);

struct Running(Log, usize, Instant);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.lock().unwrap()[self.1].1 = Some(tenths(self.2));
    }
}

fn tenths(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis() / 100).unwrap()
}

/// For ten seconds; attempt `i` is answered at the times of `answers[i]`, in tenths of a second since it began.
async fn ten_seconds(over: impl Fn(usize) -> Transport, answers: &[&[u64]]) -> Vec<Lived> {
    let (signs, log) = (Signs::default(), Log::default());
    let began = Instant::now();
    let begin = |index: usize| {
        let sign = signs.attempt(index, over(index));
        let times = answers
            .get(index)
            .map_or(Vec::new(), |times| times.to_vec());
        log.0.lock().unwrap().push((tenths(began), None));
        let running = Running(log.clone(), index, began);
        let attempt: Attempt<()> = Box::pin(async move {
            let _running = running;
            let begun = Instant::now();
            for at in times {
                tokio::time::sleep_until(begun + Duration::from_millis(100 * at)).await;
                sign.note();
            }
            std::future::pending().await
        });
        Some(attempt)
    };
    let rules = Rules {
        enough: 1,
        answer_or_end: true,
        signs: &signs,
        weed: true,
    };
    let race = staggered(begin, &over, |_| HEAD_START, rules);
    let ended = tokio::time::timeout(Duration::from_millis(9950), race).await;
    assert!(ended.is_err());
    let mut log = log.0.lock().unwrap().clone();
    for (_, end) in &mut log {
        // With the race.
        *end = end.filter(|end| *end < 99);
    }
    log
}

fn quic(_: usize) -> Transport {
    Transport::Quic
}

#[tokio::test(start_paused = true)]
async fn somebody_asks_into_a_silence_each_second() {
    let seen = ten_seconds(quic, &[]).await;
    let expected: Vec<_> = (0..10).map(|second| (10 * second, None)).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_answered_is_alone() {
    // As by a Retry, and by what keeps the connection alive that waits at the core's door.
    let seen = ten_seconds(quic, &[&[2, 25, 50, 75]]).await;
    assert_eq!(seen, [(0, None)]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_not_answered_any_more_is_joined_after_a_while() {
    let seen = ten_seconds(quic, &[&[2]]).await;
    let begun: Vec<u64> = seen.iter().map(|(began, _)| *began).collect();
    assert_eq!(begun, [0, 32, 42, 52, 62, 72, 82, 92]);
    assert!(seen.iter().all(|(_, ended)| ended.is_none()), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn the_one_that_is_answered_ends_those_of_the_silence_before() {
    // The third when the link is back, and the fifth soon enough to have been on its way.
    let answers: &[&[u64]] = &[&[], &[], &[24, 50], &[], &[5], &[]];
    let seen = ten_seconds(quic, answers).await;
    let ended = Some(46);
    let expected = [(0, ended), (10, ended), (20, None), (30, ended), (40, None)];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_tcp_holds_up_its_like_only() {
    let over = |index: usize| match index % 2 {
        0 => Transport::Quic,
        _ => Transport::Tls,
    };
    let seen = ten_seconds(over, &[&[], &[0]]).await;
    let begun: Vec<u64> = seen.iter().map(|(began, _)| *began).collect();
    // The second over TLS would have begun after 3 s.
    assert_eq!(begun, [0, 10, 20, 40, 50, 60, 70, 80, 90]);
    assert!(seen.iter().all(|(_, ended)| ended.is_none()), "{seen:?}");
}
