//! `[[quota]]` of a configuration file, the same on the edge and in the core.

use access_rules::Who;
use settings::{Rate, Section, SettingsError, choices, settings};

use crate::{Quota, limits};

choices! {
    /// Who has a quota for himself.
    pub enum Each {
        User = "user",
        Client = "client",
    }
}

settings! {
    pub struct QuotaSettings {
        pub each: Each = "user";
        pub user: Option<String>;
        pub group: Option<String>;
        pub client_id: Option<String>;
        pub connections: Option<usize>;
        pub message_rate: Option<u64>;
        pub byte_rate: Option<Rate>;
    }
}

/// In the order of the file; an error names the section.
pub fn quotas(sections: &[Section<QuotaSettings>]) -> Result<Vec<Quota>, SettingsError> {
    if let Some(section) = sections.get(limits::MAX_QUOTAS) {
        let most = limits::MAX_QUOTAS;
        return Err(section.wrong(format!("there can be {most} quotas")));
    }
    sections.iter().map(quota).collect()
}

fn quota(section: &Section<QuotaSettings>) -> Result<Quota, SettingsError> {
    let set = &section.settings;
    if set.connections.is_none() && set.message_rate.is_none() && set.byte_rate.is_none() {
        return Err(section.wrong("expected one of `connections`, `message-rate` and `byte-rate`"));
    }
    for (key, is_nothing) in [
        ("connections", set.connections == Some(0)),
        ("message-rate", set.message_rate == Some(0)),
    ] {
        if is_nothing {
            return Err(
                section.wrong_key(key, "with 0 nothing would come: leave it out for no limit")
            );
        }
    }
    Ok(Quota {
        who: Who {
            user: set.user.clone(),
            group: set.group.clone(),
            client: set.client_id.clone(),
            certificate: None,
        },
        each: set.each,
        connections: set.connections,
        messages: set.message_rate,
        bytes: set.byte_rate.map(Rate::bytes_per_second),
    })
}
