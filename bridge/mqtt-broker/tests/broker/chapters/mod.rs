//! What the specification says, chapter by chapter: each test names its statements. `docs/reference/mqtt.md` has the whole list.

mod connack;
mod connect;
mod disconnect;
mod errors;
mod flow_control;
mod handshakes;
mod ping;
mod publish;
mod retained;
mod subscribe;
mod topics;
mod unsubscribe;

use crate::client::*;
use mqtt_codec::*;

pub const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// A session that stays, in either version.
pub fn lasting(version: Version, id: &str) -> Connect {
    let properties = match version {
        Version::V5 => Properties {
            session_expiry_interval: Some(1000),
            ..Properties::default()
        },
        _ => Properties::default(),
    };
    Connect {
        version,
        clean_start: false,
        properties,
        ..v5(id)
    }
}

/// A session that ends with its connection, in either version.
pub fn clean(version: Version, id: &str) -> Connect {
    Connect { version, ..v5(id) }
}

/// A publish with a packet id of its own.
pub fn numbered(packet_id: u16, name: &str, payload: &str, qos: u8) -> Publish {
    Publish {
        packet_id: Some(id(packet_id)),
        ..publish(name, payload, qos)
    }
}

pub fn retained(name: &str, payload: &str, qos: u8) -> Publish {
    Publish {
        retain: true,
        ..publish(name, payload, qos)
    }
}

pub fn subscribe(packet_id: u16, filters: &[(&str, u8)]) -> Packet {
    let filters = filters.iter().map(|(filter, qos)| SubscribeFilter {
        filter: TopicFilter::new(filter).expect("a filter"),
        options: options(*qos),
    });
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        properties: Properties::default(),
        filters: filters.collect(),
    })
}

pub fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    let filters = filters.iter().map(|filter| TopicFilter::new(filter));
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        properties: Properties::default(),
        filters: filters.collect::<Result<_, _>>().expect("filters"),
    })
}

pub fn packed(packet: Publish) -> Packet {
    Packet::Publish(Box::new(packet))
}

/// The next packet, if one comes although nobody does anything.
pub async fn soon(client: &mut Client) -> Option<Packet> {
    let wait = std::time::Duration::from_millis(500);
    tokio::time::timeout(wait, client.receive()).await.ok()?
}
