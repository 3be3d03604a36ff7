//! Frames: what is encoded is what is decoded, however the stream is cut, and nothing from the wire panics or allocates by claim.

use bytes::Bytes;
use proptest::prelude::*;
use sync::{
    BatchFlags, BatchFrame, DownFrame, DownPosition, EnrolGrant, EnrolRefusal, EnrolRequest, Frame,
    FrameError, FrameReader, Hello, HelloRefusal, RefuseCode, Refused, Welcome, limits,
};

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn position() -> impl Strategy<Value = DownPosition> {
    (any::<u64>(), any::<u32>(), any::<i64>()).prop_map(|(stream, partition, next)| DownPosition {
        stream,
        partition,
        next,
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = "[a-z0-9é]{0,30}";
    prop_oneof![
        (any::<u16>(), text, any::<i64>(), any::<i16>(), text).prop_map(
            |(version, edge, producer_id, epoch, software)| Frame::Hello(Hello {
                version,
                edge,
                producer_id,
                epoch,
                software
            })
        ),
        (any::<u16>(), any::<i64>(), any::<u32>()).prop_map(|(version, time_ms, max_batch)| {
            Frame::Welcome(Welcome {
                version,
                time_ms,
                max_batch,
            })
        }),
        (any::<u16>(), text).prop_map(|(code, reason)| Frame::HelloRefused {
            code: HelloRefusal::from_wire(code),
            reason
        }),
        (any::<u8>(), any::<u64>(), text, any::<bool>(), bytes(3000)).prop_map(
            |(lane, frame, stream, retained, batch)| {
                let flags = if retained {
                    BatchFlags::HAS_RETAINED
                } else {
                    BatchFlags::empty()
                };
                Frame::Batch(BatchFrame {
                    lane,
                    frame,
                    stream,
                    flags,
                    batch,
                })
            }
        ),
        (any::<u8>(), any::<u64>()).prop_map(|(lane, frame)| Frame::Ack { lane, frame }),
        (any::<u8>(), any::<u64>(), any::<u16>(), text).prop_map(|(lane, frame, code, reason)| {
            Frame::Refused(Refused {
                lane,
                frame,
                code: RefuseCode::from_wire(code),
                reason,
            })
        }),
        (position(), bytes(3000))
            .prop_map(|(position, batch)| Frame::Down(DownFrame { position, batch })),
        position().prop_map(Frame::DownAck),
        (any::<u16>(), text, text, text, bytes(500)).prop_map(
            |(version, token_id, secret, name, request)| Frame::EnrolRequest(EnrolRequest {
                version,
                token_id,
                secret,
                name,
                request
            })
        ),
        (text, bytes(500), bytes(500)).prop_map(|(name, certificate, ca)| Frame::EnrolGrant(
            EnrolGrant {
                name,
                certificate,
                ca
            }
        )),
        (any::<u16>(), text).prop_map(|(code, reason)| Frame::EnrolRefused {
            code: EnrolRefusal::from_wire(code),
            reason
        }),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_however_the_stream_is_cut(frames in prop::collection::vec(frame(), 1..12), cut in 1_usize..700) {
        let mut wire = Vec::new();
        for frame in &frames {
            let (head, batch) = frame.encode().unwrap();
            wire.extend_from_slice(&head);
            wire.extend_from_slice(&batch);
        }
        let mut reader = FrameReader::new(limits::MAX_BATCH_FRAME);
        let mut back = Vec::new();
        for piece in wire.chunks(cut) {
            reader.push(piece);
            while let Some(frame) = reader.next_frame().unwrap() {
                back.push(frame);
            }
        }
        prop_assert!(reader.is_at_boundary());
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn a_frame_cut_short_is_an_error_and_never_another_frame(frame in frame(), keep in 0.0_f64..1.0) {
        let (head, batch) = frame.encode().unwrap();
        // A batch runs to the end of its frame, so only what stands before it can be missed.
        prop_assume!(batch.is_empty() && !matches!(frame, Frame::Batch(_) | Frame::Down(_)));
        let body = head.slice(4..);
        let keep = (body.len() as f64 * keep) as usize;
        prop_assert!(Frame::decode(body.slice(..keep)).is_err());
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(wire in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = FrameReader::new(64);
        reader.push(&wire);
        while let Ok(Some(_)) = reader.next_frame() {}
        let _ = Frame::decode(Bytes::from(wire));
    }
}

#[test]
fn a_length_above_the_limit_is_refused_from_its_four_bytes() {
    let mut reader = FrameReader::new(limits::MAX_CONTROL_FRAME);
    reader.push(&u32::MAX.to_be_bytes());
    let refused = FrameError::TooLarge {
        length: u32::MAX as usize,
        limit: limits::MAX_CONTROL_FRAME,
    };
    assert_eq!(reader.next_frame(), Err(refused));
}

#[test]
fn what_a_frame_may_not_say() {
    let table: &[(&str, &[u8], FrameError)] = &[
        ("no bytes", &[], FrameError::Empty),
        ("unknown type", &[99], FrameError::UnknownType(99)),
        (
            "left over",
            &[5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7],
            FrameError::LeftOver(1),
        ),
        (
            "unknown flags",
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b's', 0x80],
            FrameError::UnknownFlags(0x80),
        ),
        (
            "name over its limit",
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
            FrameError::FieldTooLong("stream name"),
        ),
        (
            "name beyond the frame",
            &[4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 9, b's'],
            FrameError::Truncated("stream name"),
        ),
    ];
    for (what, body, error) in table {
        assert_eq!(
            Frame::decode(Bytes::from_static(body)),
            Err(error.clone()),
            "{what}"
        );
    }
}

#[test]
fn the_batch_is_neither_copied_nor_changed() {
    let batch = Bytes::from(vec![7_u8; 100_000]);
    let frame = Frame::Batch(BatchFrame {
        lane: 0,
        frame: 1,
        stream: "s".to_owned(),
        flags: BatchFlags::empty(),
        batch: batch.clone(),
    });
    let (_, tail) = frame.encode().unwrap();
    assert_eq!(tail.as_ptr(), batch.as_ptr());
    let too_large = Frame::Down(DownFrame {
        position: DownPosition {
            stream: 1,
            partition: 0,
            next: 1,
        },
        batch: Bytes::from(vec![0; limits::MAX_BATCH + 1]),
    });
    assert!(matches!(
        too_large.encode(),
        Err(FrameError::TooLarge { .. })
    ));
}
