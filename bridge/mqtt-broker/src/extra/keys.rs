//! The plain `mqtt-...` keys: core and edge have the same, and they mean the same.

use super::settings::{
    AutoSubscribeSettings, MqttRuleSettings, RewriteSettings, auto_subscribe, check_rates, persist,
    rewrites,
};
use super::{Extra, Flapping, Rates, Redirect, RetainedLimits};
use mqtt_codec::QoS;
use mqtt_session::Limits;
use settings::{Rate, Section, Size};
use std::time::Duration;

/// As they were given. A field `max_qos` is the key `mqtt-max-qos`.
#[derive(Clone, Debug)]
pub struct Keys<'s> {
    pub max_qos: u8,
    pub retain: bool,
    pub max_retained: usize,
    pub max_retained_size: Option<Size>,
    pub max_keep_alive: Duration,
    pub max_session_expiry: Option<Duration>,
    pub max_subscriptions: usize,
    pub max_in_flight: u16,
    pub redirect: Option<String>,
    pub redirect_moved: bool,
    pub response_topic: Option<String>,
    pub sys_interval: Duration,
    pub connection_rate: Option<u32>,
    pub message_rate: Option<u32>,
    pub byte_rate: Option<Rate>,
    pub flapping_connects: Option<u32>,
    pub flapping_window: Duration,
    pub flapping_ban: Duration,
    pub slow_after: Duration,
    pub rule: &'s [Section<MqttRuleSettings>],
    pub rewrite: &'s [Section<RewriteSettings>],
    pub auto_subscribe: &'s [Section<AutoSubscribeSettings>],
}

/// The [`Keys`] of a settings structure, whose fields have the names of the keys.
#[macro_export]
macro_rules! mqtt_keys {
    ($set:expr) => {
        $crate::extra::keys::Keys {
            max_qos: $set.mqtt_max_qos,
            retain: $set.mqtt_retain,
            max_retained: $set.mqtt_max_retained,
            max_retained_size: $set.mqtt_max_retained_size,
            max_keep_alive: $set.mqtt_max_keep_alive,
            max_session_expiry: $set.mqtt_max_session_expiry,
            max_subscriptions: $set.mqtt_max_subscriptions,
            max_in_flight: $set.mqtt_max_in_flight,
            redirect: $set.mqtt_redirect.clone(),
            redirect_moved: $set.mqtt_redirect_moved,
            response_topic: $set.mqtt_response_topic.clone(),
            sys_interval: $set.mqtt_sys_interval,
            connection_rate: $set.mqtt_connection_rate,
            message_rate: $set.mqtt_message_rate,
            byte_rate: $set.mqtt_byte_rate,
            flapping_connects: $set.mqtt_flapping_connects,
            flapping_window: $set.mqtt_flapping_window,
            flapping_ban: $set.mqtt_flapping_ban,
            slow_after: $set.mqtt_slow_after,
            rule: &$set.mqtt_rule,
            rewrite: &$set.mqtt_rewrite,
            auto_subscribe: &$set.mqtt_auto_subscribe,
        }
    };
}

/// What the keys mean.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// Without what the host alone knows: `maximum_packet_size`.
    pub limits: Limits,
    pub retained: RetainedLimits,
    pub extra: Extra,
}

impl Keys<'_> {
    /// An error says which of them is wrong.
    pub fn meaning(&self) -> Result<Meaning, String> {
        Ok(Meaning {
            limits: self.limits()?,
            retained: self.retained()?,
            extra: self.extra()?,
        })
    }

    fn limits(&self) -> Result<Limits, String> {
        let maximum_qos = QoS::from_u8(self.max_qos)
            .ok_or_else(|| format!("--mqtt-max-qos is {}: expected 0, 1 or 2", self.max_qos))?;
        let max_keep_alive = u16::try_from(self.max_keep_alive.as_secs())
            .map_err(|_| "--mqtt-max-keep-alive: at most 65535s".to_owned())?;
        let expiry = self.max_session_expiry.map(|time| time.as_secs());
        let max_session_expiry = expiry
            .map_or(Ok(u32::MAX), u32::try_from)
            .map_err(|_| format!("--mqtt-max-session-expiry: at most {}s", u32::MAX))?;
        if self.max_in_flight == 0 || self.max_subscriptions == 0 {
            let text = "--mqtt-max-in-flight or --mqtt-max-subscriptions is 0: no client would get anything";
            return Err(text.to_owned());
        }
        Ok(Limits {
            maximum_qos,
            retain_available: self.retain,
            max_keep_alive,
            max_session_expiry,
            max_subscriptions: self.max_subscriptions,
            max_in_flight: self.max_in_flight,
            ..Limits::default()
        })
    }

    fn retained(&self) -> Result<RetainedLimits, String> {
        let bytes = self.max_retained_size.map(|size| size.bytes());
        let bytes = bytes.map_or(Ok(usize::MAX), usize::try_from);
        Ok(RetainedLimits {
            messages: self.max_retained,
            bytes: bytes.map_err(|error| format!("--mqtt-max-retained-size: {error}"))?,
        })
    }

    fn extra(&self) -> Result<Extra, String> {
        let rates = Rates {
            connections: self.connection_rate,
            messages: self.message_rate,
            bytes: self.byte_rate.map(|rate| rate.bytes_per_second()),
        };
        let flapping = self.flapping_connects.map(|connects| Flapping {
            connects,
            window: self.flapping_window,
            ban: self.flapping_ban,
        });
        check_rates(&rates, flapping.as_ref())?;
        let in_file = |error: settings::SettingsError| error.to_string();
        Ok(Extra {
            rewrites: rewrites(self.rewrite).map_err(in_file)?,
            persist: persist(self.rule).map_err(in_file)?,
            auto_subscribe: auto_subscribe(self.auto_subscribe).map_err(in_file)?,
            rates,
            flapping,
            slow_after: self.slow_after,
            sys_interval: Some(self.sys_interval).filter(|every| !every.is_zero()),
            redirect: self.redirect.clone().map(|server| Redirect {
                server,
                moved: self.redirect_moved,
            }),
            response_topic: self.response_topic.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys<'static> {
        Keys {
            max_qos: 2,
            retain: true,
            max_retained: 10,
            max_retained_size: None,
            max_keep_alive: Duration::ZERO,
            max_session_expiry: None,
            max_subscriptions: 100,
            max_in_flight: 10,
            redirect: None,
            redirect_moved: false,
            response_topic: None,
            sys_interval: Duration::ZERO,
            connection_rate: None,
            message_rate: None,
            byte_rate: None,
            flapping_connects: None,
            flapping_window: Duration::from_secs(60),
            flapping_ban: Duration::from_secs(60),
            slow_after: Duration::from_secs(1),
            rule: &[],
            rewrite: &[],
            auto_subscribe: &[],
        }
    }

    #[test]
    fn a_key_without_a_meaning_is_named() {
        let day = Duration::from_secs(86_400);
        for (wrong, named) in [
            (
                Keys {
                    max_qos: 3,
                    ..keys()
                },
                "--mqtt-max-qos",
            ),
            (
                Keys {
                    max_keep_alive: day,
                    ..keys()
                },
                "--mqtt-max-keep-alive",
            ),
            (
                Keys {
                    max_session_expiry: Some(day * 50_000),
                    ..keys()
                },
                "--mqtt-max-session-expiry",
            ),
            (
                Keys {
                    max_in_flight: 0,
                    ..keys()
                },
                "--mqtt-max-in-flight",
            ),
            (
                Keys {
                    message_rate: Some(0),
                    ..keys()
                },
                "--mqtt-message-rate",
            ),
        ] {
            let error = wrong.meaning().unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_is_not_given_is_no_limit() {
        let meaning = keys().meaning().unwrap();
        assert_eq!(meaning.limits.max_session_expiry, u32::MAX);
        assert_eq!(meaning.retained.bytes, usize::MAX);
        assert_eq!(meaning.extra.sys_interval, None);
        assert_eq!(meaning.extra.redirect, None);
    }
}
