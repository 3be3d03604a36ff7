//! The sync protocol between an edge and the core, without input or output: frames as bytes, and the two state machines that
//! say what may be sent and what may be acknowledged. The wire is described in `docs/reference/sync-protocol.md`.
//!
//! Nothing here sees a socket or a clock; `sync-quic` moves the bytes. Nothing here looks inside a batch either: the bytes that
//! the edge encoded are the bytes that the core appends. [`link`] makes them smaller on the way.

mod code;
mod frame;
pub mod limits;
pub mod link;
mod reader;
mod receiver;
pub mod schedule;
mod sender;

pub use code::{AnswerStatus, CloseCode, EnrolRefusal, HelloRefusal, RefuseCode, TimeQuality};
pub use frame::{
    AnswerFrame, BatchFlags, BatchFrame, DictionaryFrame, DownFrame, DownPosition, EnrolGrant,
    EnrolRequest, Frame, FrameError, GapFrame, Hello, HelloRefused, LaneFrame, LaneInfo,
    LinkCompression, Pace, QueryFrame, Refused, Retry, Welcome,
};
pub use link::{LinkCompressor, RestoreError};
pub use reader::FrameReader;
pub use receiver::{Receiver, ReceiverViolation};
pub use schedule::Scheduler;
pub use sender::{Sender, SenderViolation, Window};
pub use zstd::dict::DecoderDictionary;

/// The version that this code speaks; the first field of a hello.
pub const VERSION: u16 = 2;
/// ALPN of a connection that moves records: mutual TLS. Names the framing, which all versions share: an edge of another version
/// is told so in words.
pub const ALPN_SYNC: &[u8] = b"towline-sync/1";
/// ALPN of a connection that trades a token for a certificate: only the core shows one.
pub const ALPN_ENROL: &[u8] = b"towline-enrol/1";
