use crate::DecodeError;

/// Reason codes (MQTT 5 section 2.4). The CONNACK return codes of 3.1.1 are given by [`ReasonCode::to_v3_return_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReasonCode(pub u8);

/// The codes each packet may carry (section 2.4), in ascending order; those of SUBACK in 3.1.1 are in its section 3.9.3.
pub(crate) mod codes {
    pub const CONNACK: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95,
        0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    /// Of PUBREC too.
    pub const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    /// Of PUBCOMP too.
    pub const PUBREL: &[u8] = &[0x00, 0x92];
    pub const SUBACK: &[u8] = &[
        0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
    ];
    pub const SUBACK_V3: &[u8] = &[0x00, 0x01, 0x02, 0x80];
    pub const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    /// Of both ends. 0x8C is there for a failed re-authentication (sections 2.4 and 4.12.1).
    pub const DISCONNECT: &[u8] = &[
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
        0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    pub const AUTH: &[u8] = &[0x00, 0x18, 0x19];
}

impl ReasonCode {
    /// A code that is not one of `codes` is a protocol error [MQTT-3.4.2-1 and the same of the other packets].
    pub(crate) fn of(byte: u8, codes: &[u8]) -> Result<ReasonCode, DecodeError> {
        if codes.binary_search(&byte).is_err() {
            return Err(DecodeError::Protocol(
                "a reason code that this packet can not have (section 2.4)",
            ));
        }
        Ok(ReasonCode(byte))
    }

    pub const SUCCESS: ReasonCode = ReasonCode(0x00);
    pub const NORMAL_DISCONNECTION: ReasonCode = ReasonCode(0x00);
    pub const DISCONNECT_WITH_WILL_MESSAGE: ReasonCode = ReasonCode(0x04);
    pub const NO_MATCHING_SUBSCRIBERS: ReasonCode = ReasonCode(0x10);
    pub const NO_SUBSCRIPTION_EXISTED: ReasonCode = ReasonCode(0x11);
    pub const CONTINUE_AUTHENTICATION: ReasonCode = ReasonCode(0x18);
    pub const RE_AUTHENTICATE: ReasonCode = ReasonCode(0x19);
    pub const UNSPECIFIED_ERROR: ReasonCode = ReasonCode(0x80);
    pub const MALFORMED_PACKET: ReasonCode = ReasonCode(0x81);
    pub const PROTOCOL_ERROR: ReasonCode = ReasonCode(0x82);
    pub const IMPLEMENTATION_SPECIFIC_ERROR: ReasonCode = ReasonCode(0x83);
    pub const UNSUPPORTED_PROTOCOL_VERSION: ReasonCode = ReasonCode(0x84);
    pub const CLIENT_IDENTIFIER_NOT_VALID: ReasonCode = ReasonCode(0x85);
    pub const BAD_USER_NAME_OR_PASSWORD: ReasonCode = ReasonCode(0x86);
    pub const NOT_AUTHORIZED: ReasonCode = ReasonCode(0x87);
    pub const SERVER_UNAVAILABLE: ReasonCode = ReasonCode(0x88);
    pub const SERVER_BUSY: ReasonCode = ReasonCode(0x89);
    pub const BANNED: ReasonCode = ReasonCode(0x8A);
    pub const SERVER_SHUTTING_DOWN: ReasonCode = ReasonCode(0x8B);
    pub const BAD_AUTHENTICATION_METHOD: ReasonCode = ReasonCode(0x8C);
    pub const KEEP_ALIVE_TIMEOUT: ReasonCode = ReasonCode(0x8D);
    pub const SESSION_TAKEN_OVER: ReasonCode = ReasonCode(0x8E);
    pub const TOPIC_FILTER_INVALID: ReasonCode = ReasonCode(0x8F);
    pub const TOPIC_NAME_INVALID: ReasonCode = ReasonCode(0x90);
    pub const PACKET_IDENTIFIER_IN_USE: ReasonCode = ReasonCode(0x91);
    pub const PACKET_IDENTIFIER_NOT_FOUND: ReasonCode = ReasonCode(0x92);
    pub const RECEIVE_MAXIMUM_EXCEEDED: ReasonCode = ReasonCode(0x93);
    pub const TOPIC_ALIAS_INVALID: ReasonCode = ReasonCode(0x94);
    pub const PACKET_TOO_LARGE: ReasonCode = ReasonCode(0x95);
    pub const QUOTA_EXCEEDED: ReasonCode = ReasonCode(0x97);
    pub const ADMINISTRATIVE_ACTION: ReasonCode = ReasonCode(0x98);
    pub const PAYLOAD_FORMAT_INVALID: ReasonCode = ReasonCode(0x99);
    pub const RETAIN_NOT_SUPPORTED: ReasonCode = ReasonCode(0x9A);
    pub const QOS_NOT_SUPPORTED: ReasonCode = ReasonCode(0x9B);
    pub const USE_ANOTHER_SERVER: ReasonCode = ReasonCode(0x9C);
    pub const SERVER_MOVED: ReasonCode = ReasonCode(0x9D);
    pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: ReasonCode = ReasonCode(0x9E);
    pub const CONNECTION_RATE_EXCEEDED: ReasonCode = ReasonCode(0x9F);

    pub fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// May CONNACK carry it [MQTT-3.2.2-8]?
    pub fn is_of_connack(self) -> bool {
        codes::CONNACK.binary_search(&self.0).is_ok()
    }

    /// May DISCONNECT carry it [MQTT-3.14.2-1]?
    pub fn is_of_disconnect(self) -> bool {
        codes::DISCONNECT.binary_search(&self.0).is_ok()
    }

    /// For people: the reason string where nothing more is to be said.
    pub fn text(self) -> &'static str {
        match self {
            ReasonCode::MALFORMED_PACKET => "malformed packet",
            ReasonCode::PROTOCOL_ERROR => "protocol error",
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => "this protocol version is not supported",
            ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => "the client identifier is not valid",
            ReasonCode::BAD_USER_NAME_OR_PASSWORD => "bad user name or password",
            ReasonCode::NOT_AUTHORIZED => "not authorised",
            ReasonCode::SERVER_UNAVAILABLE => "the server is not available now",
            ReasonCode::SERVER_BUSY => "the server can not go on now",
            ReasonCode::BANNED => "banned",
            ReasonCode::SERVER_SHUTTING_DOWN => "the server is shutting down",
            ReasonCode::BAD_AUTHENTICATION_METHOD => "this authentication method is not offered",
            ReasonCode::TOPIC_FILTER_INVALID => "the topic filter is not valid here",
            ReasonCode::TOPIC_NAME_INVALID => "the topic name is not valid here",
            ReasonCode::PACKET_TOO_LARGE => "the packet is too large",
            ReasonCode::QUOTA_EXCEEDED => "a limit of the server is reached",
            ReasonCode::RETAIN_NOT_SUPPORTED => "retained messages are switched off",
            ReasonCode::QOS_NOT_SUPPORTED => "this QoS is above the server's maximum",
            ReasonCode::USE_ANOTHER_SERVER => "use another server",
            ReasonCode::SERVER_MOVED => "the server has moved",
            ReasonCode::CONNECTION_RATE_EXCEEDED => "too many connections or attempts: come later",
            _ => "refused",
        }
    }

    /// The CONNACK return code of 3.1.1 (section 3.2.2.3) that says about the same.
    pub fn to_v3_return_code(self) -> u8 {
        match self {
            ReasonCode::SUCCESS => 0,
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
            ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
            ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
            ReasonCode::NOT_AUTHORIZED
            | ReasonCode::BAD_AUTHENTICATION_METHOD
            | ReasonCode::BANNED => 5,
            _ => 3,
        }
    }
}
