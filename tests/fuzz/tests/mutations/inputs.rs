//! Valid inputs for every function.

use bytes::{BufMut, Bytes, BytesMut};
use mqtt_codec::{Packet, PacketId, Version, encode};
use record::{Batch, BatchBuilder, Compression, Header, NewRecord};

pub use super::requests::kafka_bodies;

type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Every function of the crate by its name, with its valid inputs. `fuzz/fuzz_targets` has a file for each.
pub const TARGETS: [Target; 17] = [
    ("record_batch", fuzz::record_batch, batches),
    ("record_names", fuzz::record_names, names),
    ("mqtt_packets", fuzz::mqtt_packets, mqtt_packets),
    ("mqtt_session", fuzz::mqtt_session, mqtt_sessions),
    ("mqtt_stored", fuzz::mqtt_stored, mqtt_stored),
    ("sync_frames", fuzz::sync_frames, sync_frames),
    ("sync_token", fuzz::sync_token, tokens),
    (
        "kafka_stream",
        fuzz::kafka_stream,
        super::requests::kafka_streams,
    ),
    ("kafka_bodies", fuzz::kafka_bodies, kafka_bodies),
    ("amqp_stream", fuzz::amqp_stream, amqp_streams),
    ("amqp_values", fuzz::amqp_values, amqp_values),
    ("wal_frame", fuzz::wal_frame, wal_frames),
    ("wal_entry", fuzz::wal_entry, entries),
    ("checkpoint", fuzz::checkpoint, checkpoints),
    ("segment", fuzz::segment, segments),
    ("proxy_header", fuzz::proxy_header, proxy_headers),
    ("websocket_frames", fuzz::websocket_frames, websocket_frames),
];

fn batch(compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new()
        .compression(compression)
        .producer(9, 1, 40);
    for number in 0..12u8 {
        let headers = [
            ("content-type", "text/plain"),
            ("_tl.expires", "1700000000000"),
            ("_tl.amqp", "\u{1}\u{1}e\u{0}\u{0}"),
            ("user", "value"),
        ];
        let record = NewRecord {
            timestamp: 1_700_000_000_000 + i64::from(number),
            key: (number % 3 != 0).then(|| Bytes::from_static(b"plant/a")),
            value: (number % 5 != 0).then(|| Bytes::from(vec![b'v'; 40])),
            headers: headers
                .iter()
                .take(usize::from(number % 5))
                .map(|(name, value)| Header::new(*name, *value))
                .collect(),
        };
        builder.push(&record).expect("a record");
    }
    builder.build().expect("a batch")
}

/// One of each codec; those that are never written are compressed nowhere, so their attribute stands on other bytes.
pub fn batches() -> Vec<Vec<u8>> {
    [Compression::None, Compression::Lz4, Compression::Zstd]
        .map(|codec| batch(codec).bytes().to_vec())
        .into()
}

fn names() -> Vec<Vec<u8>> {
    [
        "plant/line-1/temperature",
        "orders",
        "cmd/edge-7/ä/€",
        "$SYS/x",
        "_tl.x",
        "a..b%2F%25",
    ]
    .map(|name| name.as_bytes().to_vec())
    .into()
}

/// CONNECT of both versions, and what may follow, as bytes of clause 3 of the specification.
fn connect(version: u8) -> Vec<u8> {
    let will_and_properties: &[u8] = if version == 5 {
        b"\x05\x11\0\0\0\x3c\0\x02id\x05\x18\0\0\0\x05\0\x01w\0\x04last"
    } else {
        b"\0\x02id\0\x01w\0\x04last"
    };
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend_from_slice(&[version, 0x0c, 0, 60]);
    body.extend_from_slice(will_and_properties);
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend(body);
    packet
}

const AFTER_V5: [&[u8]; 10] = [
    b"\x82\x0c\0\x01\x02\x0b\x05\0\x03a/#\x02",
    b"\x32\x10\0\x03a/b\0\x02\x04\x26\0\0\0\0\x00\x00",
    b"\x34\x0a\0\x03a/b\0\x07\0hi",
    b"\x34\x0d\0\x03a/b\0\x09\x03\x23\0\x02hi",
    b"\x62\x02\0\x07",
    b"\x40\x02\0\x01",
    b"\x50\x02\0\x01",
    b"\x70\x02\0\x01",
    b"\xa2\x08\0\x03\0\0\x03a/#",
    b"\xc0\0",
];

const AFTER_V3: [&[u8]; 8] = [
    b"\x82\x08\0\x01\0\x03a/#\x02",
    b"\x31\x07\0\x03a/bhi",
    b"\x34\x09\0\x03a/b\0\x07hi",
    b"\x62\x02\0\x07",
    b"\x40\x02\0\x01",
    b"\x50\x02\0\x01",
    b"\xa2\x07\0\x03\0\x03a/#",
    b"\xc0\0",
];

fn mqtt_packets() -> Vec<Vec<u8>> {
    let with = |kind: u8, parts: &[&[u8]]| [&[kind], parts.concat().as_slice()].concat();
    let mut all = vec![with(3, &AFTER_V5), with(2, &AFTER_V3), with(1, &AFTER_V3)];
    for session in mqtt_sessions() {
        all.push(with(0, &[&session]));
    }
    let mut servers = BytesMut::new();
    for packet in [
        Packet::ConnAck(Box::new(mqtt_codec::ConnAck {
            session_present: true,
            reason_code: mqtt_codec::ReasonCode::SUCCESS,
            properties: mqtt_codec::Properties {
                receive_maximum: Some(10),
                server_reference: Some("x".into()),
                ..Default::default()
            },
        })),
        Packet::SubAck(mqtt_codec::SubAck {
            packet_id: PacketId::MIN,
            properties: Default::default(),
            reason_codes: vec![mqtt_codec::ReasonCode::SUCCESS],
        }),
        Packet::PingResp,
    ] {
        encode(&packet, Version::V5, &mut servers);
    }
    all.push(with(3, &[&servers]));
    all
}

fn mqtt_sessions() -> Vec<Vec<u8>> {
    let v5 = [
        connect(5),
        AFTER_V5.concat(),
        b"\xe0\0".to_vec(),
        connect(5),
        AFTER_V5.concat(),
    ]
    .concat();
    let v3 = [
        connect(4),
        AFTER_V3.concat(),
        b"\xe0\0".to_vec(),
        connect(4),
        AFTER_V3.concat(),
    ]
    .concat();
    vec![v5, v3]
}

fn mqtt_stored() -> Vec<Vec<u8>> {
    // Format 1, tag, epoch, expiry, disconnected, packet id, then one subscription, one feed, one message in flight, no will.
    let mut session = BytesMut::new();
    session.put_u8(1);
    session.put_u64(7);
    session.put_u64(2);
    session.put_u32(600);
    session.put_i64(1_000);
    session.put_u16(5);
    session.put_u32(1);
    session.put_u32(3);
    session.put_slice(b"a/#\x02");
    session.put_u32(9);
    session.put_u32(0);
    session.put_u32(1);
    session.put_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
    session.put_u32(1);
    session.put_slice(&[
        0, 5, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 9, 1, 0, 0, 0, 1, b'a', 0,
    ]);
    vec![
        session.to_vec(),
        b"\x01\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\x32\x0a\0\x03a/b\0\x01\0hi".to_vec(),
    ]
}

fn sync_frames() -> Vec<Vec<u8>> {
    use sync::{
        AnswerFrame, AnswerStatus, BatchFlags, BatchFrame, DictionaryFrame, DownFrame,
        DownPosition, EnrolRequest, Frame, GapFrame, Hello, LaneInfo, LinkCompression, Pace,
        QueryFrame, RefuseCode, Refused, Retry, TimeQuality, Welcome,
    };
    let batch = batch(Compression::None).into_bytes();
    let position = DownPosition {
        stream: 3,
        partition: 1,
        next: 12,
    };
    let retry = Retry {
        floor_ms: 100,
        spread_ms: 4_000,
    };
    let frames = [
        Frame::Hello(Hello {
            version: sync::VERSION,
            edge: "edge-7".into(),
            producer_id: 9,
            previous_producer_id: Some(4),
            incarnation: 1,
            nonce: 77,
            earlier: vec![(0, 76)],
            lanes: vec![LaneInfo {
                number: 1,
                name: "bulk".into(),
                priority: 3,
                link_compression: true,
            }],
            dictionaries: vec![5, 6],
            software: "0.1.0".into(),
            time: TimeQuality::Known,
        }),
        Frame::Welcome(Welcome {
            version: sync::VERSION,
            time_ms: 1_700_000_000_000,
            max_batch: 1 << 20,
            retry,
            cores: vec!["core-2:4884".into()],
        }),
        Frame::Batch(BatchFrame {
            lane: 1,
            frame: 4,
            stream: "plant".into(),
            flags: BatchFlags::HAS_RETAINED,
            link: None,
            batch: batch.clone(),
        }),
        Frame::Batch(BatchFrame {
            lane: 1,
            frame: 6,
            stream: "plant".into(),
            flags: BatchFlags::empty(),
            link: Some(LinkCompression {
                dictionary: 5,
                raw_length: 4000,
            }),
            batch: batch.slice(..30),
        }),
        Frame::Gap(GapFrame {
            lane: 1,
            frame: 9,
            report: "{\"reason\":\"evicted-bytes\"}".into(),
            producer_id: 10,
            epoch: 1,
            next: vec![("plant".into(), 12), ("cmd".into(), 0)],
        }),
        Frame::Dictionary(DictionaryFrame {
            stream: "plant".into(),
            id: 5,
            dictionary: batch.slice(..40),
        }),
        Frame::Query(QueryFrame {
            id: 1,
            what: "peek".into(),
            arguments: "{\"lane\":\"bulk\"}".into(),
        }),
        Frame::Answer(AnswerFrame {
            id: 1,
            status: AnswerStatus::Answered,
            json: "{}".into(),
        }),
        Frame::Pace(Pace {
            bytes_per_second: 9_000,
            retry,
        }),
        Frame::Ack { lane: 1, frame: 4 },
        Frame::Refused(Refused {
            lane: 1,
            frame: 6,
            code: RefuseCode::from_wire(1),
            reason: "no".into(),
        }),
        Frame::Down(DownFrame {
            position,
            batch: batch.slice(..61),
        }),
        Frame::DownAck(position),
        Frame::EnrolRequest(EnrolRequest {
            version: 1,
            token_id: "i".into(),
            secret: "s".into(),
            name: "edge-7".into(),
            request: Bytes::from_static(b"der"),
        }),
    ];
    let wire: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| {
            let (head, tail) = frame.encode().expect("a frame");
            [head, tail].concat()
        })
        .collect();
    vec![
        [vec![255], wire.concat()].concat(),
        [vec![7], wire.concat()].concat(),
    ]
}

fn tokens() -> Vec<Vec<u8>> {
    vec![
        sync_quic::Token::new([1; 9], [2; 24], b"der")
            .to_string()
            .into_bytes(),
    ]
}

fn amqp_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xCE);
    frame
}

/// A table with a value of every type.
fn amqp_table() -> Vec<u8> {
    let mut fields = Vec::new();
    let values: [&[u8]; 17] = [
        b"t\x01",
        b"b\xff",
        b"B\x01",
        b"s\0\x01",
        b"U\0\x01",
        b"u\0\x01",
        b"I\0\0\0\x01",
        b"i\0\0\0\x01",
        b"l\0\0\0\0\0\0\0\x01",
        b"f\0\0\0\0",
        b"d\0\0\0\0\0\0\0\0",
        b"D\x02\0\0\0\x01",
        b"S\0\0\0\x02hi",
        b"x\0\0\0\x01\xff",
        b"T\0\0\0\0\0\0\0\x01",
        b"F\0\0\0\x03\x01aV",
        b"A\0\0\0\x02VV",
    ];
    for value in values {
        fields.extend_from_slice(b"\x01k");
        fields.extend_from_slice(value);
    }
    [&(fields.len() as u32).to_be_bytes()[..], &fields].concat()
}

pub fn amqp_streams() -> Vec<Vec<u8>> {
    let table = amqp_table();
    let methods: Vec<Vec<u8>> = vec![
        [
            b"\0\x0a\0\x0b".as_slice(),
            &table,
            b"\x05PLAIN\0\0\0\x04\0a\0b\x05en_US",
        ]
        .concat(),
        b"\0\x0a\0\x1f\0\x64\0\x02\0\0\0\x3c".to_vec(),
        b"\0\x0a\0\x28\x01/\0\0".to_vec(),
        b"\0\x14\0\x0a\0".to_vec(),
        [b"\0\x28\0\x0a\0\0\x01e\x05topic\x02".as_slice(), &table].concat(),
        [b"\0\x32\0\x0a\0\0\x01q\x02".as_slice(), &table].concat(),
        [b"\0\x32\0\x14\0\0\x01q\x01e\x03a.#\0".as_slice(), &table].concat(),
        [b"\0\x3c\0\x14\0\0\x01q\x01t\0".as_slice(), &table].concat(),
        b"\0\x3c\0\x28\0\0\x01e\x03a.b\x01".to_vec(),
        b"\0\x3c\0\x50\0\0\0\0\0\0\0\x01\x01".to_vec(),
    ];
    let mut stream: Vec<u8> = methods
        .iter()
        .flat_map(|method| amqp_frame(1, method))
        .collect();
    let header = [b"\0\x3c\0\0\0\0\0\0\0\0\0\x02".to_vec(), amqp_properties()].concat();
    stream.extend(amqp_frame(2, &header));
    stream.extend(amqp_frame(3, b"hi"));
    let mut all: Vec<Vec<u8>> = methods.iter().map(|method| amqp_frame(1, method)).collect();
    all.push(amqp_frame(2, &header));
    all.push(stream);
    all
}

fn amqp_properties() -> Vec<u8> {
    [
        b"\xff\xf8\x0atext/plain\x04gzip".as_slice(),
        &amqp_table(),
        b"\x02\x03\x01c\x01r\x041000\x01m\0\0\0\0\0\0\0\x4d\x01t\x01u\x01a",
        b"",
    ]
    .concat()
}

fn amqp_values() -> Vec<Vec<u8>> {
    vec![amqp_table(), amqp_properties()]
}

fn wal_frames() -> Vec<Vec<u8>> {
    // Its checksum keeps nearly all damage out, which is what is tested.
    vec![vec![0; 48], vec![0xff; 60]]
}

fn text(out: &mut BytesMut, text: &[u8]) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text);
}

fn partition(out: &mut BytesMut) {
    out.put_u64_le(3);
    out.put_u32_le(1);
}

/// Entries as `kernel` documents them: one with an append, one with most other commands, one that ends a transaction.
pub fn entries() -> Vec<Vec<u8>> {
    let mut append = BytesMut::new();
    append.put_u32_le(1);
    append.put_u8(1);
    partition(&mut append);
    append.put_u8(2);
    text(&mut append, batch(Compression::None).bytes());
    let mut others = BytesMut::new();
    others.put_u32_le(6);
    others.put_u8(2);
    text(&mut others, b"table");
    text(&mut others, b"key");
    text(&mut others, b"value");
    others.put_u8(4);
    text(&mut others, b"group");
    others.put_u32_le(1);
    partition(&mut others);
    others.put_i64_le(12);
    text(&mut others, b"metadata");
    others.put_u8(5);
    text(&mut others, b"group");
    others.put_u8(1);
    others.put_u32_le(1);
    partition(&mut others);
    others.put_u8(6);
    text(&mut others, b"default");
    text(&mut others, b"orders");
    others.put_slice(&[7; 16]);
    others.put_u32_le(3);
    others.put_u32_le(1);
    text(&mut others, b"retention.ms");
    text(&mut others, b"1000");
    others.put_u8(13);
    text(&mut others, b"queue");
    others.put_u32_le(1);
    partition(&mut others);
    others.put_i64_le(4);
    others.put_u8(14);
    text(&mut others, b"queue");
    others.put_u32_le(1);
    partition(&mut others);
    text(&mut others, &bitmap());
    others.put_i64_le(4);
    others.put_i64_le(9);
    let mut end = BytesMut::new();
    end.put_u32_le(1);
    end.put_u8(20);
    end.put_u32_le(2);
    partition(&mut end);
    partition(&mut end);
    text(&mut end, batch(Compression::None).bytes());
    vec![append.to_vec(), others.to_vec(), end.to_vec()]
}

/// A bitmap of 64-bit numbers (roaring's portable format): one map, high half 0, one array container with the number 5.
fn bitmap() -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u64_le(1);
    out.put_u32_le(0);
    out.put_u32_le(12_346);
    out.put_u32_le(1);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u32_le(16);
    out.put_u16_le(5);
    out.to_vec()
}

/// A checkpoint with one stream of one partition, a table, a cursor and a queue.
pub fn checkpoints() -> Vec<Vec<u8>> {
    let example = kernel::fuzzing::example_checkpoint(batch(Compression::None));
    vec![example.to_vec()]
}

pub fn segments() -> Vec<Vec<u8>> {
    let batches = [Compression::None, Compression::Lz4, Compression::Zstd].map(batch);
    vec![kernel::fuzzing::example_segment(&batches).to_vec()]
}

pub fn proxy_headers() -> Vec<Vec<u8>> {
    let header = |command: u8, family: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        let start = [command, family, length[0], length[1]];
        [&transport::proxy::SIGNATURE[..], &start, body, b"\x10\x0c"].concat()
    };
    vec![
        header(0x21, 0x11, &[10; 12]),
        header(0x21, 0x21, &[10; 36]),
        header(0x21, 0x11, &[1; 40]),
        header(0x20, 0x00, &[]),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
    ]
}

/// Behind the byte that says how they are cut.
pub fn websocket_frames() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        let mut frame = vec![first, 0x80 | 126];
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([1, 2, 3, 4]);
        frame.extend(payload);
        frame
    };
    let control = |first: u8, payload: &[u8]| {
        [&[first, 0x80 | payload.len() as u8, 9, 8, 7, 6], payload].concat()
    };
    let message = [
        frame(0x02, &[7; 200]),
        control(0x89, b"ping"),
        control(0x8a, b"pong"),
        frame(0x80, &[8; 50]),
    ];
    vec![
        [&[3][..], &message.concat()].concat(),
        [
            &[50][..],
            &frame(0x82, b"whole"),
            &control(0x88, &[10, 224]),
        ]
        .concat(),
        [&[1][..], &control(0x81, b"text")].concat(),
    ]
}
