//! What entries and checkpoints have in common: partitions, addresses, settings, bitmaps.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use record::{Namespace, StreamAddress, StreamName};
use roaring::RoaringTreemap;

use crate::codec::{Decoder, Encode, Malformed, len_u32};
use crate::kernel::AbortedTransaction;
use crate::stream::{PartitionId, StreamId};

pub(crate) fn put_partition(out: &mut BytesMut, partition: PartitionId) {
    out.put_u64_le(partition.stream.0);
    out.put_u32_le(partition.partition);
}

pub(crate) fn get_partition(from: &mut Decoder) -> Result<PartitionId, Malformed> {
    Ok(PartitionId {
        stream: StreamId(from.u64()?),
        partition: from.u32()?,
    })
}

/// Bytes of an encoded [`AbortedTransaction`].
pub(crate) const ABORTED: usize = 24;

pub(crate) fn put_aborted(out: &mut BytesMut, aborted: &AbortedTransaction) {
    out.put_i64_le(aborted.producer_id);
    out.put_i64_le(aborted.first_offset);
    out.put_i64_le(aborted.last_offset);
}

pub(crate) fn get_aborted(from: &mut Decoder) -> Result<AbortedTransaction, Malformed> {
    Ok(AbortedTransaction {
        producer_id: from.i64()?,
        first_offset: from.i64()?,
        last_offset: from.i64()?,
    })
}

pub(crate) fn put_address(out: &mut BytesMut, address: &StreamAddress) {
    out.bytes_with_len(address.namespace.as_str().as_bytes());
    out.bytes_with_len(address.name.as_str().as_bytes());
}

pub(crate) fn get_address(from: &mut Decoder) -> Result<StreamAddress, Malformed> {
    let namespace = Namespace::new(&from.string()?).map_err(|_| Malformed("namespace"))?;
    let name = StreamName::new(&from.string()?).map_err(|_| Malformed("stream name"))?;
    Ok(StreamAddress::new(namespace, name))
}

pub(crate) fn put_config(out: &mut BytesMut, config: &BTreeMap<String, String>) {
    out.put_u32_le(len_u32(config.len()));
    for (key, value) in config {
        out.bytes_with_len(key.as_bytes());
        out.bytes_with_len(value.as_bytes());
    }
}

pub(crate) fn get_config(from: &mut Decoder) -> Result<BTreeMap<String, String>, Malformed> {
    (0..from.count(8)?)
        .map(|_| Ok((from.string()?, from.string()?)))
        .collect()
}

pub(crate) fn put_bitmap(out: &mut BytesMut, bitmap: &RoaringTreemap) {
    out.put_u32_le(len_u32(bitmap.serialized_size()));
    let mut writer = out.writer();
    // Writing to memory does not fail.
    let _ = bitmap.serialize_into(&mut writer);
}

pub(crate) fn get_bitmap(from: &mut Decoder) -> Result<RoaringTreemap, Malformed> {
    RoaringTreemap::deserialize_from(&from.bytes()?[..]).map_err(|_| Malformed("bitmap"))
}
