//! PINGREQ (section 3.12).

use super::*;

/// [MQTT-3.12.4-1]
#[tokio::test(start_paused = true)]
async fn a_pingreq_is_answered() {
    let server = Server::start().await;
    for version in BOTH {
        let (mut client, _) = server.connect(clean(version, "c")).await;
        for _ in 0..3 {
            client.send(Packet::PingReq).await;
            assert_eq!(client.receive().await, Some(Packet::PingResp));
        }
        client.nothing().await;
    }
}
