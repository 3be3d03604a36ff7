//! What can be set. `docs/reference/configuration-edge.md` says the same in prose.

use std::path::PathBuf;

use settings::{HostPort, Listen, Rate, Size, settings};

use settings::logging::{LogFormat, LogLevel};

use crate::lanes::LaneSettings;

settings! {
    pub struct EdgeSettings {
        /// Directory that holds everything the edge keeps; made if it is missing
        pub data_dir: PathBuf;
        /// MQTT 3.1.1 and 5 listener for devices
        pub listen_mqtt: Listen = "127.0.0.1:1883";
        /// The core's sync listener, HOST:PORT; none: the edge works alone and keeps what is published
        pub core: Option<HostPort>;
        /// Enrolment token from `towline token create`; needed once
        pub token: Option<String>;
        /// Name of this edge in the core; none: the host name
        pub name: Option<String>;
        /// Listener for /healthz, /readyz and /metrics
        pub listen_admin: Listen = "off";
        /// Most bytes on disk of each lane that has no size of its own
        pub outbox_size: Size = "1GiB";
        /// Most bytes a second to the core, over all lanes: 64KiB/s, 2Mbit/s
        pub link_rate: Option<Rate>;
        /// How far a persistent session of a local client may lag behind before it loses the oldest messages
        pub session_backlog: Size = "256MiB";
        /// Open MQTT connections
        pub max_connections: usize = "1000";
        /// What is logged to stderr: off, error, warn, info, debug or trace
        pub log: LogLevel = "warn";
        /// text, or json: one object a line
        pub log_format: LogFormat = "text";
    }
    lists {
        /// Lanes of the outbox
        pub lane: LaneSettings;
    }
}
