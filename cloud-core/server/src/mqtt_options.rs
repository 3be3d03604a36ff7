//! The settings of the MQTT front end.

use anyhow::{Error, Result};
use mqtt::MqttOptions;
use mqtt_broker::extra::keys::Meaning;

use crate::config::CoreSettings;

/// What the settings mean; an error says which of them is wrong.
pub fn options(set: &CoreSettings) -> Result<MqttOptions> {
    let total = set.mqtt_max_retained_total.bytes();
    let meaning = set.mqtt.meaning(set.mqtt_max_retained, total);
    let Meaning {
        limits,
        retained,
        extra,
    } = meaning.map_err(Error::msg)?;
    Ok(MqttOptions {
        limits,
        retained,
        extra,
    })
}
