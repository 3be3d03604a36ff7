//! The `mqtt-...` keys: core and edge have the same, and they mean the same.

use super::settings::{
    AutoSubscribeSettings, MqttRuleSettings, RewriteSettings, auto_subscribe, check_rates, persist,
    rewrites,
};
use super::{AddressLimits, Extra, Flapping, Rates, Redirect, RetainedLimits};
use crate::WEBSOCKET;
use mqtt_codec::QoS;
use mqtt_session::Limits;
use settings::{HostPort, Rate, Size, settings};
use std::time::Duration;
use transport::Offer;

settings! {
    /// Which of them there are, and their defaults.
    pub struct MqttSettings {
        /// Highest QoS that MQTT clients may publish with: 0, 1 or 2
        pub mqtt_max_qos: u8 = "2";
        /// Whether MQTT clients may set retained messages
        pub mqtt_retain: bool = "true";
        /// Largest payload of a retained message; none: that of any message
        pub mqtt_max_retained_size: Option<Size>;
        /// Longest keep-alive of MQTT 5 clients, at most 65535s; 0s: any, none included
        pub mqtt_max_keep_alive: Duration = "0s";
        /// Longest time that an MQTT session outlives its connection; none: as long as the client asks for
        pub mqtt_max_session_expiry: Option<Duration>;
        /// Subscriptions of one MQTT session
        pub mqtt_max_subscriptions: usize = "10000";
        /// QoS 1 and 2 messages to one MQTT client that it has not acknowledged
        pub mqtt_max_in_flight: u16 = "512";
        /// Where all MQTT clients are sent: host names or addresses with ports, separated by spaces (section 4.11 of MQTT 5)
        pub mqtt_redirect: Option<String>;
        /// Whether they are told to go there from now on (0x9D) and not for now (0x9C)
        pub mqtt_redirect_moved: bool = "false";
        /// Response Information for MQTT clients that ask for it; %c is the client id, %u the user
        pub mqtt_response_topic: Option<String>;
        /// Origins of the web pages that may connect over WebSocket, separated by spaces; none: all pages
        pub mqtt_ws_origins: Option<String>;
        /// How often `$SYS` topics are published to clients that subscribe to them; 0s: never
        pub mqtt_sys_interval: Duration = "10s";
        /// New MQTT connections a second; none: as many as come
        pub mqtt_connection_rate: Option<u32>;
        /// MQTT connections of one source address (of IPv6: one /64 of the internet); none: as many as come
        pub mqtt_address_connections: Option<u32>;
        /// New MQTT connections a second from one source address; none: as many as come
        pub mqtt_address_connection_rate: Option<u32>;
        /// Messages a second from one MQTT client; it is read later when it is faster
        pub mqtt_message_rate: Option<u32>;
        /// Bytes a second from one MQTT client: 64KiB/s, 2Mbit/s
        pub mqtt_byte_rate: Option<Rate>;
        /// An MQTT client whose connections end so often within the window is banned for a while; none: never
        pub mqtt_flapping_connects: Option<u32>;
        /// That window
        pub mqtt_flapping_window: Duration = "60s";
        /// That while
        pub mqtt_flapping_ban: Duration = "5m";
        /// From when on an MQTT client that takes nothing of what waits for it is on the list of slow subscribers
        pub mqtt_slow_after: Duration = "1s";
    }
    lists {
        /// Which MQTT topics are never stored; the first whose filter matches decides
        pub mqtt_rule: MqttRuleSettings;
        /// Topics and filters that are written anew; the first that fits decides
        pub mqtt_rewrite: RewriteSettings;
        /// Subscriptions that the server makes when a client connects
        pub mqtt_auto_subscribe: AutoSubscribeSettings;
    }
}

/// What the keys mean.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// Without what the host alone knows: `maximum_packet_size`.
    pub limits: Limits,
    pub retained: RetainedLimits,
    pub extra: Extra,
}

impl MqttSettings {
    /// With so many retained messages at most (`mqtt-max-retained`), and so many bytes of them (`mqtt-max-retained-total`), of which the core has room
    /// for more than an edge. An error says which key is wrong.
    pub fn meaning(&self, max_retained: usize, total_retained: u64) -> Result<Meaning, String> {
        let retained = self.retained(max_retained, total_retained)?;
        Ok(Meaning {
            limits: self.limits()?,
            retained,
            extra: Extra {
                retained,
                ..self.extra()?
            },
        })
    }

    /// What is offered to WebSockets.
    pub fn websocket(&self) -> Result<Offer, String> {
        let origins = self.mqtt_ws_origins.iter();
        let origins = origins.flat_map(|all| all.split_whitespace());
        Ok(Offer {
            origins: origins.map(origin).collect::<Result<_, _>>()?,
            ..WEBSOCKET
        })
    }

    fn limits(&self) -> Result<Limits, String> {
        let maximum_qos = QoS::from_u8(self.mqtt_max_qos).ok_or_else(|| {
            format!(
                "--mqtt-max-qos is {}: expected 0, 1 or 2",
                self.mqtt_max_qos
            )
        })?;
        let max_keep_alive = u16::try_from(self.mqtt_max_keep_alive.as_secs())
            .map_err(|_| "--mqtt-max-keep-alive: at most 65535s".to_owned())?;
        let expiry = self.mqtt_max_session_expiry.map(|time| time.as_secs());
        let max_session_expiry = expiry
            .map_or(Ok(u32::MAX), u32::try_from)
            .map_err(|_| format!("--mqtt-max-session-expiry: at most {}s", u32::MAX))?;
        if self.mqtt_max_in_flight == 0 || self.mqtt_max_subscriptions == 0 {
            let text = "--mqtt-max-in-flight or --mqtt-max-subscriptions is 0: no client would get anything";
            return Err(text.to_owned());
        }
        Ok(Limits {
            maximum_qos,
            retain_available: self.mqtt_retain,
            max_keep_alive,
            max_session_expiry,
            max_subscriptions: self.mqtt_max_subscriptions,
            max_in_flight: self.mqtt_max_in_flight,
            ..Limits::default()
        })
    }

    fn retained(&self, messages: usize, all_bytes: u64) -> Result<RetainedLimits, String> {
        let bytes = self.mqtt_max_retained_size.map(|size| size.bytes());
        let bytes = bytes.map_or(Ok(usize::MAX), usize::try_from);
        Ok(RetainedLimits {
            messages,
            bytes: bytes.map_err(|error| format!("--mqtt-max-retained-size: {error}"))?,
            all_bytes,
        })
    }

    /// An empty value is none, as for the other list (`mqtt-ws-origins`).
    fn redirect(&self) -> Result<Option<Redirect>, String> {
        let places = self.mqtt_redirect.iter();
        let places = places.flat_map(|all| all.split_whitespace());
        let places = places.map(reference).collect::<Result<Vec<_>, _>>()?;
        let server = places.join(" ");
        if server.len() > usize::from(u16::MAX) {
            return Err("--mqtt-redirect: at most 65535 bytes".to_owned());
        }
        Ok(Some(server)
            .filter(|server| !server.is_empty())
            .map(|server| Redirect {
                server,
                moved: self.mqtt_redirect_moved,
            }))
    }

    fn extra(&self) -> Result<Extra, String> {
        let rates = Rates {
            connections: self.mqtt_connection_rate,
            messages: self.mqtt_message_rate,
            bytes: self.mqtt_byte_rate.map(|rate| rate.bytes_per_second()),
        };
        let flapping = self.mqtt_flapping_connects.map(|connects| Flapping {
            connects,
            window: self.mqtt_flapping_window,
            ban: self.mqtt_flapping_ban,
        });
        let addresses = AddressLimits {
            connections: self.mqtt_address_connections,
            rate: self.mqtt_address_connection_rate,
        };
        check_rates(&rates, &addresses, flapping.as_ref())?;
        let in_file = |error: settings::SettingsError| error.to_string();
        Ok(Extra {
            rewrites: rewrites(&self.mqtt_rewrite).map_err(in_file)?,
            persist: persist(&self.mqtt_rule).map_err(in_file)?,
            auto_subscribe: auto_subscribe(&self.mqtt_auto_subscribe).map_err(in_file)?,
            rates,
            addresses,
            flapping,
            slow_after: self.mqtt_slow_after,
            sys_interval: Some(self.mqtt_sys_interval).filter(|every| !every.is_zero()),
            redirect: self.redirect()?,
            response_topic: self.mqtt_response_topic.clone(),
            ..Extra::default()
        })
    }
}

/// A place as section 4.11 of MQTT 5 writes it, always with its port: clients do not agree on what is meant without.
fn reference(text: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        format!(
            "--mqtt-redirect: {text:?}: {why}; right are names or addresses with ports, separated by spaces: other.example:1883 [2001:db8::7]:8883"
        )
    };
    let place: HostPort = text.parse().map_err(|why: String| wrong(&why))?;
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    // What has a colon was in brackets, and is an address.
    if !place.host.contains(':') && !place.host.chars().all(in_name) {
        return Err(wrong("that is no name of a host"));
    }
    if place.port == 0 {
        return Err(wrong("nobody listens on port 0"));
    }
    Ok(place.to_string())
}

/// As browsers write it (RFC 6454): what is written otherwise would let nobody in.
fn origin(text: &str) -> Result<String, String> {
    let host = text.split_once("://").map(|(_, host)| host);
    let is_origin =
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '@', '*', ',']));
    if is_origin || text == "null" {
        return Ok(text.to_owned());
    }
    Err(format!(
        "--mqtt-ws-origins: {text:?} is no origin; expected https://host, http://host:port or null, without a path"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> MqttSettings {
        MqttSettings {
            mqtt_max_qos: 2,
            mqtt_retain: true,
            mqtt_max_retained_size: None,
            mqtt_max_keep_alive: Duration::ZERO,
            mqtt_max_session_expiry: None,
            mqtt_max_subscriptions: 100,
            mqtt_max_in_flight: 10,
            mqtt_redirect: None,
            mqtt_redirect_moved: false,
            mqtt_response_topic: None,
            mqtt_ws_origins: None,
            mqtt_sys_interval: Duration::ZERO,
            mqtt_connection_rate: None,
            mqtt_address_connections: None,
            mqtt_address_connection_rate: None,
            mqtt_message_rate: None,
            mqtt_byte_rate: None,
            mqtt_flapping_connects: None,
            mqtt_flapping_window: Duration::from_secs(60),
            mqtt_flapping_ban: Duration::from_secs(60),
            mqtt_slow_after: Duration::from_secs(1),
            mqtt_rule: Vec::new(),
            mqtt_rewrite: Vec::new(),
            mqtt_auto_subscribe: Vec::new(),
        }
    }

    #[test]
    fn a_key_without_a_meaning_is_named() {
        let day = Duration::from_secs(86_400);
        for (wrong, named) in [
            (
                MqttSettings {
                    mqtt_max_qos: 3,
                    ..keys()
                },
                "--mqtt-max-qos",
            ),
            (
                MqttSettings {
                    mqtt_max_keep_alive: day,
                    ..keys()
                },
                "--mqtt-max-keep-alive",
            ),
            (
                MqttSettings {
                    mqtt_max_session_expiry: Some(day * 50_000),
                    ..keys()
                },
                "--mqtt-max-session-expiry",
            ),
            (
                MqttSettings {
                    mqtt_max_in_flight: 0,
                    ..keys()
                },
                "--mqtt-max-in-flight",
            ),
            (
                MqttSettings {
                    mqtt_message_rate: Some(0),
                    ..keys()
                },
                "--mqtt-message-rate",
            ),
            (
                MqttSettings {
                    mqtt_flapping_connects: Some(3),
                    mqtt_flapping_window: Duration::ZERO,
                    ..keys()
                },
                "--mqtt-flapping-window",
            ),
            (
                MqttSettings {
                    mqtt_flapping_connects: Some(3),
                    mqtt_flapping_ban: Duration::ZERO,
                    ..keys()
                },
                "--mqtt-flapping-ban",
            ),
        ] {
            let error = wrong.meaning(10, 100).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn origins_are_a_list_and_what_no_browser_sends_is_refused() {
        let of = |text: &str| {
            let keys = MqttSettings {
                mqtt_ws_origins: Some(text.to_owned()),
                ..keys()
            };
            keys.websocket().map(|offer| offer.origins)
        };
        let two = of(" https://a.example  http://localhost:3000 ").unwrap();
        assert_eq!(two, ["https://a.example", "http://localhost:3000"]);
        assert_eq!(of("null").unwrap(), ["null"]);
        for wrong in [
            "a.example",
            "https://a.example/",
            "https://*.a.example",
            "*",
            "https://",
            "https://a.example, https://b.example",
        ] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains("--mqtt-ws-origins"), "{error}");
        }
    }

    #[test]
    fn clients_are_sent_to_names_and_addresses_with_ports() {
        let to = |text: &str| {
            let keys = MqttSettings {
                mqtt_redirect: Some(text.to_owned()),
                ..keys()
            };
            let meaning = keys.meaning(10, 100);
            meaning.map(|all| all.extra.redirect.map(|to| to.server))
        };
        for right in [
            "other.example:1883",
            "10.10.151.22:8883",
            "a_b-c.example:1 [fe80::9610:3eff:fe1c]:65535",
        ] {
            assert_eq!(to(right), Ok(Some(right.to_owned())));
        }
        let two = "a.example:1883 b.example:1884".to_owned();
        assert_eq!(to("  a.example:1883   b.example:1884\n"), Ok(Some(two)));
        assert_eq!((to(""), to("  ")), (Ok(None), Ok(None)));
        for wrong in [
            "foo",
            "host:99999",
            "host:0",
            "host:",
            ":1883",
            "mqtt://x",
            "mqtt://x:1883",
            "x:1883/path",
            "ann@x:1883",
            "a.example:1883,b.example:1883",
            "a.example:1883, b.example:1883",
            "fe80::1:1883",
            "[fe80::x]:1883",
            "[a.example]:1883",
            "right.example:1883 foo",
        ] {
            let error = to(wrong).unwrap_err();
            assert!(
                error.contains("--mqtt-redirect") && error.contains("other.example:1883"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_given_is_no_limit() {
        let meaning = keys().meaning(10, 100).unwrap();
        assert_eq!(meaning.limits.max_session_expiry, u32::MAX);
        assert_eq!(meaning.retained.bytes, usize::MAX);
        assert_eq!(
            (meaning.retained.messages, meaning.retained.all_bytes),
            (10, 100)
        );
        assert_eq!(meaning.extra.retained, meaning.retained);
        assert_eq!(meaning.extra.sys_interval, None);
        assert_eq!(meaning.extra.redirect, None);
        assert!(keys().websocket().unwrap().origins.is_empty());
    }
}
