//! What a client sends before it is connected.

use crate::limits;
use crate::unfinished::{NoRoom, Room, Unfinished};
use bytes::BytesMut;
use mqtt_codec::{DecodeError, Decoder, Packet};
use std::future::pending;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};

pub(crate) struct Incoming<S> {
    pub reader: ReadHalf<S>,
    pub decoder: Decoder,
    /// Bytes behind the last packet that are here already.
    pub input: BytesMut,
    /// All bytes that have come, these too.
    pub read: u64,
    /// For the last packet too: it is in use.
    unfinished: Unfinished,
    room: Arc<Room>,
}

pub(crate) enum NoPacket {
    /// The client went away.
    Gone,
    NoRoom,
    Wrong(DecodeError),
}

impl From<NoRoom> for NoPacket {
    fn from(_: NoRoom) -> NoPacket {
        NoPacket::NoRoom
    }
}

impl<S: AsyncRead> Incoming<S> {
    pub fn new(reader: ReadHalf<S>, decoder: Decoder, room: Arc<Room>) -> Incoming<S> {
        Incoming {
            reader,
            decoder,
            input: BytesMut::new(),
            read: 0,
            unfinished: Unfinished::default(),
            room,
        }
    }

    pub async fn next(&mut self) -> Result<Packet, NoPacket> {
        loop {
            let packet = self.decoder.decode(&mut self.input);
            if let Some(packet) = packet.map_err(NoPacket::Wrong)? {
                return Ok(packet);
            }
            self.unfinished
                .note(&self.room, &self.decoder, &self.input)?;
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), NoPacket> {
        self.input.reserve(1024);
        match self.reader.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(NoPacket::Gone),
            Ok(read) => {
                self.read += read as u64;
                Ok(())
            }
        }
    }

    /// Takes what there is, up to a bound, while the client waits for CONNACK; returns only when it has left.
    pub async fn gone(&mut self) {
        while self.input.len() < limits::READ_BEFORE_CONNACK {
            if self.more().await.is_err() {
                return;
            }
        }
        pending().await
    }
}
