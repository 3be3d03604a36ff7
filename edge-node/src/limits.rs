//! Every limit of the node that cannot be set.

use std::time::Duration;

pub const WORKER_THREADS: usize = 2;
/// Threads that read segments for those who lag behind.
pub const BLOCKING_THREADS: usize = 4;
/// Connections that wait to be accepted.
pub const BACKLOG: u32 = 1024;
/// Open files other than connections: the logs of the outbox with their segments, the ledger, listeners, the link.
pub const OTHER_FILES: usize = 512;
/// Bytes for large packets of which a part has come, of all clients together.
pub const UNFINISHED: usize = 32 * 1024 * 1024;
/// Pause after an error of `accept` (no file descriptors left): the next one would fail as well.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a start on a full file system is tried again.
pub const ROOM_PAUSE: Duration = Duration::from_secs(2);
/// How long connections may take to end at shutdown.
pub const SHUTDOWN: Duration = Duration::from_secs(5);
/// At shutdown, the time in which something must get onto the disk; else the process ends without it.
pub const STOP: Duration = Duration::from_secs(10);
/// Bytes that a lane reads ahead on its way to the core, at most; and all lanes together.
pub const UPLINK_READ: usize = 512 * 1024;
pub const UPLINK_READ_AHEAD: usize = 2 * 1024 * 1024;
/// Time between two reports of what a full lane drops, where nothing else is to be sent.
pub const DROPPED_AGAIN: Duration = Duration::from_secs(1);
/// Batches from the core that wait to be stored.
pub const DOWNLINK_WAITING: usize = 16;
/// Pauses between attempts to enrol: they grow from the one to the other.
pub const MIN_RETRY: Duration = Duration::from_secs(1);
pub const MAX_RETRY: Duration = Duration::from_secs(30);
/// How often the clock's file is written: while the time is not known, so that blind stamps of this start can be told from those of the
/// next; and while it is known.
pub const CLOCK_LOOK: Duration = Duration::from_secs(60);
pub const CLOCK_SAVE: Duration = Duration::from_secs(3600);
/// Starts without the time that are remembered until it is known: no more than the store remembers.
pub const MAX_BLIND_STARTS: usize = 250;
/// Longest edge name.
pub const MAX_NAME: usize = 64;
/// Largest MQTT packet taken from a client. A record of it, with what is added, still fits in the store and in a core.
pub const MAX_PACKET: u32 = 7 * 1024 * 1024;
/// Time from the first byte of a TLS or WebSocket connection to the end of its handshakes.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections whose password is being checked or waits for it; one more is told to come later.
pub const PASSWORDS_WAITING: usize = 64;
/// Highest priority of a lane.
pub const MAX_PRIORITY: u8 = 9;
/// Logs of the outbox: one a lane, two with fresh-first. The store takes one more, for local readers.
pub const MAX_LOGS: usize = 15;
/// Longest name of a lane, in bytes.
pub const MAX_LANE_NAME: usize = 32;
/// Smallest bound of a lane, in bytes: room for a few segments.
pub const MIN_LANE: u64 = 16 * 1024 * 1024;
/// Shortest age of a lane: eviction looks at whole segments, now and then.
pub const MIN_AGE: Duration = Duration::from_secs(1);
/// Longest time a lane may hold its messages back for others.
pub const MAX_LINGER: Duration = Duration::from_secs(10);
/// Topic rules.
pub const MAX_RULES: usize = 1000;
/// Shortest and longest interval or window of a reduction.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
pub const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);
/// Topics with a reduction whose state is kept. One more ends the window or interval of the one that was silent longest.
pub const REDUCED_TOPICS: usize = 4096;
/// Payload bytes of messages that wait for the end of their interval (`every`), all together. Above it the longest silent are sent early.
pub const REDUCED_WAITING_BYTES: usize = 2 * 1024 * 1024;
/// How long after its end a window is closed: messages that were stamped before it may still be on their way to the disk.
pub const REDUCTION_GRACE: Duration = Duration::from_millis(500);
/// Bytes read from the local log at a time for reductions.
pub const REDUCTION_READ: usize = 256 * 1024;
/// What could not be read and was set aside; beyond it the oldest is deleted.
pub const SET_ASIDE: u64 = 64 * 1024 * 1024;
/// How often the state of reductions is written to the ledger at most; and bytes a second that this may cost.
pub const REDUCTION_SAVE: Duration = Duration::from_secs(10);
pub const REDUCTION_SAVE_RATE: usize = 1024;
/// Pause before a reduced message is offered again to a lane that refuses what does not fit.
pub const REDUCTION_RETRY: Duration = Duration::from_secs(1);
/// Longest sleep of what waits for the system's clock: it may be set.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Messages of a fresh-first lane that may wait for the link before new ones go to the backfill.
pub const FRESH: u64 = 1000;
/// Bytes of the local log beyond what sessions may hold: what is written before it is looked at again.
pub const LOCAL_ROOM: u64 = 256 * 1024 * 1024;
/// Pause before a delayed message that is due is offered again to a lane that has no room for it, in milliseconds.
pub const DELAYED_AGAIN_MS: i64 = 10_000;
/// Messages that `peek` shows of a lane when nothing is asked for, and at most.
pub const PEEK_DEFAULT: u32 = 10;
pub const PEEK_MOST: usize = 500;
/// Bytes of frames that are looked through for `peek`.
pub const PEEK_READ: usize = 256 * 1024;
/// Bytes of each payload that `peek` shows.
pub const PEEK_PAYLOAD: usize = 120;
