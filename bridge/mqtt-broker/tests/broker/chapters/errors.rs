//! Handling errors (section 4.13 of 5, 4.8 of 3.1.1): the connection ends, and nothing else does.

use super::*;
use mqtt_broker::Limits;

/// [MQTT-4.13.1-1], [MQTT-4.13.2-1]; [MQTT-4.8.0-1] of 3.1.1: every packet of a client, damaged
#[tokio::test(start_paused = true)]
async fn what_is_malformed_ends_the_connection() {
    let server = Server::start().await;
    let mut witness = server.clean("witness").await;
    let malformed = ReasonCode::MALFORMED_PACKET;
    let protocol = ReasonCode::PROTOCOL_ERROR;
    for (bytes, code) in [
        (&b"\x00\x00"[..], malformed),
        (b"\x20\x03\x00\x00\x00", protocol),
        (b"\x30\x01\x00", malformed),
        (b"\x32\x05\x00\x01t\x00\x00", malformed),
        (b"\x40\x01\x00", malformed),
        (b"\x40\x03\x00\x01\x01", protocol),
        (b"\x50\x03\x00\x01\x92", protocol),
        (b"\x60\x02\x00\x01", malformed),
        (b"\x62\x03\x00\x01\x80", protocol),
        (b"\x70\x02\x00\x00", malformed),
        (b"\x82\x00", malformed),
        (b"\x90\x04\x00\x01\x00\x00", protocol),
        (b"\xa2\x03\x00\x01\x00", protocol),
        (b"\xb0\x04\x00\x01\x00\x00", protocol),
        (b"\xc1\x00", malformed),
        (b"\xc0\x01\x00", malformed),
        (b"\xd0\x00", protocol),
        (b"\xe0\x01\x01", protocol),
        (b"\xf1\x00", malformed),
        (b"\xf0\x00", protocol),
    ] {
        let mut client = server.clean("c").await;
        client.send_bytes(bytes).await;
        match client.receive().await {
            Some(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.reason_code, code, "{bytes:02x?}")
            }
            other => panic!("{bytes:02x?}: {other:?}"),
        }
        assert_eq!(client.receive().await, None, "{bytes:02x?}");
    }
    for bytes in [
        &b"\x00\x00"[..],
        b"\x20\x02\x00\x00",
        b"\x30\x01\x00",
        b"\x32\x05\x00\x01t\x00\x00",
        b"\x40\x03\x00\x01\x00",
        b"\x60\x02\x00\x01",
        b"\x82\x00",
        b"\x90\x03\x00\x01\x00",
        b"\xa2\x02\x00\x01",
        b"\xc1\x00",
        b"\xd0\x00",
        b"\xe0\x01\x00",
        b"\xf0\x00",
    ] {
        let (mut client, _) = server.connect(v311("c")).await;
        client.send_bytes(bytes).await;
        assert_eq!(client.receive().await, None, "{bytes:02x?}");
    }
    witness.send(Packet::PingReq).await;
    assert_eq!(witness.receive().await, Some(Packet::PingResp));
}

/// Section 3.1.2.11.4 and [MQTT-3.2.2-15], which is the client's: what is larger than CONNACK allows
#[tokio::test(start_paused = true)]
async fn a_packet_above_our_maximum_ends_the_connection() {
    let limits = Limits {
        maximum_packet_size: 200,
        ..Limits::default()
    };
    let server = Server::over(std::sync::Arc::new(crate::memory::Memory::new()), limits).await;
    let (mut client, connack) = server.connect(v5("c")).await;
    assert_eq!(connack.properties.maximum_packet_size, Some(200));
    // Fixed header 3, topic 3, properties 1: 193 bytes are left.
    client.send(packed(publish("t", &"x".repeat(193), 0))).await;
    client.send(packed(publish("t", &"x".repeat(194), 0))).await;
    client.closed_with(ReasonCode::PACKET_TOO_LARGE).await;
    assert_eq!(server.memory.payloads("t").len(), 1);
    let (mut old, _) = server.connect(v311("c")).await;
    old.send(packed(publish("t", &"x".repeat(200), 0))).await;
    assert_eq!(old.receive().await, None);
}

/// [MQTT-4.12.0-7] is the client's: an AUTH nobody asked for. [MQTT-4.12.0-6]: none is sent unasked
#[tokio::test(start_paused = true)]
async fn auth_without_a_method_in_connect_is_an_error() {
    let server = Server::start().await;
    let (mut client, connack) = server.connect(v5("c")).await;
    assert_eq!(connack.properties.authentication_method, None);
    let properties = Properties {
        authentication_method: Some("SCRAM-SHA-256".into()),
        ..Properties::default()
    };
    client
        .send(Packet::Auth(Auth {
            reason_code: ReasonCode(0x19),
            properties,
        }))
        .await;
    client.closed_with(ReasonCode::PROTOCOL_ERROR).await;
}
