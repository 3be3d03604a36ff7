/// An ordered log that messages are read from. The two numbers are the host's own: in the core a
/// stream's id and a partition, on the edge a lane. An id is never used again for another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId {
    pub stream: u64,
    pub partition: u32,
}

/// A place in a feed. Ordered within the feed; reading from a message's position gives that message
/// first. Positions need not be consecutive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// Before everything: where a session starts on a feed that appeared after it subscribed.
    pub const START: Position = Position(0);
}
