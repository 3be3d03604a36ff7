//! The streams with their configuration, in the cold store: a small object, written again when one of them has changed, and before a segment
//! counts. A checkpoint there is older than the newest segment, and a segment knows the names of its streams alone.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use std::sync::atomic::Ordering;

use crate::codec::{Decoder, Malformed, len_u32};
use crate::error::ColdTierError;
use crate::kernel::Kernel;
use crate::limits::COLD_CHECKPOINTS;
use crate::ports::cold::{ColdError, ColdStore};
use crate::snapshot::{get_stream, put_stream};
use crate::state::{Directory, State};
use crate::stream::Stream;

const MAGIC: &[u8; 8] = b"TLSTRMS\0";
const VERSION: u32 = 1;
/// Magic, version, CRC-32C of the body.
const HEADER: usize = 16;

/// All streams of a log.
#[derive(Debug)]
pub(super) struct StreamList {
    next_stream: u64,
    streams: Vec<Stream>,
}

fn prefix(log: Uuid) -> String {
    format!("{log}/streams/")
}

/// The key of the list that knows at least what is applied up to an entry.
fn key(log: Uuid, index: u64) -> String {
    format!("{}{index:020}.streams", prefix(log))
}

fn index_of(log: Uuid, key: &str) -> Option<u64> {
    let digits = key.strip_prefix(&prefix(log))?.strip_suffix(".streams")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

fn encode(directory: &Directory) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u64_le(directory.next_stream);
    body.put_u32_le(len_u32(directory.by_id.len()));
    for stream in directory.by_id.values() {
        put_stream(&mut body, stream);
    }
    let mut object = BytesMut::with_capacity(HEADER + body.len());
    object.put_slice(MAGIC);
    object.put_u32_le(VERSION);
    object.put_u32_le(crc32c::crc32c(&body));
    object.put_slice(&body);
    object.freeze()
}

fn decode(mut object: Bytes) -> Result<StreamList, Malformed> {
    if object.len() < HEADER || !object.starts_with(MAGIC) {
        return Err(Malformed("it is no list of streams"));
    }
    let mut header = Decoder::new(object.split_to(HEADER).slice(MAGIC.len()..));
    if header.u32()? != VERSION {
        return Err(Malformed("the version is not known"));
    }
    if header.u32()? != crc32c::crc32c(&object) {
        return Err(Malformed("the checksum does not match"));
    }
    let mut from = Decoder::new(object);
    let next_stream = from.u64()?;
    let streams = (0..from.count(32)?).map(|_| get_stream(&mut from));
    Ok(StreamList {
        next_stream,
        streams: streams.collect::<Result<_, _>>()?,
    })
}

impl StreamList {
    /// Makes the streams of a state those of the list.
    pub fn apply(self, state: &State) {
        let known: Vec<_> = state.directory.read().by_id.keys().copied().collect();
        for id in known {
            if self.streams.iter().all(|stream| stream.id != id) {
                state.delete_stream(id);
            }
        }
        let mut directory = state.directory.write();
        directory.next_stream = directory.next_stream.max(self.next_stream);
        for stream in self.streams {
            State::place_stream(&mut directory, stream);
        }
    }
}

/// The newest sound list and its index, the index of the newest there is; what is damaged is added to `damaged`.
pub(super) async fn newest_list(
    store: &dyn ColdStore,
    log: Uuid,
    damaged: &mut Vec<(String, String)>,
) -> Result<(Option<(u64, StreamList)>, u64), ColdError> {
    let objects = store.list(&prefix(log)).await?;
    let mut found: Vec<_> = objects
        .into_iter()
        .filter_map(|object| Some((index_of(log, &object.key)?, object)))
        .collect();
    found.sort_unstable_by_key(|(index, _)| *index);
    let newest = found.last().map_or(0, |(index, _)| *index);
    for (index, object) in found.into_iter().rev() {
        match store.get(&object.key, 0..object.bytes).await.map(decode) {
            Ok(Ok(list)) => return Ok((Some((index, list)), newest)),
            Ok(Err(error)) => damaged.push((object.key, error.to_string())),
            Err(ColdError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((None, newest))
}

impl Kernel {
    /// Writes the list of streams to the cold store, if it is another than the one there.
    pub(super) async fn keep_streams(&self) -> Result<(), ColdTierError> {
        let mut kept = self.core.cold.streams_kept.lock().await;
        let generation = *self.core.state.streams_changed.borrow();
        if *kept == Some(generation) {
            return Ok(());
        }
        // In this order: the list knows at least what its name and its generation say.
        let index = self.core.written.applied.load(Ordering::Acquire);
        let list = {
            let directory = self.core.state.directory.read();
            // Without a stream ever nothing is claimed for it; but that the last one is gone has to be known there.
            let unclaimed = || self.core.state.cold.lock().log.is_none();
            let none = kept.is_none() && directory.by_id.is_empty() && unclaimed();
            (!none).then(|| encode(&directory))
        };
        if let Some(list) = list {
            let owner = self.own_cold().await?;
            self.still_own_cold(owner).await?;
            let store = &self.core.ports.cold;
            let mut upload = store.upload(&key(owner.log, index)).await?;
            let sent = match upload.part(vec![list]).await {
                Ok(()) => upload.finish().await,
                failed => failed,
            };
            if let Err(error) = sent {
                // What the store holds of it is its own to clean up, should this fail as well.
                drop(upload.abort().await);
                return Err(error.into());
            }
            let objects = store.list(&prefix(owner.log)).await?;
            let mut indexes: Vec<u64> = objects
                .iter()
                .filter_map(|object| index_of(owner.log, &object.key))
                .filter(|known| *known <= index)
                .collect();
            indexes.sort_unstable();
            let old = indexes.len().saturating_sub(COLD_CHECKPOINTS);
            for index in indexes.into_iter().take(old) {
                store.delete(&key(owner.log, index)).await?;
            }
        }
        *kept = Some(generation);
        Ok(())
    }
}
