//! CONNECT (section 3.1) and what CONNACK says (section 3.2).

use crate::session::{Connection, PendingWill};
use crate::{ClientId, Limits, Message, MessageProperties, Session};
use mqtt_codec::{ConnAck, Connect, PacketId, Properties, QoS, ReasonCode, Version, Will};

/// Checks that need no state. The reason code goes into CONNACK.
pub fn check_connect(connect: &Connect) -> Result<(), ReasonCode> {
    // A server may not make up an id for a session that is to be found again by it [MQTT-3.1.3-8 of 3.1.1].
    let nameless = connect.client_id.is_empty();
    if nameless && connect.version != Version::V5 && !connect.clean_start {
        return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
    }
    Ok(())
}

/// What the server announces is what it takes: a will above it is refused [MQTT-3.2.2-12, 3.2.2-13].
pub fn check_will(connect: &Connect, limits: &Limits) -> Result<(), ReasonCode> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    if will.qos > limits.maximum_qos {
        return Err(ReasonCode::QOS_NOT_SUPPORTED);
    }
    if will.retain && !limits.retain_available {
        return Err(ReasonCode::RETAIN_NOT_SUPPORTED);
    }
    Ok(())
}

/// What a CONNECT leads to.
pub struct Connected {
    pub session: Session,
    pub connack: ConnAck,
}

/// `origin`: it may be published when its client is back, with a No Local subscription that matches.
fn pending_will(will: Will, origin: u64) -> PendingWill {
    PendingWill {
        delay: will.properties.will_delay_interval.unwrap_or(0),
        message_expiry: will.properties.message_expiry_interval,
        message: Message {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            expires_at: None,
            origin: Some(origin),
            number: None,
            properties: MessageProperties::from_packet(will.properties),
        },
    }
}

impl Session {
    /// `stored` is the session that was there (of one that a clean start ends, the will was taken: [`Session::take_will`]), `unreleased` its QoS 2 packet ids from storage, `client_id` the assigned one if
    /// CONNECT had none, `new_tag` a random number for a new session.
    pub fn handle_connect(
        connect: Connect,
        client_id: ClientId,
        stored: Option<Session>,
        unreleased: Vec<PacketId>,
        new_tag: u64,
        limits: Limits,
    ) -> Connected {
        let assigned = connect.client_id.is_empty();
        let epoch = stored
            .as_ref()
            .map_or(1, |session| session.epoch.saturating_add(1));
        let (mut session, session_present) = match stored {
            Some(session) if !connect.clean_start => (session, true),
            _ => (Session::new(client_id, new_tag, epoch), false),
        };
        let properties = &connect.properties;
        let asked_expiry = match connect.version {
            Version::V5 => properties.session_expiry_interval.unwrap_or(0),
            _ if connect.clean_start => 0,
            _ => u32::MAX,
        };
        let clamp_keep_alive = connect.version == Version::V5
            && limits.max_keep_alive != 0
            && (connect.keep_alive == 0 || connect.keep_alive > limits.max_keep_alive);

        session.epoch = epoch;
        session.disconnected_at = None;
        session.expiry_interval = asked_expiry.min(limits.max_session_expiry);
        let origin = limits.origin(&session.client_id);
        session.will = connect.will.map(|will| pending_will(will, origin).into());
        let mut connection = Connection::new(connect.version, limits);
        connection.origin = origin;
        connection.is_bridge = connect.is_bridge;
        connection.connect_expiry = session.expiry_interval;
        connection.keep_alive = if clamp_keep_alive {
            limits.max_keep_alive
        } else {
            connect.keep_alive
        };
        let client_receive_maximum = usize::from(properties.receive_maximum.unwrap_or(u16::MAX));
        connection.send_quota = connection.send_quota.min(client_receive_maximum).max(1);
        if let Some(size) = properties.maximum_packet_size {
            connection.client_maximum_packet_size = size as usize;
        }
        connection.problem_information = properties.request_problem_information != Some(0);
        connection.aliases_to_client = properties
            .topic_alias_maximum
            .unwrap_or(0)
            .min(limits.topic_aliases_sent);
        connection.resumed = session_present;
        if session_present {
            connection.unreleased = unreleased.into_iter().map(|id| (id, true)).collect();
        }
        connection.resends = !session.in_flight.entries.is_empty();
        session.connection = connection;
        for entry in &mut session.in_flight.entries {
            entry.sent = false;
        }

        let mut answer = Properties::default();
        if connect.version == Version::V5 {
            answer.receive_maximum = Some(limits.receive_maximum);
            answer.maximum_packet_size = Some(limits.maximum_packet_size);
            answer.topic_alias_maximum = Some(limits.topic_alias_maximum);
            answer.shared_subscription_available = Some(1);
            if limits.maximum_qos < QoS::ExactlyOnce {
                answer.maximum_qos = Some(limits.maximum_qos as u8);
            }
            if !limits.retain_available {
                answer.retain_available = Some(0);
            }
            if session.expiry_interval != asked_expiry {
                answer.session_expiry_interval = Some(session.expiry_interval);
            }
            if clamp_keep_alive {
                answer.server_keep_alive = Some(limits.max_keep_alive);
            }
            if assigned {
                answer.assigned_client_identifier = Some(session.client_id.as_str().to_owned());
            }
        }
        let connack = ConnAck {
            session_present,
            reason_code: ReasonCode::SUCCESS,
            properties: answer,
        };
        Connected { session, connack }
    }
}
