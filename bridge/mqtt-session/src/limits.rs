//! Every limit of this crate. Those in [`Limits`] can be set by the host.

use mqtt_codec::QoS;
use std::time::Duration;

/// Bytes of all filters of a session: each is in memory several times, and in every save of the session. One more is refused (0x97).
pub(crate) const FILTER_BYTES: usize = 4 * 1024 * 1024;
/// Filters with wildcards of a session up to which it is asked of each record that is read for it whether one of them matches. With more of them it is
/// given all records and looks at them itself, some at a time: to compare each with thousands in one go would keep everybody else waiting.
pub(crate) const ASKED_WILDCARDS: usize = 100;
/// A retained message in flight up to this size is a part of its session's snapshot, bytes. A larger one is read again by its topic.
pub(crate) const KEPT_MESSAGE_BYTES: usize = 16 * 1024;
/// The same for all such messages of one session together.
pub(crate) const KEPT_BYTES: usize = 256 * 1024;

/// What a server grants its clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// QoS 1 and 2 publishes of a client that may be unacknowledged: Receive Maximum in CONNACK.
    pub receive_maximum: u16,
    /// How many it takes before the connection is closed with 0x93; 3.1.1 has no such thing. Well-known clients (paho for Python, MQTT.js) do not
    /// look at Receive Maximum: those who send faster than storage takes are slowed down, long before, by not reading.
    pub receive_limit: u16,
    /// Bytes of one packet from a client: Maximum Packet Size in CONNACK.
    pub maximum_packet_size: u32,
    /// Topic aliases a client may set in one connection.
    pub topic_alias_maximum: u16,
    /// Topic aliases towards a client, if it takes any: its own maximum can only lower it.
    pub topic_aliases_sent: u16,
    /// A publish above it ends the connection [MQTT-3.2.2-11]; a subscription above it is granted this.
    pub maximum_qos: QoS,
    /// Whether clients may set retained messages.
    pub retain_available: bool,
    /// QoS 1 and 2 messages to a client that may be unacknowledged; its own Receive Maximum can only lower it.
    pub max_in_flight: u16,
    pub max_subscriptions: usize,
    /// Seconds; `u32::MAX` = sessions may stay for ever.
    pub max_session_expiry: u32,
    /// Seconds; 0 = any keep-alive, none included, is accepted.
    pub max_keep_alive: u16,
    /// Which server it is: see [`Limits::of_server`].
    pub server: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Enough to fill group commits. Clients size their own buffers by it, and common ones hold about a hundred.
            receive_maximum: 96,
            receive_limit: 16_384,
            maximum_packet_size: mqtt_codec::limits::DEFAULT_MAX_PACKET_SIZE as u32,
            topic_alias_maximum: 64,
            topic_aliases_sent: 64,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            max_in_flight: 512,
            max_subscriptions: 10_000,
            max_session_expiry: u32::MAX,
            max_keep_alive: 0,
            // Where FNV-1a begins.
            server: 0xcbf2_9ce4_8422_2325,
        }
    }
}

/// A silent client is closed after one and a half keep-alive periods [MQTT-3.1.2-22].
pub(crate) fn keep_alive_deadline(seconds: u16) -> Option<Duration> {
    (seconds != 0).then(|| Duration::from_millis(u64::from(seconds) * 1_500))
}
