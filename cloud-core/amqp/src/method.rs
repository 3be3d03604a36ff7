//! Methods a client may send (clause 1.2 to 1.8 of the reference), read from the payload of a method frame.

use bytes::Bytes;

use crate::{
    error::{Exception, code},
    wire::{Reader, Table, WireError},
};

/// Class and method numbers, as `channel.close` and `connection.close` report them.
pub type MethodId = (u16, u16);

#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    ConnectionStartOk(StartOk),
    ConnectionTuneOk {
        channel_max: u16,
        frame_max: u32,
        heartbeat: u16,
    },
    ConnectionOpen {
        vhost: String,
    },
    ConnectionClose {
        code: u16,
        text: String,
    },
    ConnectionCloseOk,
    ChannelOpen,
    ChannelFlow {
        active: bool,
    },
    ChannelFlowOk,
    ChannelClose {
        code: u16,
        text: String,
    },
    ChannelCloseOk,
    ExchangeDeclare(ExchangeDeclare),
    ExchangeDelete {
        exchange: String,
        if_unused: bool,
        nowait: bool,
    },
    ExchangeBind(ExchangeBind),
    ExchangeUnbind(ExchangeBind),
    QueueDeclare(QueueDeclare),
    QueueBind(QueueBind),
    QueueUnbind(QueueBind),
    QueuePurge {
        queue: String,
        nowait: bool,
    },
    QueueDelete {
        queue: String,
        if_unused: bool,
        if_empty: bool,
        nowait: bool,
    },
    BasicQos {
        size: u32,
        count: u16,
        global: bool,
    },
    BasicConsume(Consume),
    BasicCancel {
        consumer_tag: String,
        nowait: bool,
    },
    BasicPublish(Publish),
    BasicGet {
        queue: String,
        no_ack: bool,
    },
    BasicAck {
        delivery_tag: u64,
        multiple: bool,
    },
    BasicNack {
        delivery_tag: u64,
        multiple: bool,
        requeue: bool,
    },
    BasicReject {
        delivery_tag: u64,
        requeue: bool,
    },
    BasicRecover {
        requeue: bool,
        asynchronous: bool,
    },
    ConfirmSelect {
        nowait: bool,
    },
    TxSelect,
    TxCommit,
    TxRollback,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StartOk {
    pub client_properties: Table,
    pub mechanism: String,
    pub response: Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeDeclare {
    pub exchange: String,
    pub kind: String,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub nowait: bool,
    pub arguments: Table,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeBind {
    pub destination: String,
    pub source: String,
    pub routing_key: String,
    pub nowait: bool,
    pub arguments: Table,
}

#[derive(Debug, Clone, PartialEq)]
pub struct QueueDeclare {
    pub queue: String,
    pub passive: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub nowait: bool,
    pub arguments: Table,
}

/// `queue.bind`; `queue.unbind` is the same without `nowait` (then false).
#[derive(Debug, Clone, PartialEq)]
pub struct QueueBind {
    pub queue: String,
    pub exchange: String,
    pub routing_key: String,
    pub nowait: bool,
    pub arguments: Table,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Consume {
    pub queue: String,
    pub consumer_tag: String,
    pub no_local: bool,
    pub no_ack: bool,
    pub exclusive: bool,
    pub nowait: bool,
    pub arguments: Table,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    pub exchange: String,
    pub routing_key: String,
    pub mandatory: bool,
    pub immediate: bool,
}

fn bit(bits: u8, n: u8) -> bool {
    bits & (1 << n) != 0
}

impl Method {
    /// The numbers at the front of a method's payload.
    pub fn id_of(payload: &Bytes) -> Result<MethodId, WireError> {
        let mut r = Reader::new(payload.clone());
        Ok((r.u16()?, r.u16()?))
    }

    /// Reads a whole method. Unknown classes and methods are 540 NOT_IMPLEMENTED or 503 COMMAND_INVALID; bytes missing or left over are 502.
    pub fn parse(payload: Bytes) -> Result<Method, Exception> {
        let mut r = Reader::new(payload);
        let (class, method) = (r.u16()?, r.u16()?);
        let parsed = match (class, method) {
            (10, 11) => {
                let client_properties = r.table()?;
                let mechanism = r.short_str()?;
                let response = r.long_bytes()?;
                let _locale = r.short_bytes()?;
                Method::ConnectionStartOk(StartOk {
                    client_properties,
                    mechanism,
                    response,
                })
            }
            (10, 31) => Method::ConnectionTuneOk {
                channel_max: r.u16()?,
                frame_max: r.u32()?,
                heartbeat: r.u16()?,
            },
            (10, 40) => {
                let vhost = r.short_str()?;
                let _capabilities = r.short_bytes()?;
                let _insist = r.u8()?;
                Method::ConnectionOpen { vhost }
            }
            (10, 50) => {
                let (code, text) = Self::close(&mut r)?;
                Method::ConnectionClose { code, text }
            }
            (10, 51) => Method::ConnectionCloseOk,
            (20, 10) => {
                let _out_of_band = r.short_bytes()?;
                Method::ChannelOpen
            }
            (20, 20) => Method::ChannelFlow {
                active: bit(r.u8()?, 0),
            },
            (20, 21) => {
                let _active = r.u8()?;
                Method::ChannelFlowOk
            }
            (20, 40) => {
                let (code, text) = Self::close(&mut r)?;
                Method::ChannelClose { code, text }
            }
            (20, 41) => Method::ChannelCloseOk,
            (40, 10) => {
                let _ticket = r.u16()?;
                let (exchange, kind, bits) = (r.short_str()?, r.short_str()?, r.u8()?);
                Method::ExchangeDeclare(ExchangeDeclare {
                    exchange,
                    kind,
                    passive: bit(bits, 0),
                    durable: bit(bits, 1),
                    auto_delete: bit(bits, 2),
                    internal: bit(bits, 3),
                    nowait: bit(bits, 4),
                    arguments: r.table()?,
                })
            }
            (40, 20) => {
                let _ticket = r.u16()?;
                let (exchange, bits) = (r.short_str()?, r.u8()?);
                Method::ExchangeDelete {
                    exchange,
                    if_unused: bit(bits, 0),
                    nowait: bit(bits, 1),
                }
            }
            (40, 30) => Method::ExchangeBind(Self::exchange_bind(&mut r)?),
            (40, 40) => Method::ExchangeUnbind(Self::exchange_bind(&mut r)?),
            (50, 10) => {
                let _ticket = r.u16()?;
                let (queue, bits) = (r.short_str()?, r.u8()?);
                Method::QueueDeclare(QueueDeclare {
                    queue,
                    passive: bit(bits, 0),
                    durable: bit(bits, 1),
                    exclusive: bit(bits, 2),
                    auto_delete: bit(bits, 3),
                    nowait: bit(bits, 4),
                    arguments: r.table()?,
                })
            }
            (50, 20) => {
                let _ticket = r.u16()?;
                let (queue, exchange, routing_key, bits) =
                    (r.short_str()?, r.short_str()?, r.short_str()?, r.u8()?);
                Method::QueueBind(QueueBind {
                    queue,
                    exchange,
                    routing_key,
                    nowait: bit(bits, 0),
                    arguments: r.table()?,
                })
            }
            (50, 50) => {
                let _ticket = r.u16()?;
                let (queue, exchange, routing_key) =
                    (r.short_str()?, r.short_str()?, r.short_str()?);
                Method::QueueUnbind(QueueBind {
                    queue,
                    exchange,
                    routing_key,
                    nowait: false,
                    arguments: r.table()?,
                })
            }
            (50, 30) => {
                let _ticket = r.u16()?;
                Method::QueuePurge {
                    queue: r.short_str()?,
                    nowait: bit(r.u8()?, 0),
                }
            }
            (50, 40) => {
                let _ticket = r.u16()?;
                let (queue, bits) = (r.short_str()?, r.u8()?);
                Method::QueueDelete {
                    queue,
                    if_unused: bit(bits, 0),
                    if_empty: bit(bits, 1),
                    nowait: bit(bits, 2),
                }
            }
            (60, 10) => Method::BasicQos {
                size: r.u32()?,
                count: r.u16()?,
                global: bit(r.u8()?, 0),
            },
            (60, 20) => {
                let _ticket = r.u16()?;
                let (queue, consumer_tag, bits) = (r.short_str()?, r.short_str()?, r.u8()?);
                Method::BasicConsume(Consume {
                    queue,
                    consumer_tag,
                    no_local: bit(bits, 0),
                    no_ack: bit(bits, 1),
                    exclusive: bit(bits, 2),
                    nowait: bit(bits, 3),
                    arguments: r.table()?,
                })
            }
            (60, 30) => Method::BasicCancel {
                consumer_tag: r.short_str()?,
                nowait: bit(r.u8()?, 0),
            },
            (60, 40) => {
                let _ticket = r.u16()?;
                let (exchange, routing_key, bits) = (r.short_str()?, r.short_str()?, r.u8()?);
                Method::BasicPublish(Publish {
                    exchange,
                    routing_key,
                    mandatory: bit(bits, 0),
                    immediate: bit(bits, 1),
                })
            }
            (60, 70) => {
                let _ticket = r.u16()?;
                Method::BasicGet {
                    queue: r.short_str()?,
                    no_ack: bit(r.u8()?, 0),
                }
            }
            (60, 80) => Method::BasicAck {
                delivery_tag: r.u64()?,
                multiple: bit(r.u8()?, 0),
            },
            (60, 90) => Method::BasicReject {
                delivery_tag: r.u64()?,
                requeue: bit(r.u8()?, 0),
            },
            (60, 100) => Method::BasicRecover {
                requeue: bit(r.u8()?, 0),
                asynchronous: true,
            },
            (60, 110) => Method::BasicRecover {
                requeue: bit(r.u8()?, 0),
                asynchronous: false,
            },
            (60, 120) => {
                let (delivery_tag, bits) = (r.u64()?, r.u8()?);
                Method::BasicNack {
                    delivery_tag,
                    multiple: bit(bits, 0),
                    requeue: bit(bits, 1),
                }
            }
            (85, 10) => Method::ConfirmSelect {
                nowait: bit(r.u8()?, 0),
            },
            (90, 10) => Method::TxSelect,
            (90, 20) => Method::TxCommit,
            (90, 30) => Method::TxRollback,
            (10, 70) => {
                return Err(Exception::connection(
                    code::NOT_IMPLEMENTED,
                    "connection.update-secret is not implemented",
                ));
            }
            (30, _) => {
                return Err(Exception::connection(
                    code::NOT_IMPLEMENTED,
                    "access.request is not implemented",
                ));
            }
            _ => {
                return Err(Exception::connection(
                    code::COMMAND_INVALID,
                    format_args!("unknown method {method} of class {class}"),
                ));
            }
        };
        r.finish()?;
        Ok(parsed)
    }

    fn close(r: &mut Reader) -> Result<(u16, String), WireError> {
        let code = r.u16()?;
        let text = String::from_utf8_lossy(&r.short_bytes()?).into_owned();
        let (_class, _method) = (r.u16()?, r.u16()?);
        Ok((code, text))
    }

    fn exchange_bind(r: &mut Reader) -> Result<ExchangeBind, WireError> {
        let _ticket = r.u16()?;
        let (destination, source, routing_key, bits) =
            (r.short_str()?, r.short_str()?, r.short_str()?, r.u8()?);
        Ok(ExchangeBind {
            destination,
            source,
            routing_key,
            nowait: bit(bits, 0),
            arguments: r.table()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::{
        protocol::{AMQPClass, basic, exchange, gen_class, queue},
        types::{AMQPValue, FieldTable},
    };
    use proptest::prelude::*;

    fn theirs(class: AMQPClass) -> Method {
        Method::parse(crate::oracle::written(gen_class(&class))).unwrap()
    }

    /// amq-protocol is generated from the specification: what it writes we must read as the same.
    #[test]
    fn methods_written_by_amq_protocol() {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("classic".into()),
        );
        assert_eq!(
            theirs(AMQPClass::Queue(queue::AMQPMethod::Declare(
                queue::Declare {
                    queue: "q".into(),
                    passive: false,
                    durable: true,
                    exclusive: false,
                    auto_delete: true,
                    nowait: false,
                    arguments,
                }
            ))),
            Method::QueueDeclare(QueueDeclare {
                queue: "q".into(),
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: true,
                nowait: false,
                arguments: Table::default()
                    .with("x-queue-type", crate::wire::Value::text("classic")),
            })
        );
        assert_eq!(
            theirs(AMQPClass::Basic(basic::AMQPMethod::Nack(basic::Nack {
                delivery_tag: 7,
                multiple: true,
                requeue: false
            }))),
            Method::BasicNack {
                delivery_tag: 7,
                multiple: true,
                requeue: false
            }
        );
        assert_eq!(
            theirs(AMQPClass::Basic(basic::AMQPMethod::Publish(
                basic::Publish {
                    exchange: "e".into(),
                    routing_key: "a.b".into(),
                    mandatory: true,
                    immediate: false,
                }
            ))),
            Method::BasicPublish(Publish {
                exchange: "e".into(),
                routing_key: "a.b".into(),
                mandatory: true,
                immediate: false
            })
        );
        assert_eq!(
            theirs(AMQPClass::Exchange(exchange::AMQPMethod::Delete(
                exchange::Delete {
                    exchange: "e".into(),
                    if_unused: true,
                    nowait: false
                }
            ))),
            Method::ExchangeDelete {
                exchange: "e".into(),
                if_unused: true,
                nowait: false
            }
        );
    }

    #[test]
    fn what_is_not_a_method_has_the_right_code() {
        for (bytes, expected) in [
            (&[0u8, 10, 0, 70][..], code::NOT_IMPLEMENTED),
            (&[0, 60, 0, 99], code::COMMAND_INVALID),
            (&[0, 99, 0, 1], code::COMMAND_INVALID),
            (&[0, 60, 0, 80, 1], code::SYNTAX_ERROR),
            (&[0, 10, 0, 51, 1], code::SYNTAX_ERROR),
            (&[0], code::SYNTAX_ERROR),
        ] {
            assert_eq!(
                Method::parse(Bytes::copy_from_slice(bytes))
                    .unwrap_err()
                    .code,
                expected,
                "{bytes:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_method_or_an_exception(class in prop_oneof![Just(10u8), Just(20), Just(40), Just(50), Just(60), Just(85)], method in 0u8..130, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = vec![0, class, 0, method];
            bytes.extend(rest);
            let _ = Method::parse(bytes.into());
        }
    }
}
