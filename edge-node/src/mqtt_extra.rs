//! What is switched on beside the MQTT protocol, by the settings.

use anyhow::Result;
use mqtt_broker::Extra;
use mqtt_broker::extra::{Flapping, Rates, settings};

use crate::config::EdgeSettings;

/// What the settings mean; an error says which of them is wrong.
pub fn extra(set: &EdgeSettings) -> Result<Extra> {
    let rates = Rates {
        connections: set.mqtt_connection_rate,
        messages: set.mqtt_message_rate,
        bytes: set.mqtt_byte_rate.map(|rate| rate.bytes_per_second()),
    };
    let flapping = set.mqtt_flapping_connects.map(|connects| Flapping {
        connects,
        window: set.mqtt_flapping_window,
        ban: set.mqtt_flapping_ban,
    });
    settings::check_rates(&rates, flapping.as_ref()).map_err(anyhow::Error::msg)?;
    Ok(Extra {
        rewrites: settings::rewrites(&set.mqtt_rewrite)?,
        persist: settings::persist(&set.mqtt_rule)?,
        auto_subscribe: settings::auto_subscribe(&set.mqtt_auto_subscribe)?,
        rates,
        flapping,
        sys_interval: Some(set.mqtt_sys_interval).filter(|every| !every.is_zero()),
        ..Extra::default()
    })
}
