//! Runs the reductions: reads the local log behind the devices' acknowledgements, and stores what is to be forwarded in its lane.
//!
//! What is acknowledged is durable in the local log, and the place up to which it is reduced is kept with the state of the reductions.
//! After a crash it goes on from there: nothing is left out, and what was sent since the last save is sent again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::maybe_done;
use futures_util::poll;
use store::{Checkpoint, From, Lane, LogId, NewMessage, Session, Store, WriteError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend;
use crate::limits;
use crate::outbox::Outbox;
use crate::rules::{Output, Reducer, Rules};

/// Under which name the state is kept among the sessions. No client is called so: client ids have no null character.
const SESSION: &str = "\0reductions";

pub struct Reductions {
    outbox: Arc<Outbox>,
    store: Arc<Store>,
    log: LogId,
    reducer: Reducer,
    /// To be forwarded before anything else.
    first: Vec<Output>,
    epoch: u64,
    /// Up to here the local log is reduced.
    cursor: u64,
    /// The start whose blind stamps the state has its times from, until they are put right.
    blind: Option<u64>,
    saved: Instant,
    changed: bool,
}

impl Reductions {
    /// Takes up the state of the last run. To be called before devices connect.
    pub async fn open(
        outbox: Arc<Outbox>,
        rules: Arc<Rules>,
        local: Lane,
    ) -> anyhow::Result<Reductions> {
        let store = outbox.store.clone();
        let log = LogId::Outbox(local);
        let session = store.load_session(SESSION)?;
        let mut opened = Reductions {
            // Without a state of its own (the ledger was rebuilt) everything that is there counts as new.
            cursor: store.oldest(log).position,
            outbox,
            store,
            log,
            reducer: Reducer::new(rules.clone()),
            first: Vec::new(),
            epoch: 1,
            blind: None,
            saved: Instant::now(),
            changed: true,
        };
        let first_start = session.is_none();
        if let Some(session) = session {
            opened.epoch = session.epoch + 1;
            match Saved::decode(&session.bytes) {
                Some(saved) => opened.restore(rules, &saved).await,
                None => tracing::error!(
                    "the state of the reductions can not be read: windows begin anew"
                ),
            }
        }
        if first_start {
            // From here on the local log is kept for it.
            opened.save().await;
        }
        Ok(opened)
    }

    async fn restore(&mut self, rules: Arc<Rules>, saved: &Saved<'_>) {
        let end = self.store.end(self.log).position;
        self.cursor = saved.cursor.max(self.cursor).min(end);
        let (reducer, places) = match Reducer::restore(rules, saved.state) {
            Ok(restored) => restored,
            Err(error) => {
                tracing::error!(%error, "windows begin anew");
                return;
            }
        };
        self.reducer = reducer;
        let mut out = Vec::new();
        for place in places {
            let read = self.store.read(self.log, From::Position(place), 1).await;
            let mut messages = Vec::new();
            for frame in read.iter().flat_map(|read| &read.frames) {
                // What can not be read is passed over by every reader.
                let _ = backend::messages(&self.store, frame, place, &mut messages);
            }
            match messages.into_iter().next() {
                Some((at, time, message)) if at.0 == place => {
                    self.reducer.supply(place, &message, time, &mut out);
                }
                _ => tracing::warn!(
                    place,
                    "a message that waited for the end of its interval is not there any more"
                ),
            }
        }
        self.first = out;
    }

    /// Runs until `stop`, then saves.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut news = self.store.watch(self.log);
        while !stop.is_cancelled() {
            let mut out = std::mem::take(&mut self.first);
            news.borrow_and_update();
            self.put_right();
            let more = match self.take(&mut out).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::error!(%error, "the local log can not be read: nothing is reduced until the next start");
                    return;
                }
            };
            if !more {
                // Only at the end of the log: what was stamped before the end of a window must have been read.
                let grace = i64::try_from(limits::REDUCTION_GRACE.as_millis()).unwrap_or(0);
                let now = self.outbox.clock.now_ms();
                self.reducer.due(now.saturating_sub(grace), &mut out);
            }
            if !self.forward(out, &stop).await {
                // Not saved: what is not stored yet is read again at the next start.
                return;
            }
            if self.changed && self.saved.elapsed() >= limits::REDUCTION_SAVE {
                self.save().await;
            }
            if more {
                continue;
            }
            tokio::select! {
                moved = news.changed() => {
                    if moved.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(self.pause()) => {}
                () = stop.cancelled() => {}
            }
        }
        self.save().await;
    }

    /// The time has become known: what began blind goes on as if it had been stamped right.
    fn put_right(&mut self) {
        if let Some(boot) = self.blind
            && let Some(add) = self.store.boot_offset(boot)
        {
            self.reducer.shift(add);
            self.blind = None;
        }
    }

    /// Until something is due or is to be saved.
    fn pause(&self) -> Duration {
        let save = if self.changed {
            limits::REDUCTION_SAVE.saturating_sub(self.saved.elapsed())
        } else {
            limits::LONGEST_PAUSE
        };
        let Some(due) = self.reducer.next_due() else {
            return save;
        };
        let left = due
            .saturating_sub(self.outbox.clock.now_ms())
            .max(0)
            .unsigned_abs();
        // The clock may be set: it is looked at now and then.
        let due = Duration::from_millis(left).min(limits::LONGEST_PAUSE) + limits::REDUCTION_GRACE;
        save.min(due)
    }

    /// Reads on. `true`: there may be more.
    async fn take(&mut self, out: &mut Vec<Output>) -> std::io::Result<bool> {
        let from = From::Position(self.cursor);
        let read = self
            .store
            .read(self.log, from, limits::REDUCTION_READ)
            .await?;
        for frame in &read.frames {
            let mut messages = Vec::new();
            // First: what is known here is known to what reads the frame.
            self.put_right();
            if let Err(error) = backend::messages(&self.store, frame, self.cursor, &mut messages) {
                tracing::error!(frame = frame.number, %error, "a stored batch can not be read and is not reduced");
            }
            let unknown = |boot: &u64| self.store.boot_offset(*boot).is_none();
            self.blind = frame.blind.filter(unknown).or(self.blind);
            for (at, time, message) in messages {
                self.reducer.offer(at.0, &message, time, out);
            }
        }
        let moved = read.next.position > self.cursor;
        self.cursor = read.next.position.max(self.cursor);
        self.changed |= moved;
        Ok(moved)
    }

    /// Stores what is to be forwarded, in order. A lane that is full and refuses holds up the reductions, and with them nobody else: the local log is bounded
    /// by itself. `false`: stopped, or the disk failed.
    async fn forward(&mut self, out: Vec<Output>, stop: &CancellationToken) -> bool {
        let messages: Vec<_> = out
            .into_iter()
            .filter_map(|output| self.outbox.reduced(output, self.blind))
            .collect();
        self.changed |= !messages.is_empty();
        in_order(&self.store, &messages, stop).await
    }

    async fn save(&mut self) {
        let state = self.reducer.snapshot();
        let oldest = self.reducer.oldest_waiting().unwrap_or(self.cursor);
        let bytes = Saved {
            cursor: self.cursor,
            state: &state,
        };
        let session = Session {
            epoch: self.epoch,
            checkpoints: vec![Checkpoint {
                log: self.log,
                position: oldest.min(self.cursor),
            }],
            bytes: bytes.encode().into(),
        };
        // A large state is written less often: it costs flash.
        let pause = Duration::from_secs((session.bytes.len() / limits::REDUCTION_SAVE_RATE) as u64);
        if let Err(error) = self.store.save_session(SESSION, session).await {
            tracing::warn!(%error, "the state of the reductions can not be saved");
        }
        self.saved = Instant::now() + pause;
        self.changed = false;
    }
}

/// Stores messages, many at a time so that they share a sync. What comes behind one that is refused for now waits with it: it may be of the same topic,
/// and smaller. `false`: stopped, or the disk failed.
async fn in_order(store: &Store, mut messages: &[NewMessage], stop: &CancellationToken) -> bool {
    while !messages.is_empty() {
        // Each takes its place in its log, or is refused, when it is first asked.
        let mut asked = Vec::new();
        for message in messages {
            let mut stored = Box::pin(maybe_done(store.publish(message.clone())));
            let _ = poll!(stored.as_mut());
            let refused = stored
                .as_mut()
                .output_mut()
                .is_some_and(|it| is_for_now(it));
            if refused {
                break;
            }
            asked.push(stored);
        }
        let (taken, left) = messages.split_at(asked.len());
        let refused = !left.is_empty();
        for (message, mut stored) in taken.iter().zip(asked) {
            stored.as_mut().await;
            let Some(mut result) = stored.as_mut().take_output() else {
                continue;
            };
            // The file system was found full behind its place.
            while is_for_now(&result) {
                if !pause(stop).await {
                    return false;
                }
                result = store.publish(message.clone()).await;
            }
            match result {
                Ok(()) | Err(WriteError::Dropped(_)) => {}
                Err(WriteError::Failed(_) | WriteError::Closed) => return false,
                Err(error) => tracing::error!(%error, "a reduced message can not be stored"),
            }
        }
        messages = left;
        if refused && !pause(stop).await {
            return false;
        }
    }
    true
}

fn is_for_now(result: &Result<(), WriteError>) -> bool {
    matches!(
        result,
        Err(WriteError::Full(_) | WriteError::DiskFull | WriteError::TooFast)
    )
}

/// Until it may be asked again. `false`: stopped.
async fn pause(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(limits::REDUCTION_RETRY) => true,
        () = stop.cancelled() => false,
    }
}

/// The cursor, 8 bytes, and the state of the reducer.
struct Saved<'a> {
    cursor: u64,
    state: &'a [u8],
}

impl<'a> Saved<'a> {
    fn encode(&self) -> Vec<u8> {
        [&self.cursor.to_be_bytes()[..], self.state].concat()
    }

    fn decode(bytes: &'a [u8]) -> Option<Saved<'a>> {
        let (cursor, state) = bytes.split_first_chunk()?;
        let cursor = u64::from_be_bytes(*cursor);
        Some(Saved { cursor, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::NewRecord;
    use store::{Config, LaneConfig};

    /// Sizes of payloads.
    fn message(lane: Lane, size: usize) -> NewMessage {
        NewMessage {
            lane,
            stream: record::stream_for_topic("a/b"),
            record: NewRecord {
                value: Some(vec![b'x'; size].into()),
                ..NewRecord::default()
            },
            retained: false,
            packet: None,
            blind: None,
            view: None,
            delayed: None,
        }
    }

    #[tokio::test]
    async fn nothing_overtakes_what_a_full_lane_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let lane = LaneConfig {
            max_bytes: 20_000,
            ..LaneConfig::new("data")
        };
        let config = Config {
            lanes: vec![lane],
            ..Config::new(1)
        };
        let store = Store::open_in(dir.path(), config).unwrap();
        let lane = store.lane("data").unwrap();
        let end = || store.end(LogId::Outbox(lane)).position;
        let begin = end();
        let stop = CancellationToken::new();
        let sizes = [10, 30_000, 10, 10];
        let messages = sizes.map(|size| message(lane, size));
        let stopped = async {
            tokio::time::sleep(limits::REDUCTION_RETRY * 2).await;
            stop.cancel();
        };
        let (stored, ()) = tokio::join!(in_order(&store, &messages, &stop), stopped);
        assert!(!stored, "it waits until it is stopped");
        assert_eq!(end() - begin, 1, "the first, and none behind the large one");
        let small = sizes.map(|_| message(lane, 10));
        assert!(in_order(&store, &small, &CancellationToken::new()).await);
        assert_eq!(end() - begin, 5);
        store.close();
    }
}
