//! Who is not let in: bans by hand and for flapping, and too many connections at once.

use crate::client::*;
use mqtt_broker::Peer;
use mqtt_broker::backend::ClientId;
use mqtt_broker::extra::{Ban, BanKey, Extra, Flapping, Rates};
use mqtt_codec::*;
use std::time::Duration;
use tokio::time::sleep;

fn flapping(connects: u32) -> Extra {
    let flapping = Some(Flapping {
        connects,
        window: Duration::from_secs(10),
        ban: Duration::from_secs(60),
    });
    Extra {
        flapping,
        ..Extra::default()
    }
}

/// New connections.
fn two_a_second() -> Extra {
    let rates = Rates {
        connections: Some(2),
        ..Rates::default()
    };
    Extra {
        rates,
        ..Extra::default()
    }
}

fn key(text: &str) -> BanKey {
    text.parse().expect("a key")
}

fn by_hand(lasts: Option<Duration>) -> Ban {
    Ban {
        lasts,
        reason: "by hand".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_drops_again_and_again_is_banned_for_a_while() {
    let server = Server::with(flapping(3)).await;
    for _ in 0..3 {
        server.clean("c").await.vanish().await;
    }
    assert_eq!(server.code(v5("c")).await, ReasonCode::BANNED);
    assert_eq!(server.code(v311("c")).await, ReasonCode(5));
    let _other = server.clean("other").await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(server.code(v5("c")).await, ReasonCode::SUCCESS);
}

/// A socket for both families says an IPv4 address as one of IPv6; so may whoever bans it.
#[tokio::test(start_paused = true)]
async fn an_address_is_banned_however_it_is_written() {
    for (from, banned) in [
        ("[::ffff:10.0.0.7]:1", "address:10.0.0.7"),
        ("10.0.0.7:1", "address:::ffff:10.0.0.7"),
        ("[::ffff:10.0.0.7]:1", "address:::ffff:a00:7"),
        ("[2001:db8::7]:1", "address:2001:db8::7"),
    ] {
        let server = Server::start().await;
        let peer = Peer::at(from.parse().expect("an address"));
        let (mut client, _) = server.connect_from(v5("c"), peer.clone()).await;
        let key: BanKey = banned.parse().expect("a key");
        assert!(server.broker.bans().add(key.clone(), by_hand(None)));
        assert_eq!(server.broker.kick_banned(), 1, "{from}, {banned}");
        client.closed_with(ReasonCode::ADMINISTRATIVE_ACTION).await;
        let (_, connack) = server.connect_from(v5("c"), peer.clone()).await;
        assert_eq!(connack.reason_code, ReasonCode::BANNED, "{from}, {banned}");
        assert!(server.broker.bans().lift(&key));
        let (_client, connack) = server.connect_from(v5("c"), peer).await;
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_above_the_rate_are_refused() {
    let server = Server::with(two_a_second()).await;
    let mut codes = Vec::new();
    for n in 0..3 {
        codes.push(server.code(v5(&format!("c{n}"))).await);
    }
    let (ok, refused) = (ReasonCode::SUCCESS, ReasonCode::CONNECTION_RATE_EXCEEDED);
    assert_eq!(codes, [ok, ok, refused]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.code(v311("c4")).await, ok);
}

#[tokio::test(start_paused = true)]
async fn what_an_administrator_ends_is_no_flapping() {
    let server = Server::with(flapping(3)).await;
    let bans = server.broker.bans();
    for _ in 0..2 {
        server.clean("c").await.vanish().await;
    }
    for _ in 0..3 {
        let mut client = server.clean("c").await;
        assert!(server.broker.kick(&ClientId::new("c")));
        client.closed_with(ReasonCode::ADMINISTRATIVE_ACTION).await;
        client.vanish().await;
    }
    let mut client = server.clean("c").await;
    assert!(bans.add(key("client:c"), by_hand(None)));
    assert_eq!(server.broker.kick_banned(), 1);
    client.closed_with(ReasonCode::ADMINISTRATIVE_ACTION).await;
    client.vanish().await;
    assert_eq!(bans.list(), [(key("client:c"), by_hand(None))]);
    // It was not forgotten how often it has dropped by itself.
    assert!(bans.lift(&key("client:c")));
    server.clean("c").await.vanish().await;
    assert_eq!(server.code(v5("c")).await, ReasonCode::BANNED);
}

#[tokio::test(start_paused = true)]
async fn ids_that_the_server_made_are_not_watched() {
    let server = Server::with(flapping(1)).await;
    let bans = server.broker.bans();
    for _ in 0..3 {
        server.clean("").await.vanish().await;
    }
    assert!(bans.list().is_empty());
    // A client that says such an id itself is one as any other.
    server.clean("auto-1").await.vanish().await;
    assert_eq!(bans.list().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_banned_in_the_middle_of_connect_is_out() {
    for banned in ["client:c", "user:ann", "address:10.0.0.1"] {
        let server = Server::start().await;
        server.memory.saves_wait.send_replace(true);
        let peer = Peer::at("10.0.0.1:1".parse().expect("an address"));
        let mut client = server.open_from(peer, Version::V5);
        let properties = Properties {
            session_expiry_interval: Some(1000),
            ..Properties::default()
        };
        let connect = Connect {
            user_name: Some("ann".into()),
            properties,
            ..v5("c")
        };
        client.send(Packet::Connect(Box::new(connect))).await;
        while server.memory.saves_wait.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        // It was let in, and is not among the clients yet.
        assert!(server.broker.bans().add(key(banned), by_hand(None)));
        assert_eq!(server.broker.kick_banned(), 0, "{banned}");
        server.memory.saves_wait.send_replace(false);
        assert!(matches!(client.receive().await, Some(Packet::ConnAck(_))));
        client.closed_with(ReasonCode::ADMINISTRATIVE_ACTION).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ban_lasts_as_long_as_was_said_whatever_becomes_of_the_clock() {
    const YEARS: i64 = 5 * 365 * 86_400_000;
    for add in [YEARS, -YEARS] {
        let server = Server::with(flapping(3)).await;
        let minute = Duration::from_secs(60);
        assert!(
            server
                .broker
                .bans()
                .add(key("client:a"), by_hand(Some(minute)))
        );
        for _ in 0..3 {
            server.clean("b").await.vanish().await;
        }
        server.memory.set_clock(add);
        sleep(Duration::from_secs(59)).await;
        for client in ["a", "b"] {
            assert_eq!(
                server.code(v5(client)).await,
                ReasonCode::BANNED,
                "{client}, {add}"
            );
        }
        sleep(Duration::from_secs(1)).await;
        for client in ["a", "b"] {
            assert_eq!(
                server.code(v5(client)).await,
                ReasonCode::SUCCESS,
                "{client}, {add}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_banned_takes_nothing_of_the_rate_from_the_others() {
    let server = Server::with(two_a_second()).await;
    assert!(server.broker.bans().add(key("client:c"), by_hand(None)));
    for _ in 0..10 {
        assert_eq!(server.code(v5("c")).await, ReasonCode::BANNED);
    }
    for other in ["a", "b"] {
        assert_eq!(server.code(v5(other)).await, ReasonCode::SUCCESS);
    }
}
