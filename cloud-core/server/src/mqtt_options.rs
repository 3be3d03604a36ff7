//! The settings of the MQTT front end.

use anyhow::{Context as _, Result, bail};
use mqtt::{MqttOptions, RetainedLimits};
use mqtt_broker::extra::{Flapping, Rates, Redirect, settings};
use mqtt_broker::{Extra, Limits};
use mqtt_codec::QoS;

use crate::config::CoreSettings;

/// What the settings mean; an error says which of them is wrong.
pub fn options(set: &CoreSettings) -> Result<MqttOptions> {
    let Some(maximum_qos) = QoS::from_u8(set.mqtt_max_qos) else {
        bail!("--mqtt-max-qos is {}: expected 0, 1 or 2", set.mqtt_max_qos);
    };
    let max_keep_alive = u16::try_from(set.mqtt_max_keep_alive.as_secs())
        .context("--mqtt-max-keep-alive: at most 65535s")?;
    let expiry = set.mqtt_max_session_expiry.map(|time| time.as_secs());
    let max_session_expiry = expiry.map_or(Ok(u32::MAX), u32::try_from);
    if set.mqtt_max_in_flight == 0 || set.mqtt_max_subscriptions == 0 {
        bail!(
            "--mqtt-max-in-flight or --mqtt-max-subscriptions is 0: no client would get anything"
        );
    }
    let retained_size = set.mqtt_max_retained_size.map(|size| size.bytes());
    let retained = RetainedLimits {
        messages: set.mqtt_max_retained,
        bytes: retained_size.map_or(Ok(usize::MAX), usize::try_from)?,
    };
    Ok(MqttOptions {
        limits: Limits {
            maximum_qos,
            retain_available: set.mqtt_retain,
            max_keep_alive,
            max_session_expiry: max_session_expiry.context("--mqtt-max-session-expiry")?,
            max_subscriptions: set.mqtt_max_subscriptions,
            max_in_flight: set.mqtt_max_in_flight,
            ..Limits::default()
        },
        retained,
        extra: extra(set)?,
    })
}

fn extra(set: &CoreSettings) -> Result<Extra> {
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
    let redirect = set.mqtt_redirect.clone();
    Ok(Extra {
        rewrites: settings::rewrites(&set.mqtt_rewrite)?,
        persist: settings::persist(&set.mqtt_rule)?,
        auto_subscribe: settings::auto_subscribe(&set.mqtt_auto_subscribe)?,
        rates,
        flapping,
        slow_after: set.mqtt_slow_after,
        sys_interval: Some(set.mqtt_sys_interval).filter(|every| !every.is_zero()),
        redirect: redirect.map(|server| Redirect {
            server,
            moved: set.mqtt_redirect_moved,
        }),
        response_topic: set.mqtt_response_topic.clone(),
    })
}
