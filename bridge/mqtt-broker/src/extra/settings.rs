//! The sections of a configuration file, the same on the edge and in the core.

use super::{
    AddressLimits, AutoSubscribe, Flapping, Persist, PersistRules, Rates, Rewrite, Rewrites, Verb,
};
use mqtt_codec::{QoS, RetainHandling, SubscriptionOptions, TopicFilter};
use settings::{Section, SettingsError, choices, settings};

choices! {
    pub enum RewriteVerb {
        Publish = "publish",
        Subscribe = "subscribe",
        All = "all",
    }
}

settings! {
    pub struct RewriteSettings {
        pub action: RewriteVerb = "all";
        pub filter: String;
        pub topic: String;
    }
}

settings! {
    pub struct AutoSubscribeSettings {
        pub filter: String;
        pub qos: u8 = "1";
        pub no_local: bool = "false";
        pub retain_as_published: bool = "false";
        pub retain_handling: u8 = "0";
    }
}

choices! {
    pub enum PersistWhen {
        Always = "always",
        Never = "never",
    }
}

settings! {
    pub struct MqttRuleSettings {
        pub filter: String;
        pub persist: PersistWhen = "always";
    }
}

/// Of the plain keys: a rate of nothing would let nobody in. The error names the key.
pub fn check_rates(
    rates: &Rates,
    addresses: &AddressLimits,
    flapping: Option<&Flapping>,
) -> Result<(), String> {
    for (key, nothing) in [
        ("mqtt-connection-rate", rates.connections == Some(0)),
        ("mqtt-address-connections", addresses.connections == Some(0)),
        ("mqtt-address-connection-rate", addresses.rate == Some(0)),
        ("mqtt-message-rate", rates.messages == Some(0)),
        ("mqtt-byte-rate", rates.bytes == Some(0)),
        (
            "mqtt-flapping-connects",
            flapping.is_some_and(|flapping| flapping.connects == 0),
        ),
    ] {
        if nothing {
            return Err(format!("--{key} is 0: leave it out for no limit"));
        }
    }
    let Some(flapping) = flapping else {
        return Ok(());
    };
    for (key, time) in [
        ("mqtt-flapping-window", flapping.window),
        ("mqtt-flapping-ban", flapping.ban),
    ] {
        if time.is_zero() {
            return Err(format!(
                "--{key} is 0: nobody would be banned; leave mqtt-flapping-connects out for that"
            ));
        }
    }
    Ok(())
}

/// The rules in their order.
pub fn rewrites(sections: &[Section<RewriteSettings>]) -> Result<Rewrites, SettingsError> {
    let rules = sections.iter().map(|section| {
        let set = &section.settings;
        let verb = match set.action {
            RewriteVerb::Publish => Verb::Publish,
            RewriteVerb::Subscribe => Verb::Subscribe,
            RewriteVerb::All => Verb::All,
        };
        Rewrite::new(verb, &set.filter, &set.topic)
            .map_err(|error| section.wrong_key("topic", error.to_string()))
    });
    rules.collect::<Result<_, _>>().map(Rewrites)
}

/// The rules in their order.
pub fn persist(sections: &[Section<MqttRuleSettings>]) -> Result<PersistRules, SettingsError> {
    let rules = sections.iter().map(|section| {
        let set = &section.settings;
        let filter = TopicFilter::new(&set.filter)
            .map_err(|error| section.wrong_key("filter", error.to_string()))?;
        if filter.is_shared() {
            let expected = "expected a filter of topics, not of a group".to_owned();
            return Err(section.wrong_key("filter", expected));
        }
        let persist = match set.persist {
            PersistWhen::Always => Persist::Always,
            PersistWhen::Never => Persist::Never,
        };
        Ok((filter, persist))
    });
    rules.collect::<Result<_, _>>().map(PersistRules)
}

pub fn auto_subscribe(
    sections: &[Section<AutoSubscribeSettings>],
) -> Result<Vec<AutoSubscribe>, SettingsError> {
    let all = sections.iter().map(|section| {
        let set = &section.settings;
        TopicFilter::new(&set.filter)
            .map_err(|error| section.wrong_key("filter", error.to_string()))?;
        let qos = QoS::from_u8(set.qos)
            .ok_or_else(|| section.wrong_key("qos", "expected 0, 1 or 2".to_owned()))?;
        let retain_handling = match set.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => {
                let expected = "expected 0, 1 or 2".to_owned();
                return Err(section.wrong_key("retain-handling", expected));
            }
        };
        Ok(AutoSubscribe {
            filter: set.filter.clone(),
            options: SubscriptionOptions {
                qos,
                no_local: set.no_local,
                retain_as_published: set.retain_as_published,
                retain_handling,
            },
        })
    });
    all.collect()
}
