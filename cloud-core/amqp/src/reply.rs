//! Methods we send, written straight into the output as frames.

use bytes::{BufMut, BytesMut};

use crate::{
    frame,
    method::MethodId,
    wire::{Table, put_long, put_short},
};

fn method(out: &mut BytesMut, channel: u16, id: MethodId, fill: impl FnOnce(&mut BytesMut)) {
    frame::put(out, frame::METHOD, channel, |out| {
        out.put_u16(id.0);
        out.put_u16(id.1);
        fill(out);
    });
}

/// A method without arguments: the many `-ok`s.
pub fn plain(out: &mut BytesMut, channel: u16, id: MethodId) {
    method(out, channel, id, |_| {});
}

pub const CONNECTION_CLOSE_OK: MethodId = (10, 51);
pub const CHANNEL_CLOSE_OK: MethodId = (20, 41);
pub const EXCHANGE_DECLARE_OK: MethodId = (40, 11);
pub const EXCHANGE_DELETE_OK: MethodId = (40, 21);
pub const EXCHANGE_BIND_OK: MethodId = (40, 31);
/// 51 and not 41: RabbitMQ's extension numbers it so, and every client expects it.
pub const EXCHANGE_UNBIND_OK: MethodId = (40, 51);
pub const QUEUE_BIND_OK: MethodId = (50, 21);
pub const QUEUE_UNBIND_OK: MethodId = (50, 51);
pub const BASIC_QOS_OK: MethodId = (60, 11);
pub const BASIC_RECOVER_OK: MethodId = (60, 111);
pub const CONFIRM_SELECT_OK: MethodId = (85, 11);

pub const TX_SELECT_OK: MethodId = (90, 11);
pub const TX_COMMIT_OK: MethodId = (90, 21);
pub const TX_ROLLBACK_OK: MethodId = (90, 31);

pub fn connection_start(out: &mut BytesMut, properties: &Table, mechanisms: &str) {
    method(out, 0, (10, 10), |out| {
        out.put_u8(0);
        out.put_u8(9);
        properties.put(out);
        put_long(out, mechanisms.as_bytes());
        put_long(out, b"en_US");
    });
}

pub fn connection_tune(out: &mut BytesMut, channel_max: u16, frame_max: u32, heartbeat: u16) {
    method(out, 0, (10, 30), |out| {
        out.put_u16(channel_max);
        out.put_u32(frame_max);
        out.put_u16(heartbeat);
    });
}

pub fn connection_open_ok(out: &mut BytesMut) {
    method(out, 0, (10, 41), |out| out.put_u8(0));
}

pub fn connection_close(out: &mut BytesMut, code: u16, text: &str, cause: MethodId) {
    method(out, 0, (10, 50), |out| close(out, code, text, cause));
}

pub fn channel_open_ok(out: &mut BytesMut, channel: u16) {
    method(out, channel, (20, 11), |out| out.put_u32(0));
}

pub fn channel_flow_ok(out: &mut BytesMut, channel: u16, active: bool) {
    method(out, channel, (20, 21), |out| out.put_u8(u8::from(active)));
}

pub fn channel_close(out: &mut BytesMut, channel: u16, code: u16, text: &str, cause: MethodId) {
    method(out, channel, (20, 40), |out| close(out, code, text, cause));
}

fn close(out: &mut BytesMut, code: u16, text: &str, cause: MethodId) {
    out.put_u16(code);
    put_short(out, text.as_bytes());
    out.put_u16(cause.0);
    out.put_u16(cause.1);
}

pub fn queue_declare_ok(
    out: &mut BytesMut,
    channel: u16,
    queue: &str,
    messages: u32,
    consumers: u32,
) {
    method(out, channel, (50, 11), |out| {
        put_short(out, queue.as_bytes());
        out.put_u32(messages);
        out.put_u32(consumers);
    });
}

/// `queue.purge-ok` (31) and `queue.delete-ok` (41): how many messages went.
pub fn queue_count_ok(out: &mut BytesMut, channel: u16, id: MethodId, messages: u32) {
    method(out, channel, id, |out| out.put_u32(messages));
}

/// `basic.consume-ok` (21), `basic.cancel-ok` (31).
pub fn consumer_tag(out: &mut BytesMut, channel: u16, id: MethodId, tag: &str) {
    method(out, channel, id, |out| put_short(out, tag.as_bytes()));
}

/// `basic.cancel` from us (RabbitMQ extension): the queue of this consumer is gone.
pub fn basic_cancel(out: &mut BytesMut, channel: u16, tag: &str) {
    method(out, channel, (60, 30), |out| {
        put_short(out, tag.as_bytes());
        out.put_u8(1);
    });
}

pub fn basic_return(out: &mut BytesMut, channel: u16, exchange: &str, routing_key: &str) {
    method(out, channel, (60, 50), |out| {
        out.put_u16(crate::error::code::NO_ROUTE);
        put_short(out, b"NO_ROUTE");
        put_short(out, exchange.as_bytes());
        put_short(out, routing_key.as_bytes());
    });
}

pub struct Delivery<'a> {
    pub delivery_tag: u64,
    pub redelivered: bool,
    pub exchange: &'a str,
    pub routing_key: &'a [u8],
}

impl Delivery<'_> {
    fn put(&self, out: &mut BytesMut) {
        out.put_u64(self.delivery_tag);
        out.put_u8(u8::from(self.redelivered));
        put_short(out, self.exchange.as_bytes());
        put_short(out, self.routing_key);
    }
}

pub fn basic_deliver(out: &mut BytesMut, channel: u16, tag: &str, delivery: &Delivery<'_>) {
    method(out, channel, (60, 60), |out| {
        put_short(out, tag.as_bytes());
        delivery.put(out);
    });
}

pub fn basic_get_ok(out: &mut BytesMut, channel: u16, delivery: &Delivery<'_>, remaining: u32) {
    method(out, channel, (60, 71), |out| {
        delivery.put(out);
        out.put_u32(remaining);
    });
}

pub fn basic_get_empty(out: &mut BytesMut, channel: u16) {
    method(out, channel, (60, 72), |out| out.put_u8(0));
}

/// `basic.ack` (80) or, when the write was refused, `basic.nack` (120) to a publisher in confirm mode.
pub fn confirm(out: &mut BytesMut, channel: u16, delivery_tag: u64, multiple: bool, stored: bool) {
    method(
        out,
        channel,
        if stored { (60, 80) } else { (60, 120) },
        |out| {
            out.put_u64(delivery_tag);
            out.put_u8(u8::from(multiple));
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::frame::{AMQPFrame, parsing::parse_frame};
    use amq_protocol::protocol::{AMQPClass, basic, connection, queue};

    fn read(out: &BytesMut) -> AMQPClass {
        let (rest, frame) = parse_frame(&out[..]).unwrap();
        assert!(rest.is_empty());
        match frame {
            AMQPFrame::Method(_, class) => class,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn amq_protocol_reads_what_we_write() {
        let mut out = BytesMut::new();
        connection_start(
            &mut out,
            &Table::default().with("product", crate::wire::Value::text("t")),
            "PLAIN",
        );
        assert!(
            matches!(read(&out), AMQPClass::Connection(connection::AMQPMethod::Start(s)) if s.mechanisms.as_bytes() == b"PLAIN")
        );

        out.clear();
        basic_deliver(
            &mut out,
            3,
            "ctag",
            &Delivery {
                delivery_tag: 9,
                redelivered: true,
                exchange: "e",
                routing_key: b"k",
            },
        );
        let AMQPClass::Basic(basic::AMQPMethod::Deliver(d)) = read(&out) else {
            panic!()
        };
        assert_eq!(
            (
                d.consumer_tag.as_str(),
                d.delivery_tag,
                d.redelivered,
                d.exchange.as_str(),
                d.routing_key.as_str()
            ),
            ("ctag", 9, true, "e", "k")
        );

        out.clear();
        queue_declare_ok(&mut out, 1, "q", 5, 2);
        assert!(
            matches!(read(&out), AMQPClass::Queue(queue::AMQPMethod::DeclareOk(d)) if d.message_count == 5 && d.consumer_count == 2)
        );

        out.clear();
        basic_return(&mut out, 1, "e", "k");
        assert!(
            matches!(read(&out), AMQPClass::Basic(basic::AMQPMethod::Return(r)) if r.reply_code == 312)
        );

        out.clear();
        confirm(&mut out, 1, 4, true, false);
        assert!(
            matches!(read(&out), AMQPClass::Basic(basic::AMQPMethod::Nack(n)) if n.delivery_tag == 4 && n.multiple)
        );
    }
}
