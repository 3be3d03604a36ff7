//! What can be set. `docs/reference/configuration-edge.md` says the same in prose.

use std::path::PathBuf;
use std::time::Duration;

use mqtt_broker::extra::keys::MqttSettings;
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
        /// Retained messages that there can be
        pub mqtt_max_retained: usize = "100000";
        /// All retained messages together: topics, payloads and properties
        pub mqtt_max_retained_total: Size = "256MiB";
        /// What is logged to stderr: off, error, warn, info, debug or trace
        pub log: LogLevel = "warn";
        /// text, or json: one object a line
        pub log_format: LogFormat = "text";
    }
    groups {
        /// What core and edge have in common
        pub mqtt: MqttSettings;
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
