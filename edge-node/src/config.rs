//! What can be set. `docs/reference/configuration-edge.md` says the same in prose.

use std::path::PathBuf;
use std::time::Duration;

use mqtt_broker::extra::settings::{AutoSubscribeSettings, MqttRuleSettings, RewriteSettings};
use quota::QuotaSettings;
use settings::{Listen, Rate, Size, Value, settings};
use sync_quic::CoreAddress;

use settings::logging::{LogFormat, LogLevel};

use crate::lanes::LaneSettings;
use crate::rules::RuleSettings;
use crate::users::{AclSettings, UserSettings};

settings! {
    pub struct EdgeSettings {
        /// Directory that holds everything the edge keeps; made if it is missing
        pub data_dir: PathBuf;
        /// MQTT 3.1.1 and 5 listener for devices
        pub listen_mqtt: Listen = "127.0.0.1:1883";
        /// MQTT over TLS listener for devices
        pub listen_mqtts: Listen = "off";
        /// MQTT over WebSocket listener, path /mqtt
        pub listen_ws: Listen = "off";
        /// MQTT over WebSocket and TLS listener, path /mqtt
        pub listen_wss: Listen = "off";
        /// PEM file with the certificate of the TLS listeners, and those that lead to the root; read again when it changes
        pub tls_cert: Option<PathBuf>;
        /// PEM file with its private key
        pub tls_key: Option<PathBuf>;
        /// PEM file with the authorities whose certificates clients of the TLS listeners must have; none: they need no certificate
        pub tls_client_ca: Option<PathBuf>;
        /// Whether clients without a user may connect. Not set: only while there are no users and devices connect on this machine
        pub allow_anonymous: Option<bool>;
        /// The core's sync listener, HOST:PORT, or several with commas; quic:// or tls:// before one takes that transport only;
        /// none: the edge works alone and keeps what is published
        pub core: Option<Cores>;
        /// How often the edge shows the core that it is alive when there is nothing else to say
        pub keep_alive: Duration = "25s";
        /// Enrolment token from `towline token create`; needed once
        pub token: Option<String>;
        /// Name of this edge in the core; none: the host name
        pub name: Option<String>;
        /// Listener for /healthz, /readyz, /metrics and `towline mqtt`
        pub listen_admin: Listen = "off";
        /// Most bytes on disk of each lane that has no size of its own
        pub outbox_size: Size = "1GiB";
        /// Most bytes a second to the core, over all lanes: 64KiB/s, 2Mbit/s
        pub link_rate: Option<Rate>;
        /// How far a persistent session of a local client may lag behind before it loses the oldest messages
        pub session_backlog: Size = "256MiB";
        /// Open MQTT connections
        pub max_connections: usize = "1000";
        /// Highest QoS that MQTT clients may publish with: 0, 1 or 2
        pub mqtt_max_qos: u8 = "2";
        /// Whether MQTT clients may set retained messages
        pub mqtt_retain: bool = "true";
        /// Retained messages that there can be
        pub mqtt_max_retained: usize = "100000";
        /// Largest payload of a retained message; none: that of any message
        pub mqtt_max_retained_size: Option<Size>;
        /// Longest keep-alive of MQTT 5 clients, at most 65535s; 0s: any, none included
        pub mqtt_max_keep_alive: Duration = "0s";
        /// Longest time that an MQTT session outlives its connection; none: as long as the client asks for
        pub mqtt_max_session_expiry: Option<Duration>;
        /// Subscriptions of one MQTT session
        pub mqtt_max_subscriptions: usize = "10000";
        /// QoS 1 and 2 messages to one MQTT client that it has not acknowledged
        pub mqtt_max_in_flight: u16 = "512";
        /// Where all MQTT clients are sent: host names with ports, separated by spaces (section 4.11 of MQTT 5)
        pub mqtt_redirect: Option<String>;
        /// Whether they are told to go there from now on (0x9D) and not for now (0x9C)
        pub mqtt_redirect_moved: bool = "false";
        /// Response Information for MQTT clients that ask for it; %c is the client id, %u the user
        pub mqtt_response_topic: Option<String>;
        /// How often `$SYS` topics are published to clients that subscribe to them; 0s: never
        pub mqtt_sys_interval: Duration = "10s";
        /// New MQTT connections a second; none: as many as come
        pub mqtt_connection_rate: Option<u32>;
        /// Messages a second from one MQTT client; it is read later when it is faster
        pub mqtt_message_rate: Option<u32>;
        /// Bytes a second from one MQTT client: 64KiB/s, 2Mbit/s
        pub mqtt_byte_rate: Option<Rate>;
        /// An MQTT client whose connections end so often within the window is banned for a while; none: never
        pub mqtt_flapping_connects: Option<u32>;
        /// That window
        pub mqtt_flapping_window: Duration = "60s";
        /// That while
        pub mqtt_flapping_ban: Duration = "5m";
        /// From when on an MQTT client that takes nothing of what waits for it is on the list of slow subscribers
        pub mqtt_slow_after: Duration = "1s";
        /// What is logged to stderr: off, error, warn, info, debug or trace
        pub log: LogLevel = "warn";
        /// text, or json: one object a line
        pub log_format: LogFormat = "text";
    }
    lists {
        /// Lanes of the outbox
        pub lane: LaneSettings;
        /// What becomes of what devices publish; the first whose filter matches decides
        pub rule: RuleSettings;
        /// Who may connect
        pub user: UserSettings;
        /// Who may publish and subscribe to what; the first that fits decides
        pub acl: AclSettings;
        /// How much users and clients may do; of those for each user, and of those for each client, the first that fits counts
        pub quota: QuotaSettings;
        /// Which MQTT topics are never stored; the first whose filter matches decides
        pub mqtt_rule: MqttRuleSettings;
        /// Topics and filters that are written anew; the first that fits decides
        pub mqtt_rewrite: RewriteSettings;
        /// Subscriptions that the edge makes when a client connects
        pub mqtt_auto_subscribe: AutoSubscribeSettings;
    }
}

/// Where the core is: one address, or several.
#[derive(Debug, Clone)]
pub struct Cores(pub Vec<CoreAddress>);

impl Value for Cores {
    fn parse(text: &str) -> Result<Cores, String> {
        CoreAddress::parse_list(text)
            .map(Cores)
            .map_err(|error| error.to_string())
    }
}
