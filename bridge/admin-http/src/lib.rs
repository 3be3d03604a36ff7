//! What the admin listeners of core and edge have in common: the administrator's secret, refusals, and the requests about the MQTT broker.
//! What is asked and answered is in `admin-api`.

pub mod credentials;
pub mod mqtt;
mod refusal;
mod secret;

pub use credentials::SecretHash;
pub use refusal::Refusal;
pub use secret::{Guard, require_secret};
