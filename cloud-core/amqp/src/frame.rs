//! Frames (clause 4.2.3): `type(1) channel(2) size(4) payload(size) 0xCE`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub const METHOD: u8 = 1;
pub const HEADER: u8 = 2;
pub const BODY: u8 = 3;
pub const HEARTBEAT: u8 = 8;
pub const END: u8 = 0xCE;
/// Bytes of a frame that are not payload.
pub const OVERHEAD: usize = 8;
const HEAD: usize = 7;

/// The eight bytes a client opens with, and the answer to any other opening (clause 4.2.2).
pub const PROTOCOL_HEADER: [u8; 8] = [b'A', b'M', b'Q', b'P', 0, 0, 9, 1];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {size} bytes is larger than the negotiated maximum of {max}")]
    TooLarge { size: u64, max: u32 },
    #[error("frame type {0} is unknown")]
    UnknownType(u8),
    #[error("a frame ends with {0:#04x} instead of 0xce")]
    NoEnd(u8),
}

/// Takes one whole frame off the front of `input`, or nothing when more bytes are needed. The size is checked as soon as the seven
/// bytes that announce it are there, so what a peer can make us hold is one maximum frame.
pub fn split(input: &mut BytesMut, frame_max: u32) -> Result<Option<Frame>, FrameError> {
    let Some(head) = input.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let [kind, c1, c2, s1, s2, s3, s4] = *head;
    if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(FrameError::UnknownType(kind));
    }
    let size = u32::from_be_bytes([s1, s2, s3, s4]);
    let whole = u64::from(size) + OVERHEAD as u64;
    // The frame's own eight bytes are let pass: some clients (AMQPStorm) count the payload alone, and RabbitMQ lets them.
    if u64::from(size) > u64::from(frame_max) {
        return Err(FrameError::TooLarge {
            size: whole,
            max: frame_max,
        });
    }
    let whole = whole as usize;
    if input.len() < whole {
        input.reserve(whole - input.len());
        return Ok(None);
    }
    let mut frame = input.split_to(whole).freeze();
    match frame.last() {
        Some(&END) => {}
        other => return Err(FrameError::NoEnd(other.copied().unwrap_or_default())),
    }
    frame.truncate(whole - 1);
    frame.advance(HEAD);
    Ok(Some(Frame {
        kind,
        channel: u16::from_be_bytes([c1, c2]),
        payload: frame,
    }))
}

/// Writes one frame whose payload `fill` writes.
pub fn put(out: &mut BytesMut, kind: u8, channel: u16, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    out.put_u16(channel);
    crate::wire::put_sized(out, fill);
    out.put_u8(END);
}

/// Writes content: header frame and as many body frames as `frame_max` asks for.
pub fn put_content(
    out: &mut BytesMut,
    channel: u16,
    frame_max: u32,
    properties: &[u8],
    body: &[u8],
) {
    put(out, HEADER, channel, |out| {
        out.put_u16(60);
        out.put_u16(0);
        out.put_u64(body.len() as u64);
        out.put_slice(properties);
    });
    let chunk = (frame_max as usize).saturating_sub(OVERHEAD).max(1);
    out.reserve(body.len() + body.len().div_ceil(chunk) * OVERHEAD);
    for part in body.chunks(chunk) {
        put(out, BODY, channel, |out| out.put_slice(part));
    }
}

pub fn put_heartbeat(out: &mut BytesMut) {
    out.put_slice(&[HEARTBEAT, 0, 0, 0, 0, 0, 0, END]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_arrive_whole_however_they_are_cut(
            frames in proptest::collection::vec((prop_oneof![Just(METHOD), Just(HEADER), Just(BODY)], any::<u16>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1usize..50,
        ) {
            let mut wire = BytesMut::new();
            for (kind, channel, payload) in &frames {
                put(&mut wire, *kind, *channel, |out| out.put_slice(payload));
            }
            let mut input = BytesMut::new();
            let mut seen = Vec::new();
            for part in wire.chunks(cut) {
                input.extend_from_slice(part);
                while let Some(f) = split(&mut input, 4096).unwrap() {
                    seen.push((f.kind, f.channel, f.payload.to_vec()));
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = split(&mut input, 4096) {}
            prop_assert!(input.capacity() <= 2 * 4096);
        }
    }

    #[test]
    fn a_four_gib_length_is_refused_before_it_is_buffered() {
        let mut input = BytesMut::from(&[1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF][..]);
        assert!(matches!(
            split(&mut input, 131_072),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_body_is_cut_at_frame_max() {
        let mut out = BytesMut::new();
        put_content(&mut out, 1, 4096, &[0, 0], &[7; 10_000]);
        let mut sizes = Vec::new();
        while let Some(f) = split(&mut out, 4096).unwrap() {
            sizes.push((f.kind, f.payload.len()));
        }
        assert_eq!(
            sizes,
            [(HEADER, 14), (BODY, 4088), (BODY, 4088), (BODY, 1824)]
        );
    }
}
