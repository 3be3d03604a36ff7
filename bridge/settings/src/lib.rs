//! Settings from one TOML file, the environment and flags, under the same name everywhere.
//!
//! A key `listen-mqtt` is the flag `--listen-mqtt`, the variable `TOWLINE_LISTEN_MQTT` and the key `listen-mqtt` of the
//! file. Flags win over the environment, the environment over the file, the file over the default. A key is declared
//! once:
//!
//! ```
//! use clap::Parser;
//! use settings::{Flags, HostPort, Listen};
//!
//! settings::settings! {
//!     pub struct EdgeSettings {
//!         /// Directory that holds everything the edge keeps
//!         pub data_dir: std::path::PathBuf;
//!         /// Where devices connect
//!         pub listen_mqtt: Listen = "1883";
//!         /// The core to send to
//!         pub core: Option<HostPort>;
//!     }
//! }
//!
//! #[derive(Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     flags: Flags<EdgeSettings>,
//! }
//!
//! let args = Args::parse_from(["towline-edge", "--data-dir", "/tmp/x", "--core", "plant.example:4884"]);
//! let loaded = args.flags.load().unwrap();
//! assert_eq!(loaded.settings.listen_mqtt.to_string(), "0.0.0.0:1883");
//! assert_eq!(loaded.origin("core").to_string(), "the flag --core");
//! ```
//!
//! Lists of sections, `[[lane]]`, stand in the file only:
//!
//! ```
//! settings::settings! {
//!     pub struct LaneSettings {
//!         pub name: String;
//!         pub priority: u8 = "4";
//!     }
//! }
//! settings::settings! {
//!     pub struct EdgeSettings {
//!         pub data_dir: std::path::PathBuf;
//!     }
//!     lists {
//!         pub lane: LaneSettings;
//!     }
//! }
//!
//! fn names(settings: &EdgeSettings) -> Vec<&str> {
//!     settings.lane.iter().map(|section| section.settings.name.as_str()).collect()
//! }
//! ```
//!
//! What several daemons have in common is a group: its keys and lists are keys and lists of whatever contains it.
//!
//! ```
//! settings::settings! {
//!     pub struct MqttSettings {
//!         pub mqtt_max_qos: u8 = "2";
//!     }
//! }
//! settings::settings! {
//!     pub struct EdgeSettings {
//!         pub data_dir: std::path::PathBuf;
//!     }
//!     groups {
//!         pub mqtt: MqttSettings;
//!     }
//! }
//!
//! fn max_qos(settings: &EdgeSettings) -> u8 {
//!     settings.mqtt.mqtt_max_qos
//! }
//! ```
//!
//! A field without a default is required unless its type is `Option`. The flag `--config` (`TOWLINE_CONFIG`) names the
//! file; without it there is none. A variable that is set to nothing counts as not set.

mod declare;
mod error;
mod file;
mod flags;
mod load;
pub mod logging;
pub mod terminal;
mod units;
mod value;

pub use declare::{Declaration, Key, List};
pub use error::SettingsError;
pub use flags::Flags;
pub use load::{Loaded, Origin, Section, Values};
pub use units::{HostPort, Listen, Rate, Size};
pub use value::Value;

/// What the names of environment variables begin with.
pub const ENV_PREFIX: &str = "TOWLINE_";
