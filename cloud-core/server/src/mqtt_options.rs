//! The settings of the MQTT front end.

use anyhow::{Error, Result};
use mqtt::MqttOptions;
use mqtt_broker::extra::keys::Meaning;
use mqtt_broker::mqtt_keys;

use crate::config::CoreSettings;

/// What the settings mean; an error says which of them is wrong.
pub fn options(set: &CoreSettings) -> Result<MqttOptions> {
    let Meaning {
        limits,
        retained,
        extra,
    } = mqtt_keys!(set).meaning().map_err(Error::msg)?;
    Ok(MqttOptions {
        limits,
        retained,
        extra,
    })
}
