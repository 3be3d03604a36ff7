//! What time it is, on boards whose clock may say anything.
//!
//! Until the core has been heard the time is not known: what is stamped then is *blind*, and says in which start it was. When the core
//! says what time it is, what has to be added to the stamps of each start is kept with the outbox, and batches are re-based as they are
//! sent. The system's clock is believed once the core agrees with it to a day; before that it is what blind stamps begin from, unless it
//! is behind the *floor*: the last known time, kept in a small file, and never before this software was made.

mod file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mqtt_broker::backend::{ClockSet, Expiry};
use parking_lot::Mutex;
use store::Store;
use sync_quic::Now;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits;
use file::{Blind, Kept};

/// No edge runs before this: 2026-11-01.
const MADE: i64 = 1_793_491_200_000;
/// The system's clock is believed when it is no further from the core's.
const DAY: i64 = 86_400_000;
/// Blind stamps that are no further off stay as they are.
const CLOSE: i64 = 1000;

/// When something was stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub ms: i64,
    /// The start that stamped it while the time was not known.
    pub blind: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nobody: the stamps are blind.
    Unknown,
    /// The system's clock, which the core has agreed with.
    System,
    /// The core, and the time since then.
    Core,
}

struct State {
    source: Source,
    /// What the time was at `began`, as far as is known.
    base: i64,
    /// What the blind stamps of this start began from.
    blind: Blind,
    kept: Kept,
    /// What is to be added to the stamps of which start, until that is durable.
    places: Vec<(u64, i64)>,
}

pub struct Clock {
    dir: PathBuf,
    began: Instant,
    system: fn() -> i64,
    state: Mutex<State>,
    set: watch::Sender<Option<ClockSet>>,
    /// What the blind stamps of this start are off by, as soon as that is known: for what waits in memory with such a time.
    off: Arc<AtomicI64>,
}

/// The system's clock, in milliseconds since 1970.
fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

impl Clock {
    /// Begins a start. `store` knows of starts that the file does not, where that is lost. Blocks on the disk.
    pub fn open(dir: &Path, store: &Store) -> std::io::Result<Clock> {
        let producer = store.producer();
        let known = store.boot_offsets();
        let least = known.last().map_or(0, |(boot, _)| *boot);
        let least = least.max(producer.epoch.unsigned_abs().into());
        Clock::begin(dir, least, &known, system_ms)
    }

    fn begin(
        dir: &Path,
        least_boot: u64,
        placed: &[(u64, i64)],
        system: fn() -> i64,
    ) -> std::io::Result<Clock> {
        let mut kept = Kept::read(dir);
        kept.floor = kept.floor.max(MADE);
        kept.boot = kept.boot.max(least_boot) + 1;
        kept.blind
            .retain(|blind| !placed.iter().any(|(boot, _)| *boot == blind.boot));
        let now = system();
        let by_system = now >= kept.floor;
        let last = kept.blind.iter().map(|blind| blind.last).max();
        let base = if by_system {
            now
        } else {
            kept.floor
                .max(last.map_or(0, |last| last.saturating_add(1)))
        };
        let blind = Blind {
            boot: kept.boot,
            by_system,
            first: base,
            last: base,
        };
        let clock = Clock {
            dir: dir.to_owned(),
            began: Instant::now(),
            system,
            set: watch::Sender::new(None),
            off: Arc::default(),
            state: Mutex::new(State {
                source: Source::Unknown,
                base,
                blind,
                kept,
                places: Vec::new(),
            }),
        };
        clock.save()?;
        Ok(clock)
    }

    /// Milliseconds since 1970, as far as is known.
    pub fn now_ms(&self) -> i64 {
        self.read(&self.state.lock())
    }

    pub fn is_known(&self) -> bool {
        self.state.lock().source != Source::Unknown
    }

    /// Is it known of every earlier stamp what it is by this clock, as far as that will be known?
    pub fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.source == Source::Unknown || state.places.is_empty()
    }

    /// For what comes now.
    pub fn stamp(&self) -> Stamp {
        let mut state = self.state.lock();
        let ms = self.read(&state);
        let is_blind = state.source == Source::Unknown;
        if is_blind {
            state.blind.last = state.blind.last.max(ms);
        }
        Stamp {
            ms,
            blind: is_blind.then_some(state.blind.boot),
        }
    }

    /// When something is over that has so much time left, in milliseconds.
    pub fn expires_in(&self, ms: i64) -> Expiry {
        let state = self.state.lock();
        let at = self.read(&state).saturating_add(ms);
        match state.source {
            Source::Unknown => Expiry::blind(at, self.off.clone()),
            Source::System | Source::Core => at.into(),
        }
    }

    /// A time that was stamped while the time was not known, in this start or one before it.
    pub fn blind(&self, ms: i64) -> Expiry {
        Expiry::blind(ms, self.off.clone())
    }

    /// Resolves when it has turned out that the time was wrong until then, and by how much.
    pub async fn set(&self) -> ClockSet {
        let mut set = self.set.subscribe();
        let is = set.wait_for(Option::is_some).await;
        let is = is.ok().and_then(|set| *set);
        match is {
            Some(set) => set,
            // Never: the sender is here.
            None => std::future::pending().await,
        }
    }

    /// What certificates are checked against: the floor, until the time is known.
    pub fn certificates(self: &Arc<Self>) -> Now {
        let clock = self.clone();
        Arc::new(move || {
            let state = clock.state.lock();
            let ms = match state.source {
                Source::Unknown => state.kept.floor,
                _ => clock.read(&state),
            };
            u64::try_from(ms / 1000).unwrap_or(0)
        })
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn read(&self, state: &State) -> i64 {
        let estimate = state.base.saturating_add(self.elapsed());
        if state.source != Source::System {
            return estimate;
        }
        let system = (self.system)();
        // One that was set to something else since is not believed until the core agrees again.
        if system.abs_diff(estimate) <= DAY.unsigned_abs() {
            system
        } else {
            estimate
        }
    }

    /// The core has said what time it is. What blind stamps are off by is durable when this returns.
    pub async fn learn(self: &Arc<Self>, core_ms: i64, store: &Store) -> anyhow::Result<()> {
        self.hear(core_ms);
        let places = self.state.lock().places.clone();
        if places.is_empty() {
            return Ok(());
        }
        let off = places.first().map_or(0, |(_, add)| *add);
        for (boot, add) in places {
            store.set_boot_offset(boot, add).await?;
        }
        // See `hear`.
        self.off.store(off, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            state.places.clear();
            state.kept.blind.clear();
        }
        store.look_at_delayed();
        let clock = self.clone();
        tokio::task::spawn_blocking(move || clock.save()).await??;
        Ok(())
    }

    /// Takes the core's time, and finds out what is to be added to the stamps of which start.
    fn hear(&self, core_ms: i64) {
        let mut state = self.state.lock();
        let system = (self.system)();
        let agrees = system.abs_diff(core_ms) <= DAY.unsigned_abs();
        let now = if agrees { system } else { core_ms };
        let before = self.read(&state);
        let was = state.source;
        state.base = now.saturating_sub(self.elapsed());
        state.source = if agrees {
            Source::System
        } else {
            tracing::warn!(
                system,
                core = core_ms,
                "the system's clock is wrong: the core's is used"
            );
            Source::Core
        };
        if was != Source::Unknown {
            return;
        }
        let off = now.saturating_sub(before);
        let off = if off.abs() <= CLOSE { 0 } else { off };
        if off != 0 {
            // Before anybody sees the new time. A clock that was ahead is another matter: somebody may have read it just now, and by that what
            // is put right already would be over. So that comes last, in `learn`.
            if off > 0 {
                self.off.store(off, Ordering::Relaxed);
            }
            self.set.send_replace(Some(ClockSet {
                from_ms: state.blind.first,
                to_ms: before,
                add_ms: off,
            }));
        }
        let mut places = vec![(state.blind.boot, off)];
        // Starts that ended before they heard the time: each right before the next one, unless its clock was as right as this one's.
        let mut next = state.blind.first.saturating_add(off);
        let mut right = state.blind.by_system && off == 0;
        for blind in state.kept.blind.iter().rev() {
            right &= blind.by_system && blind.last <= next;
            let off = if right {
                0
            } else {
                next.saturating_sub(1).saturating_sub(blind.last)
            };
            places.push((blind.boot, off));
            next = blind.first.saturating_add(off);
        }
        state.places = places;
        // In the file until its place is known durably.
        let blind = state.blind;
        state.kept.blind.push(blind);
    }

    /// Writes down what the next start has to know. Blocks on the disk.
    pub fn save(&self) -> std::io::Result<()> {
        let kept = {
            let mut state = self.state.lock();
            let is_known = state.source != Source::Unknown;
            if is_known {
                state.kept.floor = state.kept.floor.max(self.read(&state));
            }
            let mut kept = state.kept.clone();
            if !is_known {
                kept.blind.push(state.blind);
            }
            kept
        };
        kept.write(&self.dir)
    }

    /// Keeps the file true, and lets lanes go of what is too old, until `stop`. `expire`: the shortest age that a lane has.
    pub async fn run(
        self: Arc<Self>,
        store: Arc<Store>,
        expire: Option<Duration>,
        stop: CancellationToken,
    ) {
        let mut saved = (Instant::now(), self.is_known());
        let pause = expire.map_or(limits::CLOCK_LOOK, |age| {
            (age / 4).clamp(limits::MIN_AGE, limits::CLOCK_LOOK)
        });
        loop {
            let stopped = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            let is_known = self.is_known();
            if expire.is_some() && is_known && stopped.is_some() {
                // An error: the store is closed, or its disk failed, which others say.
                let _ = store.expire(self.now_ms()).await;
            }
            let due = if is_known {
                limits::CLOCK_SAVE
            } else {
                limits::CLOCK_LOOK
            };
            if stopped.is_none() || saved.0.elapsed() >= due || is_known != saved.1 {
                let clock = self.clone();
                match tokio::task::spawn_blocking(move || clock.save()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "the clock's file can not be written"),
                    Err(error) => tracing::warn!(%error, "the clock's file can not be written"),
                }
                saved = (Instant::now(), is_known);
            }
            if stopped.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 365 * DAY;
    const NOW: i64 = MADE + 30 * DAY;

    fn begin(dir: &Path, system: fn() -> i64) -> Arc<Clock> {
        Arc::new(Clock::begin(dir, 0, &[], system).unwrap())
    }

    fn hear(clock: &Clock, core_ms: i64) -> Vec<(u64, i64)> {
        clock.hear(core_ms);
        std::mem::take(&mut clock.state.lock().places)
    }

    fn close_to(is: i64, expected: i64) -> bool {
        (is - expected).abs() < 5000
    }

    #[test]
    fn a_clock_from_1970_learns_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let clock = begin(dir.path(), || 1000);
        let blind = clock.stamp();
        assert_eq!(blind.blind, Some(1));
        assert!(close_to(blind.ms, MADE), "the floor");
        assert!(close_to((clock.certificates())() as i64 * 1000, MADE));
        let places = hear(&clock, NOW);
        assert_eq!(places.len(), 1);
        assert!(close_to(blind.ms + places[0].1, NOW));
        assert_eq!(clock.stamp().blind, None);
        assert!(close_to(clock.now_ms(), NOW));
        assert!(close_to((clock.certificates())() as i64 * 1000, NOW));
        clock.save().unwrap();
        // The floor is where the next start begins.
        assert!(close_to(begin(dir.path(), || 0).now_ms(), NOW));
    }

    #[test]
    fn a_clock_five_years_ahead_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let clock = begin(dir.path(), || NOW + 5 * YEAR);
        let blind = clock.stamp();
        assert!(close_to(blind.ms, NOW + 5 * YEAR));
        // It does not spoil the floor: certificates can be checked.
        assert!(close_to((clock.certificates())() as i64 * 1000, MADE));
        let places = hear(&clock, NOW);
        assert!(close_to(blind.ms + places[0].1, NOW));
        assert!(close_to(clock.now_ms(), NOW));
        // Others who keep times are told.
        let set = clock.set.borrow().unwrap();
        assert!((set.from_ms..=set.to_ms).contains(&blind.ms));
        assert!(close_to(blind.ms + set.add_ms, NOW));
    }

    #[tokio::test]
    async fn what_expires_has_the_time_left_that_it_had() {
        for system in [|| 1000, || NOW + 5 * YEAR, || NOW] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open_in(dir.path(), store::Config::new(1)).unwrap();
            let clock = begin(dir.path(), system);
            let (waits, stored) = (clock.expires_in(60_000), clock.blind(clock.stamp().ms));
            let left = |expiry: &Expiry| expiry.at() - clock.now_ms();
            assert!(close_to(left(&waits), 60_000) && close_to(left(&stored), 0));
            clock.learn(NOW, &store).await.unwrap();
            assert!(close_to(clock.now_ms(), NOW));
            assert!(close_to(left(&waits), 60_000) && close_to(left(&stored), 0));
            // Nothing is put right twice.
            clock.learn(NOW, &store).await.unwrap();
            assert!(close_to(left(&clock.expires_in(60_000)), 60_000));
            assert!(close_to(left(&waits), 60_000));
        }
    }

    #[test]
    fn a_right_clock_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = begin(dir.path(), || NOW);
        first.stamp();
        first.save().unwrap();
        drop(first);
        // A minute later, and the core is some seconds off.
        let second = begin(dir.path(), || NOW + 60_000);
        let places = hear(&second, NOW + 63_000);
        assert_eq!(places, [(2, 0), (1, 0)]);
        assert!(second.set.borrow().is_none());
        assert!(close_to(second.now_ms(), NOW + 60_000));
        assert!(
            hear(&second, NOW + 63_000).is_empty(),
            "nothing is blind any more"
        );
    }

    #[test]
    fn starts_that_never_heard_the_time_lie_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut last = 0;
        for boot in 1..=3 {
            let clock = begin(dir.path(), || 0);
            let stamp = clock.stamp();
            assert!(stamp.ms > last, "also blind time goes on");
            assert_eq!(stamp.blind, Some(boot));
            last = stamp.ms + 1000;
            clock.state.lock().blind.last = last;
            clock.save().unwrap();
        }
        let clock = begin(dir.path(), || 0);
        let places = hear(&clock, NOW);
        let add = |boot| places.iter().find(|(b, _)| *b == boot).unwrap().1;
        assert!(close_to(last + add(3), NOW) && last + add(3) < NOW);
        assert!(add(1) <= add(2) && add(2) <= add(3));
        assert!(close_to(add(1), add(3)));
        // Those that the store knows already are not placed again.
        let clock = Clock::begin(dir.path(), 0, &[(1, 5), (2, 5)], || 0).unwrap();
        assert_eq!(
            hear(&clock, NOW)
                .iter()
                .map(|(b, _)| *b)
                .collect::<Vec<_>>(),
            [5, 4, 3]
        );
    }

    #[test]
    fn a_clock_that_is_set_to_nonsense_later_is_not_followed() {
        use std::sync::atomic::{AtomicI64, Ordering};
        static SYSTEM: AtomicI64 = AtomicI64::new(NOW);
        let dir = tempfile::tempdir().unwrap();
        let clock = begin(dir.path(), || SYSTEM.load(Ordering::Relaxed));
        hear(&clock, NOW);
        SYSTEM.store(NOW + 3_600_000, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), NOW + 3_600_000);
        SYSTEM.store(0, Ordering::Relaxed);
        assert!(close_to(clock.now_ms(), NOW));
    }
}
