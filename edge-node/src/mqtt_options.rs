//! What the `mqtt-...` keys of the settings mean.

use anyhow::{Error, Result};
use mqtt_broker::extra::keys::Meaning;

use crate::config::EdgeSettings;
use crate::limits;

/// An error says which of them is wrong.
pub fn options(set: &EdgeSettings) -> Result<Meaning> {
    let total = set.mqtt_max_retained_total.bytes();
    let meaning = set.mqtt.meaning(set.mqtt_max_retained, total);
    let mut meaning = meaning.map_err(Error::msg)?;
    meaning.limits.maximum_packet_size = limits::MAX_PACKET;
    meaning.extra.unfinished_bytes = limits::UNFINISHED;
    Ok(meaning)
}
