//! Every limit of this crate. What clients are told is in `mqtt_session::Limits`.

use std::time::Duration;

/// A connection that has not sent a whole CONNECT by then is closed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same where the client's address has as many connections as it may: it is only told so.
pub const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes behind CONNECT that are read of a client that is let in later.
pub const READ_BEFORE_CONNACK: usize = 4 * 1024;
/// How long a client that brings a will waits for CONNACK because its user owes: its CONNECT has its room meanwhile. Where more is owed it is refused
/// (0x97).
pub const WILL_WAIT: Duration = Duration::from_secs(30);
/// A client whose socket takes no byte for so long, while there is something to send, is closed.
pub const WRITE_STALL: Duration = Duration::from_secs(60);
/// How long a closing connection may take for its last bytes.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a client still sends to a connection that is closed is read until then, in bytes: unread, it would take back the last ones.
pub const LAST_INPUT: usize = 8 * 1024 * 1024;
/// How long nothing may come meanwhile where the program stops: it waits for its connections.
pub const LAST_PAUSE: Duration = Duration::from_millis(100);
/// How far the saved checkpoints of a connected persistent session may lag behind.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes waiting for the socket, above which nothing more is taken from the feeds or from the client.
pub const MAX_OUTPUT: usize = 256 * 1024;
/// Payloads from this size on, bytes, go to the socket by reference instead of being copied together.
pub const BY_REFERENCE: usize = 4 * 1024;
/// What room is made for at once where many packets come, bytes for each.
pub const SMALL_PACKET: usize = 128;
/// Pieces of output that one write takes.
pub const WRITE_PIECES: usize = 32;
/// Most bytes of one read from the socket. Each thread has a buffer of this size, and one more of at most half as much again.
pub const READ_CHUNK: usize = 64 * 1024;
/// So much of a packet whose rest is to come every connection may have, bytes. For a larger one it needs a part of what all have
/// together.
pub const UNFINISHED_FREE: usize = 32 * 1024;
/// What all have together, unless the host says otherwise.
pub const UNFINISHED_BYTES: usize = 1024 * 1024 * 1024;
/// A packet for which a connection has such a part, and of which nothing more comes for so long, is not waited for.
pub const READ_STALL: Duration = Duration::from_secs(60);
/// All of it has to come in that time and as long as it takes at so many bytes a second.
pub const SLOWEST_PACKET: usize = 1024;
/// Publishes of one connection that are with the backend at a time. Above that its socket is not read.
pub const MAX_PUBLISHING: usize = 2_048;
/// Of them, those that are given to the backend at a time.
pub const GATHERED: usize = 512;
/// Their bytes, with topics and properties.
pub const MAX_PUBLISHING_BYTES: usize = 8 * 1024 * 1024;
/// Messages that the hub keeps for a connection that does not take them. Above that the connection reads the feeds by itself.
pub const MAILBOX_MESSAGES: usize = 2_048;
/// The same in bytes.
pub const MAILBOX_BYTES: usize = 512 * 1024;
/// Asked from a feed at a time by its follower, bytes of payload.
pub const FOLLOW_READ: usize = 64 * 1024;
/// In so many parts, one after the other, a follower tells those who want to hear of positions that moved.
pub const PROGRESS_PARTS: u64 = 10;
/// How far behind the follower, in positions, a connection may be that attaches to it. It reads the rest by itself.
pub const JOIN_DISTANCE: u64 = 4_096;
/// How long a follower waits for a connection that does not empty its mailbox, although its client takes what it is sent; and a publisher
/// of what is not stored for any connection.
pub const ROOM_WAIT: Duration = Duration::from_secs(1);
/// Messages of one publisher that are not stored and are put into the mailboxes together.
pub const PASSING_RUN: usize = 1_024;
/// Messages that a connection was given before they were stored and that have not come back from the log; and the clients whose messages go by the log
/// meanwhile, with their topics.
pub const GIVEN_EARLY: usize = 4_096;
/// How long a connection waits at first until it looks again whether it may be given messages early; each time twice as long.
pub const FENCE_FIRST: Duration = Duration::from_millis(20);
pub const FENCE_MOST: Duration = Duration::from_secs(5);
/// How long numbers that did not come back are kept before a connection asks whether they still can.
pub const FENCE_IDLE: Duration = Duration::from_secs(10);
/// Bytes of the retained messages of topics that are not stored. One more is refused (0x97).
pub const UNSTORED_RETAINED_BYTES: usize = 64 * 1024 * 1024;
/// Where one more finds no room, those that have expired are looked for, no sooner than so long after the last time: it goes through all of them.
pub const UNSTORED_LOOK: Duration = Duration::from_secs(1);
/// What each of them is counted with beside topic and payload.
pub const RETAINED_OVERHEAD: usize = 256;
/// How long between two looks for stored retained messages that have expired; where a look takes long, so many times as long.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);
pub const SWEEP_SHARE: u32 = 100;
/// How many times as long as it took there is no further look because one more finds no room.
pub const SWEEP_REST: u32 = 10;
/// How long a retained message that finds no room waits for those that have expired to be deleted: its connection does nothing else.
pub const SWEEP_WAIT: Duration = Duration::from_secs(1);
/// Subscriptions of a connection whose retained messages wait for what is older, at a time. Those behind them wait for these.
pub const RETAINED_BEHIND: usize = 64;
/// How often they look what is older and on its way to the client: a client that is faster than what comes has had it all long before.
pub const RETAINED_LOOKS: u8 = 8;
/// Topics of which a follower, or the hub for what is not stored, remembers who wants them.
pub const CACHED_TOPICS: usize = 8_192;
/// How many they are at most, of all those topics together: 8 MiB. Ten thousand clients that want everything would be ten thousand for each topic.
pub const CACHED_TARGETS: usize = 1 << 20;
/// Asked from a feed at a time by a connection that is behind, bytes of payload.
pub const FEED_READ: usize = 64 * 1024;
/// Bytes read from feeds and not yet offered, of one connection, above which no further read begins.
pub const MAX_FEED_BUFFER: usize = 512 * 1024;
/// Reads of one connection that run at a time.
pub const MAX_FEED_READS: usize = 4;
/// Messages that a member of a shared group asks for at a time, and their bytes. What it cannot send at once others get later.
pub const SHARED_TAKE: usize = 64;
pub const SHARED_TAKE_BYTES: usize = 64 * 1024;
/// Deliveries that wait for a save of their session.
pub const MAX_HELD_BACK: usize = 512;
/// Messages offered between two looks at everything else a connection does.
pub const OFFERS_PER_TURN: usize = 256;
/// How long a connection may take to answer who looks after the broker; then what is stored is taken.
pub const ASKED: Duration = Duration::from_secs(2);
/// Connections that are asked at a time.
pub const ASKED_AT_ONCE: usize = 1_024;
/// Of one feed, before the next one has its turn.
pub const OFFERS_PER_FEED: usize = 64;
/// Messages that wait to be published later, of a host. One more is refused (0x97, quota exceeded).
pub const DELAYED_MESSAGES: usize = 100_000;
/// Of them, those that are published at a time.
pub const DELAYED_AT_ONCE: usize = 256;
/// Pause before what could not be published is tried again.
pub const DELAYED_RETRY: Duration = Duration::from_secs(1);
/// Stored sessions whose time has come that are looked at, each with a write of its own, at a time.
pub const DUE_AT_ONCE: usize = 64;
/// Sessions whose clients were connected when the process ended, and that are saved, at a time.
pub const SAVED_AT_ONCE: usize = 256;
/// Pause before a stored session whose time has come, and which somebody has who may leave it as it is, is looked at again.
pub const DUE_HELD: Duration = Duration::from_secs(1);
/// The same for one that could not be read.
pub const DUE_AGAIN: Duration = Duration::from_secs(10);
/// Ends of sessions that could not be written and are kept in memory until they can be, and their bytes. Above that the will of a session that is
/// not stored is lost, and a stored one is looked at again as it is stored.
pub const UNSETTLED: usize = 10_000;
pub const UNSETTLED_BYTES: usize = 16 * 1024 * 1024;
/// How long the first pause is before they are tried again; each time twice as long.
pub const UNSETTLED_FIRST: Duration = Duration::from_secs(1);
pub const UNSETTLED_MOST: Duration = Duration::from_secs(60);
/// Failures after which the rest of them waits for the next time.
pub const UNSETTLED_FAILURES: usize = 8;
/// Longest sleep until the next one: the clock may be set.
pub const DELAYED_SLEEP: Duration = Duration::from_secs(30);
