//! Frames: what is encoded is what is decoded, however the stream is cut, and nothing from the wire panics or allocates by claim.

use bytes::Bytes;
use proptest::prelude::*;
use sync::{
    AnswerFrame, AnswerStatus, BatchFlags, BatchFrame, DictionaryFrame, DownFrame, DownPosition,
    EnrolGrant, EnrolRefusal, EnrolRequest, Frame, FrameError, FrameReader, GapFrame, Hello,
    HelloRefusal, HelloRefused, LaneInfo, LinkCompression, Pace, QueryFrame, RefuseCode, Refused,
    Retry, TimeQuality, VERSION, Welcome, limits,
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

fn retry() -> impl Strategy<Value = Retry> {
    (any::<u32>(), any::<u32>()).prop_map(|(floor_ms, spread_ms)| Retry {
        floor_ms,
        spread_ms,
    })
}

fn lane() -> impl Strategy<Value = LaneInfo> {
    (any::<u8>(), "[a-z.]{0,64}", any::<u8>(), any::<bool>()).prop_map(
        |(number, name, priority, link_compression)| LaneInfo {
            number,
            name,
            priority,
            link_compression,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let identity = (
        any::<i64>(),
        prop::option::of(0..i64::MAX),
        any::<i16>(),
        any::<u64>(),
        prop::collection::vec(any::<(i16, u64)>(), 0..=limits::MAX_EARLIER),
    );
    let known = (
        prop::collection::vec(lane(), 0..=limits::MAX_LANES),
        prop::collection::vec(any::<u32>(), 0..=limits::MAX_DICTIONARIES),
    );
    (
        "[a-z0-9]{0,30}",
        identity,
        known,
        "[a-z0-9é]{0,30}",
        any::<u8>(),
    )
        .prop_map(
            |(
                edge,
                (producer_id, previous, incarnation, nonce, earlier),
                (lanes, dictionaries),
                software,
                time,
            )| {
                Hello {
                    version: VERSION,
                    edge,
                    producer_id,
                    previous_producer_id: previous,
                    incarnation,
                    nonce,
                    earlier,
                    lanes,
                    dictionaries,
                    software,
                    time: TimeQuality::from_wire(time),
                }
            },
        )
}

fn gap() -> impl Strategy<Value = GapFrame> {
    let next = prop::collection::vec(("[a-z0-9._-]{0,40}", any::<i32>()), 0..20);
    (
        any::<u8>(),
        any::<u64>(),
        bytes(3000),
        any::<i64>(),
        any::<i16>(),
        next,
    )
        .prop_map(|(lane, frame, report, producer_id, epoch, next)| GapFrame {
            lane,
            frame,
            report,
            producer_id,
            epoch,
            next,
        })
}

fn frame() -> impl Strategy<Value = Frame> {
    let text = "[a-z0-9é]{0,30}";
    prop_oneof![
        hello().prop_map(Frame::Hello),
        (
            any::<u16>(),
            any::<i64>(),
            any::<u32>(),
            retry(),
            prop::collection::vec(text, 0..limits::MAX_CORES)
        )
            .prop_map(|(version, time_ms, max_batch, retry, cores)| {
                Frame::Welcome(Welcome {
                    version,
                    time_ms,
                    max_batch,
                    retry,
                    cores,
                })
            }),
        (any::<u16>(), retry(), text).prop_map(|(code, retry, reason)| Frame::HelloRefused(
            HelloRefused {
                code: HelloRefusal::from_wire(code),
                retry,
                reason
            }
        )),
        gap().prop_map(Frame::Gap),
        (text, any::<u32>(), bytes(3000)).prop_map(|(stream, id, dictionary)| Frame::Dictionary(
            DictionaryFrame {
                stream,
                id,
                dictionary
            }
        )),
        (any::<u32>(), "[a-z]{0,32}", bytes(3000)).prop_map(|(id, what, arguments)| Frame::Query(
            QueryFrame {
                id,
                what,
                arguments
            }
        )),
        (any::<u32>(), any::<u8>(), bytes(3000)).prop_map(|(id, status, json)| Frame::Answer(
            AnswerFrame {
                id,
                status: AnswerStatus::from_wire(status),
                json
            }
        )),
        (any::<u64>(), retry()).prop_map(|(bytes_per_second, retry)| Frame::Pace(Pace {
            bytes_per_second,
            retry
        })),
        (
            any::<u8>(),
            any::<u64>(),
            text,
            any::<bool>(),
            prop::option::of((any::<u32>(), 0..=limits::MAX_BATCH as u32)),
            bytes(3000)
        )
            .prop_map(|(lane, frame, stream, retained, link, batch)| {
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
                    link: link.map(|(dictionary, raw_length)| LinkCompression {
                        dictionary,
                        raw_length,
                    }),
                    batch,
                })
            }),
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
        let mut reader = FrameReader::new(limits::MAX_LANE_FRAME);
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
        // What runs to the end of its frame can be cut; what stands before it can not be missed.
        let runs_to_the_end = matches!(
            frame,
            Frame::Batch(_) | Frame::Down(_) | Frame::Dictionary(_) | Frame::Query(_) | Frame::Answer(_)
        );
        prop_assume!(batch.is_empty() && !runs_to_the_end);
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
            "a batch that claims to be larger than any",
            &[
                4, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b's', 2, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
            ],
            FrameError::TooLarge {
                length: u32::MAX as usize,
                limit: limits::MAX_BATCH,
            },
        ),
        (
            "more lanes than there can be",
            &[
                1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 17,
            ],
            FrameError::FieldTooLong("lanes"),
        ),
        (
            "streams of a gap that the frame does not hold",
            &[
                12, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0x10, 0x00,
            ],
            FrameError::Truncated("streams"),
        ),
        (
            "more streams than a gap may have",
            &[
                12, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0x10, 0x01,
            ],
            FrameError::FieldTooLong("streams"),
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
fn a_hello_of_another_version_is_read_as_far_as_its_name() {
    let wire = Bytes::from_static(&[1, 0, 1, 0, 2, b'e', b'1', 9, 9, 9]);
    let hello = Hello {
        version: 1,
        edge: "e1".to_owned(),
        ..Hello::default()
    };
    assert_eq!(Frame::decode(wire), Ok(Frame::Hello(hello)));
}

#[test]
fn the_batch_is_neither_copied_nor_changed() {
    let batch = Bytes::from(vec![7_u8; 100_000]);
    let frame = Frame::Batch(BatchFrame {
        lane: 0,
        frame: 1,
        stream: "s".to_owned(),
        flags: BatchFlags::empty(),
        link: None,
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
