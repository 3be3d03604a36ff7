//! What one address may have of a broker that bounds it.

use crate::client::*;
use crate::memory::Memory;
use mqtt_broker::extra::{AddressLimits, Extra};
use mqtt_broker::{Limits, Peer};
use mqtt_codec::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// With two connections of each address.
async fn server() -> Server {
    let addresses = AddressLimits {
        connections: Some(2),
        rate: None,
    };
    let extra = Extra {
        addresses,
        ..Extra::default()
    };
    Server::extended(Arc::new(Memory::new()), Limits::default(), extra).await
}

fn from(server: &Server, address: &str) -> Client {
    let address = format!("{address}:1000").parse().expect("an address");
    server.open_from(Peer::at(address), Version::V5)
}

async fn code(client: &mut Client, id: &str) -> Option<ReasonCode> {
    client.send(Packet::Connect(Box::new(v5(id)))).await;
    match client.receive().await? {
        Packet::ConnAck(connack) => Some(connack.reason_code),
        other => panic!("no CONNACK but {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_its_address_does_not_wait_for_long() {
    let server = server().await;
    let _open = [from(&server, "10.0.0.1"), from(&server, "10.0.0.1")];
    let begun = Instant::now();
    let mut silent = from(&server, "10.0.0.1");
    assert_eq!(silent.receive().await, None);
    assert!(begun.elapsed() <= Duration::from_secs(1));
    // Who says something hears why.
    let mut other = from(&server, "10.0.0.1");
    let refused = code(&mut other, "c").await;
    assert_eq!(refused, Some(ReasonCode::QUOTA_EXCEEDED));
}

#[tokio::test(start_paused = true)]
async fn an_address_has_no_more_refused_ones_than_it_may_have_others() {
    let server = server().await;
    let _open = [from(&server, "10.0.0.1"), from(&server, "10.0.0.1")];
    sleep(Duration::from_millis(10)).await;
    let mut refused = [from(&server, "10.0.0.1"), from(&server, "10.0.0.1")];
    sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    for _ in 0..100 {
        let mut more = from(&server, "10.0.0.1");
        assert_eq!(more.receive().await, None);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "closed at once");
    let mut other = from(&server, "10.0.0.2");
    assert_eq!(code(&mut other, "c").await, Some(ReasonCode::SUCCESS));
    for client in &mut refused {
        let code = code(client, "d").await;
        assert_eq!(code, Some(ReasonCode::QUOTA_EXCEEDED));
    }
    for client in refused {
        client.vanish().await;
    }
    // They made room for others that are told.
    let mut later = from(&server, "10.0.0.1");
    let code = code(&mut later, "e").await;
    assert_eq!(code, Some(ReasonCode::QUOTA_EXCEEDED));
}
