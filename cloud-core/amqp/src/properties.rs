//! The property block of a content header of class basic (clause 1.8.1 of the reference).

use bytes::{BufMut, Bytes, BytesMut};

use crate::wire::{Reader, Table, WireError, put_short};

/// Property flags, highest bit first, in the order the values follow.
const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;

/// The properties the broker itself looks at. The block is kept and handed on as it came, so what is not here is not lost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    pub content_type: Option<Bytes>,
    pub headers: Option<Table>,
    pub correlation_id: Option<Bytes>,
    pub reply_to: Option<Bytes>,
    /// Milliseconds as decimal text.
    pub expiration: Option<Bytes>,
    pub message_id: Option<Bytes>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub user_id: Option<Bytes>,
}

impl Properties {
    /// Reads a block: flags, then the values they announce. All of it is checked, also what is not kept.
    pub fn parse(block: Bytes) -> Result<Properties, WireError> {
        let mut r = Reader::new(block);
        let flags = r.u16()?;
        // Bit 1 is unused in this class and bit 0 announces a second word of flags, which this class has no use for.
        if flags & 0b11 != 0 {
            return Err(WireError::Trailing);
        }
        let has = |bit: u16| flags & bit != 0;
        let mut p = Properties::default();
        if has(CONTENT_TYPE) {
            p.content_type = Some(r.short_bytes()?);
        }
        if has(CONTENT_ENCODING) {
            r.short_bytes()?;
        }
        if has(HEADERS) {
            p.headers = Some(r.table()?);
        }
        if has(DELIVERY_MODE) {
            r.u8()?;
        }
        if has(PRIORITY) {
            r.u8()?;
        }
        if has(CORRELATION_ID) {
            p.correlation_id = Some(r.short_bytes()?);
        }
        if has(REPLY_TO) {
            p.reply_to = Some(r.short_bytes()?);
        }
        if has(EXPIRATION) {
            p.expiration = Some(r.short_bytes()?);
        }
        if has(MESSAGE_ID) {
            p.message_id = Some(r.short_bytes()?);
        }
        if has(TIMESTAMP) {
            p.timestamp = Some(r.u64()?);
        }
        for bit in [TYPE, USER_ID, APP_ID, CLUSTER_ID] {
            if has(bit) {
                let value = r.short_bytes()?;
                if bit == USER_ID {
                    p.user_id = Some(value);
                }
            }
        }
        r.finish()?;
        Ok(p)
    }

    /// Writes a block of these properties, for records that no AMQP client wrote.
    pub fn block(&self) -> Bytes {
        let mut flags = 0;
        let mut out = BytesMut::new();
        let mut short = |out: &mut BytesMut, bit: u16, value: &Option<Bytes>| {
            if let Some(value) = value {
                flags |= bit;
                put_short(out, value);
            }
        };
        out.put_u16(0);
        short(&mut out, CONTENT_TYPE, &self.content_type);
        let mut table_flag = 0;
        if let Some(headers) = &self.headers {
            table_flag = HEADERS;
            headers.put(&mut out);
        }
        short(&mut out, CORRELATION_ID, &self.correlation_id);
        short(&mut out, REPLY_TO, &self.reply_to);
        short(&mut out, EXPIRATION, &self.expiration);
        short(&mut out, MESSAGE_ID, &self.message_id);
        let mut time_flag = 0;
        if let Some(seconds) = self.timestamp {
            time_flag = TIMESTAMP;
            out.put_u64(seconds);
        }
        short(&mut out, USER_ID, &self.user_id);
        let flags = flags | table_flag | time_flag;
        if let Some(field) = out.get_mut(..2) {
            field.copy_from_slice(&flags.to_be_bytes());
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Value;
    use amq_protocol::protocol::basic::{AMQPProperties, gen_properties};
    use amq_protocol::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;

    #[test]
    fn a_block_written_by_amq_protocol() {
        let mut headers = FieldTable::default();
        headers.insert("h".into(), AMQPValue::LongInt(-5));
        let theirs = AMQPProperties::default()
            .with_content_type("text/plain".into())
            .with_content_encoding("gzip".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(3)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("1000".into())
            .with_message_id("m".into())
            .with_timestamp(77)
            .with_type("t".into())
            .with_user_id("guest".into())
            .with_app_id("a".into())
            .with_cluster_id("x".into());
        let ours = Properties::parse(crate::oracle::written(gen_properties(&theirs))).unwrap();
        assert_eq!(
            ours,
            Properties {
                content_type: Some("text/plain".into()),
                headers: Some(Table::default().with("h", Value::Int(b'I', -5))),
                correlation_id: Some("c".into()),
                reply_to: Some("r".into()),
                expiration: Some("1000".into()),
                message_id: Some("m".into()),
                timestamp: Some(77),
                user_id: Some("guest".into()),
            }
        );
        assert_eq!(Properties::parse(ours.block()).unwrap(), ours);
    }

    proptest! {
        #[test]
        fn any_bytes_are_properties_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Properties::parse(bytes.into());
        }
    }
}
