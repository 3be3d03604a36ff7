//! Splits a byte stream into packets: fixed header (section 2.1), incremental, bounded before anything is buffered.

use crate::reason::codes;
use crate::wire::{Reader, put_variable_byte_integer, variable_byte_integer};
use crate::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Packet, Publish, SubAck, Subscribe,
    TopicName, UnsubAck, Unsubscribe, Version, limits,
};
use bytes::{BufMut, BytesMut};

/// Decodes one side of one connection.
#[derive(Debug)]
pub struct Decoder {
    /// `None` until CONNECT was seen.
    version: Option<Version>,
    /// Is it known who the client is?
    is_known: bool,
    max_packet_size: usize,
    /// Of the last PUBLISH: most clients publish to one topic again and again.
    topic: Option<TopicName>,
}

impl Decoder {
    /// For a server: the first packet must be CONNECT and sets the version. Until [`Decoder::client_is_known`] packets are bounded by
    /// [`limits::MAX_CONNECT_SIZE`], afterwards by `max_packet_size` (bytes, fixed header included).
    pub fn server(max_packet_size: usize) -> Decoder {
        Decoder {
            version: None,
            is_known: false,
            max_packet_size,
            topic: None,
        }
    }

    /// For a client, or a server that has seen CONNECT elsewhere.
    pub fn with_version(version: Version, max_packet_size: usize) -> Decoder {
        Decoder {
            version: Some(version),
            is_known: true,
            max_packet_size,
            topic: None,
        }
    }

    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// It may send packets of every size that is allowed. CONNECT alone does not say who somebody is: AUTH may come between (section 4.12).
    pub fn client_is_known(&mut self) {
        self.is_known = true;
    }

    /// The size of the packet that begins here, whole or not. `None`: its header is yet to come, or is none, or says more than is allowed.
    pub fn next_size(&self, buffer: &[u8]) -> Option<usize> {
        let (remaining, used) = variable_byte_integer(buffer.get(1..)?).ok()??;
        Some(1 + used + remaining).filter(|size| *size <= self.largest())
    }

    fn largest(&self) -> usize {
        if self.is_known {
            self.max_packet_size
        } else {
            limits::MAX_CONNECT_SIZE.min(self.max_packet_size)
        }
    }

    /// Takes one packet off the front. `Ok(None)` = more bytes are needed. After an error the connection is over.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(first) = buffer.first().copied() else {
            return Ok(None);
        };
        if self.version.is_none() && first != 0x10 {
            return Err(DecodeError::Protocol(
                "the first packet is not CONNECT [MQTT-3.1.0-1]",
            ));
        }
        let Some((remaining, used)) = variable_byte_integer(buffer.get(1..).unwrap_or_default())?
        else {
            return Ok(None);
        };
        let size = 1 + used + remaining;
        let limit = self.largest();
        if size > limit {
            return Err(DecodeError::PacketTooLarge { size, limit });
        }
        if buffer.len() < size {
            if self.version.is_none() {
                // Who does not speak MQTT is not waited for.
                Connect::judge_beginning(buffer.get(1 + used..).unwrap_or_default())?;
            }
            return Ok(None);
        }
        let mut packet = buffer.split_to(size).freeze();
        let body = Reader(packet.split_off(1 + used));
        self.decode_body(first, body).map(Some)
    }

    fn decode_body(&mut self, first: u8, body: Reader) -> Result<Packet, DecodeError> {
        let (kind, flags) = (first >> 4, first & 0x0F);
        // SUBSCRIBE, UNSUBSCRIBE and PUBREL have 0b0010 by history; PUBLISH has real flags.
        let expected = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
        if kind != 3 && flags != expected {
            return Err(DecodeError::Malformed(
                "reserved flags of the fixed header [MQTT-2.1.3-1]",
            ));
        }
        let Some(version) = self.version else {
            let connect = Connect::decode(body)?;
            self.version = Some(connect.version);
            return Ok(Packet::Connect(Box::new(connect)));
        };
        Ok(match kind {
            1 => return Err(DecodeError::Protocol("a second CONNECT [MQTT-3.1.0-2]")),
            2 => Packet::ConnAck(Box::new(ConnAck::decode(body, version)?)),
            3 => Packet::Publish(Box::new(Publish::decode(
                flags,
                body,
                version,
                &mut self.topic,
            )?)),
            4 => Packet::PubAck(Ack::decode(body, version, codes::PUBACK)?),
            5 => Packet::PubRec(Ack::decode(body, version, codes::PUBACK)?),
            6 => Packet::PubRel(Ack::decode(body, version, codes::PUBREL)?),
            7 => Packet::PubComp(Ack::decode(body, version, codes::PUBREL)?),
            8 => Packet::Subscribe(Subscribe::decode(body, version)?),
            9 => Packet::SubAck(SubAck::decode(body, version)?),
            10 => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
            11 => Packet::UnsubAck(UnsubAck::decode(body, version)?),
            12 | 13 if !body.is_empty() => {
                return Err(DecodeError::Malformed("a ping with a body"));
            }
            12 => Packet::PingReq,
            13 => Packet::PingResp,
            14 => Packet::Disconnect(Disconnect::decode(body, version)?),
            15 => Packet::Auth(Auth::decode(body, version)?),
            _ => {
                return Err(DecodeError::Malformed(
                    "packet type 0 is reserved (section 2.1.2)",
                ));
            }
        })
    }
}

/// Appends the packet as this version writes it.
pub fn encode(packet: &Packet, version: Version, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    let first = match packet {
        Packet::Publish(p) => return p.encode(version, out),
        Packet::Connect(p) => {
            p.encode(&mut body);
            0x10
        }
        Packet::ConnAck(p) => {
            p.encode(version, &mut body);
            0x20
        }
        Packet::PubAck(p) => {
            p.encode(version, &mut body);
            0x40
        }
        Packet::PubRec(p) => {
            p.encode(version, &mut body);
            0x50
        }
        Packet::PubRel(p) => {
            p.encode(version, &mut body);
            0x62
        }
        Packet::PubComp(p) => {
            p.encode(version, &mut body);
            0x70
        }
        Packet::Subscribe(p) => {
            p.encode(version, &mut body);
            0x82
        }
        Packet::SubAck(p) => {
            p.encode(version, &mut body);
            0x90
        }
        Packet::Unsubscribe(p) => {
            p.encode(version, &mut body);
            0xA2
        }
        Packet::UnsubAck(p) => {
            p.encode(version, &mut body);
            0xB0
        }
        Packet::PingReq => 0xC0,
        Packet::PingResp => 0xD0,
        Packet::Disconnect(p) => {
            p.encode(version, &mut body);
            0xE0
        }
        Packet::Auth(p) => {
            p.encode(&mut body);
            0xF0
        }
    };
    out.put_u8(first);
    put_variable_byte_integer(out, body.len());
    out.extend_from_slice(&body);
}
