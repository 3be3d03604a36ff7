//! Rules as they are stored.

use access_rules::{Rule, Rules, Verb, Who};
use bytes::{BufMut, Bytes, BytesMut};
use kernel::Kernel;
use serde::{Deserialize, Serialize};

use crate::identity::UnreadableError;

/// The kernel table. One row, [`KEY`]: their order is theirs together. Value: [`VERSION`], then a [`Stored`] as JSON.
pub const TABLE: &str = "access";
pub const KEY: &[u8] = b"rules";

const VERSION: u8 = 1;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    next_id: u64,
    rules: Vec<StoredRule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRule {
    id: u64,
    allow: bool,
    verbs: String,
    resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

/// A rule and the number it is known by, which is never given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: u64,
    pub rule: Rule,
}

#[derive(Default)]
pub struct RuleList {
    pub next_id: u64,
    ids: Vec<u64>,
    rules: Rules,
    name_groups: bool,
    bind_client_ids: bool,
    /// Is any of them about more than client ids?
    bind_others: bool,
}

impl RuleList {
    pub fn new(next_id: u64, listed: Vec<Listed>) -> RuleList {
        let (ids, rules): (Vec<_>, Vec<_>) =
            listed.into_iter().map(|one| (one.id, one.rule)).unzip();
        RuleList {
            next_id,
            ids,
            name_groups: rules.iter().any(|rule| rule.who.group.is_some()),
            bind_client_ids: rules.iter().any(|rule| rule.verbs.has(Verb::Connect)),
            bind_others: rules.iter().any(|rule| !rule.verbs.is_only(Verb::Connect)),
            rules: Rules(rules),
        }
    }

    pub fn read(kernel: &Kernel) -> Result<RuleList, UnreadableError> {
        match kernel.table_get(TABLE, KEY) {
            None => Ok(RuleList::default()),
            Some(value) => decode(&value).ok_or_else(|| UnreadableError {
                what: "the list of access rules".to_owned(),
            }),
        }
    }

    /// Do these rules say who may do this? Client ids are free until a rule with `connect` binds one, everything else until there is a
    /// rule about something else.
    pub fn are_about(&self, verb: Verb) -> bool {
        match verb {
            Verb::Connect => self.bind_client_ids,
            _ => self.bind_others,
        }
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Is any of them about a group?
    pub fn name_groups(&self) -> bool {
        self.name_groups
    }

    pub fn listed(&self, at: usize) -> Option<Listed> {
        Some(Listed {
            id: *self.ids.get(at)?,
            rule: self.rules.0.get(at)?.clone(),
        })
    }

    pub fn all(&self) -> Vec<Listed> {
        (0..self.ids.len())
            .filter_map(|at| self.listed(at))
            .collect()
    }

    pub fn encode(&self) -> Result<Bytes, serde_json::Error> {
        let rules = self
            .all()
            .into_iter()
            .map(|Listed { id, rule }| StoredRule {
                id,
                allow: rule.allow,
                verbs: rule.verbs.to_string(),
                resource: rule.resource.to_string(),
                user: rule.who.user,
                group: rule.who.group,
                client: rule.who.client,
                certificate: rule.who.certificate,
            });
        let json = serde_json::to_vec(&Stored {
            next_id: self.next_id,
            rules: rules.collect(),
        })?;
        let mut value = BytesMut::with_capacity(1 + json.len());
        value.put_u8(VERSION);
        value.put_slice(&json);
        Ok(value.freeze())
    }
}

fn decode(value: &[u8]) -> Option<RuleList> {
    let (version, json) = value.split_first()?;
    if *version != VERSION {
        return None;
    }
    let stored: Stored = serde_json::from_slice(json).ok()?;
    let listed = stored.rules.into_iter().map(|rule| {
        Some(Listed {
            id: rule.id,
            rule: Rule {
                allow: rule.allow,
                verbs: rule.verbs.parse().ok()?,
                who: Who {
                    user: rule.user,
                    group: rule.group,
                    client: rule.client,
                    certificate: rule.certificate,
                },
                resource: rule.resource.parse().ok()?,
            },
        })
    });
    let listed: Option<Vec<Listed>> = listed.collect();
    Some(RuleList::new(stored.next_id, listed?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_is_read() {
        let listed = |id, allow, group: Option<&str>, resource: &str| Listed {
            id,
            rule: Rule {
                allow,
                verbs: "publish,alter".parse().unwrap(),
                who: Who {
                    group: group.map(Into::into),
                    certificate: Some("gw".into()),
                    ..Who::default()
                },
                resource: resource.parse().unwrap(),
            },
        };
        let all = vec![
            listed(7, true, None, "topic:a/%u/#"),
            listed(3, false, Some("team"), "*"),
        ];
        let list = RuleList::new(8, all.clone());
        let value = list.encode().unwrap();
        let read = decode(&value).unwrap();
        assert_eq!(
            (read.next_id, read.all(), read.name_groups()),
            (8, all, true)
        );
        let mut later = value.to_vec();
        later[0] = 2;
        assert!(decode(&later).is_none() && decode(&value[..9]).is_none() && decode(b"").is_none());
    }
}
