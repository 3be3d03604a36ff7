//! What can be set. `docs/reference/configuration.md` says the same in prose.

use std::path::PathBuf;
use std::time::Duration;

use mqtt_broker::extra::keys::MqttSettings;
use quota::QuotaSettings;
use settings::{Listen, Size, choices, settings};

use settings::logging::{LogFormat, LogLevel};

choices! {
    pub enum AnonymousSetting {
        Allow = "allow",
        Deny = "deny",
        Loopback = "loopback",
    }
}

settings! {
    pub struct CoreSettings {
        /// Directory that holds everything the core keeps; made if it is missing
        pub data_dir: PathBuf;
        /// MQTT 3.1.1 and 5 listener; `off` = none, as for all listeners
        pub listen_mqtt: Listen = "127.0.0.1:1883";
        /// MQTT over TLS listener
        pub listen_mqtt_tls: Listen = "off";
        /// MQTT over WebSocket listener, path /mqtt
        pub listen_mqtt_ws: Listen = "off";
        /// MQTT over WebSocket and TLS listener, path /mqtt
        pub listen_mqtt_wss: Listen = "off";
        /// MQTT over QUIC listener (UDP)
        pub listen_mqtt_quic: Listen = "off";
        /// Kafka listener
        pub listen_kafka: Listen = "127.0.0.1:9092";
        /// Kafka over TLS listener
        pub listen_kafka_tls: Listen = "off";
        /// AMQP 0-9-1 listener
        pub listen_amqp: Listen = "127.0.0.1:5672";
        /// AMQP over TLS listener
        pub listen_amqps: Listen = "off";
        /// PEM file with the certificate of the TLS, WSS and QUIC listeners, and those that lead to the root; read again when it changes
        pub tls_certificate: Option<PathBuf>;
        /// PEM file with its private key
        pub tls_key: Option<PathBuf>;
        /// PEM file with the authorities that clients' certificates must be of
        pub tls_client_ca: Option<PathBuf>;
        /// Whether clients show a certificate: off, optional, required; none: required where there is a tls-client-ca
        pub tls_client_auth: Option<ClientAuth>;
        /// Whether a balancer that sends PROXY headers (version 2) is in front of the TCP listeners of MQTT, Kafka and AMQP
        pub proxy_protocol: bool = "false";
        /// Sync listener (UDP): edges connect here, and prove who they are by certificate
        pub listen_sync: Listen = "0.0.0.0:4884";
        /// TLS over TCP for edges whose networks let no UDP through, such as 0.0.0.0:443; none: the address and port of listen-sync
        pub listen_sync_tls: Option<Listen>;
        /// Admin listener: the towline command line, /healthz, /readyz, /metrics
        pub listen_admin: Listen = "127.0.0.1:8484";
        /// Clients without a user: loopback lets them in from this machine as long as there is no user, deny never, allow always and from everywhere
        pub anonymous: AnonymousSetting = "loopback";
        /// A set of keys (RFC 7517), a file or an http(s) URL: tokens (JWT) signed with them are passwords; none: tokens mean nothing
        pub jwt_keys: Option<String>;
        /// How often it is read again
        pub jwt_refresh: Duration = "5m";
        /// What tokens must say as their issuer (`iss`)
        pub jwt_issuer: Option<String>;
        /// What tokens must name as their audience (`aud`)
        pub jwt_audience: Option<String>;
        /// The claim of a token that names the user
        pub jwt_user_claim: String = "sub";
        /// The claim of a token with the groups of the user
        pub jwt_groups_claim: String = "groups";
        /// Host name or address that clients are told to come back to (Kafka); none: the address they used
        pub advertise: Option<String>;
        /// Whether writing to an unknown stream creates it
        pub auto_create_streams: bool = "true";
        /// Partitions of a stream where the creator names no number
        pub default_partitions: u32 = "1";
        /// Open connections a listener
        pub max_connections: usize = "10000";
        /// Largest body of one message, or record batch of a producer
        pub max_message_size: Size = "8MiB";
        /// Recent records kept in memory for readers
        pub tail_memory: Size = "256MiB";
        /// Size of one file of the write-ahead log
        pub wal_file_size: Size = "64MiB";
        /// Room of the write-ahead log on the disk; at the bound writes are held back until something of it is sealed
        pub wal_size: Size = "4GiB";
        /// How long writes are held back at that bound, or by a disk that does not answer, before they are refused
        pub wal_stall_timeout: Duration = "10s";
        /// Where sealed segments go: file:///path, s3://bucket/prefix?endpoint=...&region=..., gs://bucket, az://container; none:
        /// the directory `cold` in the data directory
        pub cold_url: Option<String>;
        /// Unsealed bytes at which they are sealed, and so about the size of a segment in the cold store
        pub segment_size: Size = "128MiB";
        /// Age at which records are sealed in any case
        pub seal_after: Duration = "10m";
        /// Records from the cold store kept in memory; half of it at most is read ahead
        pub cold_cache_memory: Size = "64MiB";
        /// Records from the cold store kept on the disk, where the cold store is not a directory of this machine
        pub cold_cache_disk: Size = "4GiB";
        /// Fetched from the cold store ahead of one reader
        pub cold_readahead: Size = "16MiB";
        /// Age from which an object of this core's in the cold store that nothing refers to is deleted
        pub orphan_grace: Duration = "1h";
        /// Memory of compaction: about 40 bytes a key; with less than its keys need a stream is compacted in several passes
        pub compaction_memory: Size = "64MiB";
        /// Retained messages that there can be
        pub mqtt_max_retained: usize = "1000000";
        /// All retained messages together: topics, payloads and properties
        pub mqtt_max_retained_total: Size = "1GiB";
        /// How long connections may take to end at shutdown before they are cut
        pub shutdown_timeout: Duration = "5s";
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
        /// Certificates for clients that ask for another name (SNI)
        pub certificate: CertificateSettings;
        /// How much users and clients may do; of those for each user, and of those for each client, the first that fits counts
        pub quota: QuotaSettings;
    }
}

settings! {
    pub struct CertificateSettings {
        pub name: String;
        pub certificate: PathBuf;
        pub key: PathBuf;
    }
}

choices! {
    pub enum ClientAuth {
        Off = "off",
        Optional = "optional",
        Required = "required",
    }
}
