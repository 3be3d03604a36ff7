//! Messages that are published later (`$delayed/...`), of a host that offers it: what is common to all of them. Each keeps them in its own way,
//! and publishes one in the same write that takes it from those that wait: so it is published once, whenever the process dies.

use crate::backend::{Backend, ClientId, Message, Publish, PublishError, StorageError};
use crate::limits;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::iter;
use std::future::Future;
use std::time::Duration;

/// What waits for room, and what was asked to be published later by an earlier version.
const VERSION: u8 = 1;
/// What was asked to be published later, where it expires.
const LATER: u8 = 2;

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was asked to be published later: its Message Expiry Interval begins when it is published.
    Later,
    /// A will that finds no room: that began when it was due.
    Will,
}

/// For storage: [`VERSION`] or [`LATER`], length of the publisher's client id (4), client id, the message as `Message::to_bytes`, which expires as if
/// it were published when it is due.
pub fn encode(publish: &Publish, kind: Kind) -> Bytes {
    let version = match (kind, &publish.message.expires_at) {
        (Kind::Later, Some(_)) => LATER,
        _ => VERSION,
    };
    let client = publish.publisher.as_str().as_bytes();
    let message = publish.message.to_bytes();
    let mut out = BytesMut::with_capacity(5 + client.len() + message.len());
    out.put_u8(version);
    out.put_u32(u32::try_from(client.len()).unwrap_or(u32::MAX));
    out.put_slice(client);
    out.put_slice(&message);
    out.freeze()
}

/// As it is published so many milliseconds after it was due. `None`: damaged, or written by a later version.
pub fn decode(mut value: Bytes, late_ms: i64) -> Option<Publish> {
    let is_later = match value.try_get_u8().ok()? {
        VERSION => false,
        LATER => true,
        _ => return None,
    };
    let len = usize::try_from(value.try_get_u32().ok()?).ok()?;
    if len > value.len() {
        return None;
    }
    let client = value.split_to(len);
    let mut message = Message::from_bytes(value)?;
    if is_later && late_ms > 0 {
        message.expires_at = message.expires_at.map(|at| at.later(late_ms));
    }
    Some(Publish {
        publisher: ClientId::new(std::str::from_utf8(&client).ok()?),
        message,
    })
}

/// May one more wait?
pub fn check_count(waiting: usize) -> Result<(), PublishError> {
    let most = limits::DELAYED_MESSAGES;
    if waiting < most {
        return Ok(());
    }
    let text = format!("{most} messages wait to be published later already");
    Err(PublishError::QuotaExceeded(text))
}

/// A retained message that is one too many when it is due was acknowledged: it is published, and not retained.
pub fn or_not_retained<P>(place: Result<P, PublishError>, message: &mut Message) -> Option<P> {
    place
        .inspect_err(|error| {
            tracing::warn!(topic = %message.topic, %error, "a delayed message is published and not retained");
            message.retain = false;
        })
        .ok()
}

/// One whose time has come.
#[derive(Debug)]
pub struct Due<K> {
    pub key: K,
    /// `None`: it can not be read.
    pub publish: Option<Publish>,
}

/// Those whose time has come, some at a time.
#[derive(Debug)]
pub struct DueNow<K> {
    /// In the order of their times.
    pub messages: Vec<Due<K>>,
    /// When the next one is due.
    pub next_ms: Option<i64>,
}

/// A host that keeps messages until they are due.
pub trait Later: Backend {
    type Key: Send + Sync;

    /// At most [`limits::DELAYED_AT_ONCE`]. Milliseconds since the epoch, by [`Backend::now_ms`].
    fn due(&self, now_ms: i64) -> Result<DueNow<Self::Key>, StorageError>;

    /// Publishes one and takes it from those that wait, in one write. `Full`, `Unavailable`: it still waits, and comes again.
    fn publish_due(
        &self,
        key: &Self::Key,
        publish: Publish,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;

    /// Takes one away that can not be published.
    fn forget_due(&self, key: &Self::Key) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Resolves when one was added, or when the clock was set. Cancel-safe.
    fn delayed_changed(&self) -> impl Future<Output = ()> + Send;
}

/// Publishes what is due, until it is dropped.
pub async fn run<B: Later>(backend: &B) {
    loop {
        // The time first: what the clock was set to meanwhile must not measure what it said before.
        let now_ms = backend.now_ms();
        let due = match backend.due(now_ms) {
            Ok(due) => due,
            Err(error) => {
                tracing::error!(%error, "delayed messages can not be read; trying again");
                tokio::time::sleep(limits::DELAYED_RETRY).await;
                continue;
            }
        };
        if due.messages.is_empty() {
            let left = due.next_ms.map_or(i64::MAX, |at| at.saturating_sub(now_ms));
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
            tokio::select! {
                () = tokio::time::sleep(left.min(limits::DELAYED_SLEEP)) => {}
                () = backend.delayed_changed() => {}
            }
            continue;
        }
        for publish in due.messages.iter().filter_map(|due| due.publish.as_ref()) {
            backend.make_retained_room(&publish.message).await;
        }
        // In the order of their times, as far as they go to one place.
        let publishing = iter(due.messages).map(|message| publish(backend, message));
        let mut publishing = publishing.buffered(limits::DELAYED_AT_ONCE);
        let (mut failed, mut last) = (0, None);
        while let Some(done) = publishing.next().await {
            if let Err(error) = done {
                failed += 1;
                last = Some(error);
            }
        }
        if let Some(error) = last {
            tracing::warn!(failed, %error, "delayed messages could not be published; trying again");
            tokio::time::sleep(limits::DELAYED_RETRY).await;
        }
    }
}

/// An error: it is still there.
async fn publish<B: Later>(backend: &B, due: Due<B::Key>) -> Result<(), String> {
    let error = match due.publish {
        None => "it was written by a newer version, or is damaged".to_owned(),
        Some(publish) => match backend.publish_due(&due.key, publish).await {
            Ok(()) => return Ok(()),
            Err(PublishError::Unavailable(error) | PublishError::Full(error)) => return Err(error),
            Err(error) => error.to_string(),
        },
    };
    tracing::error!(%error, "a delayed message can not be published and is dropped");
    let forgotten = backend.forget_due(&due.key).await;
    forgotten.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_codec::{QoS, TopicName};
    use mqtt_session::MessageProperties;

    fn waiting() -> Publish {
        Publish {
            publisher: ClientId::new("a client"),
            message: Message {
                topic: TopicName::new("a/b").unwrap(),
                payload: Bytes::from_static(b"later"),
                qos: QoS::ExactlyOnce,
                retain: true,
                expires_at: Some(7.into()),
                origin: None,
                number: None,
                properties: MessageProperties::default(),
            },
        }
    }

    #[test]
    fn what_is_stored_is_read_again_and_nothing_else() {
        let publish = waiting();
        let bytes = encode(&publish, Kind::Later);
        assert_eq!(decode(bytes.clone(), 0), Some(publish));
        for end in 0..bytes.len() {
            assert_eq!(decode(bytes.slice(..end), 0), None, "{end}");
        }
        let mut newer = bytes.to_vec();
        newer[0] += 1;
        assert_eq!(decode(newer.into(), 0), None);
    }

    #[test]
    fn what_is_published_late_has_all_of_its_time_but_a_will_what_is_left_of_it() {
        for (kind, late_ms, expires_at) in [
            (Kind::Later, 0, 7),
            (Kind::Later, 100, 107),
            (Kind::Later, -100, 7),
            (Kind::Later, i64::MAX, i64::MAX),
            (Kind::Will, 100, 7),
        ] {
            let read = decode(encode(&waiting(), kind), late_ms).unwrap();
            let expected = Some(expires_at.into());
            assert_eq!(read.message.expires_at, expected, "{kind:?} {late_ms}");
        }
        let mut for_ever = waiting();
        for_ever.message.expires_at = None;
        let bytes = encode(&for_ever, Kind::Later);
        // An earlier version can read it.
        assert_eq!(bytes[0], VERSION);
        assert_eq!(decode(bytes, 100), Some(for_ever));
    }

    #[test]
    fn one_too_many_is_refused() {
        assert!(check_count(limits::DELAYED_MESSAGES - 1).is_ok());
        let refused = check_count(limits::DELAYED_MESSAGES);
        assert!(matches!(refused, Err(PublishError::QuotaExceeded(_))));
    }
}
