//! Users and access rules of the edge: `[[user]]`, `[[acl]]`, `allow-anonymous`.

use std::collections::HashMap;
use std::sync::Arc;

use access_rules::{
    Grant, Resource, ResourcePattern, Rule, Rules, Subject, TopicPattern, Verb, Verbs, Who,
    client_matches,
};
use credentials::{CheckError, PasswordHash, Passwords, Refusals};
use futures_util::future::BoxFuture;
use mqtt_broker::access::{Access, Admitted, Exceeded, Login, Principal, Share};
use mqtt_broker::backend::ConnectError;
use mqtt_codec::{TopicFilter, TopicName};
use quota::Quotas;
use settings::{Section, SettingsError, choices, settings};

use crate::limits;
use crate::password::HashSetting;

settings! {
    pub struct UserSettings {
        pub name: String;
        pub password_hash: HashSetting;
        pub client_id: Option<String>;
    }
}

choices! {
    pub enum What {
        Publish = "publish",
        Subscribe = "subscribe",
        All = "all",
    }
}

settings! {
    pub struct AclSettings {
        pub allow: Option<What>;
        pub deny: Option<What>;
        pub user: Option<String>;
        pub client_id: Option<String>;
        pub topic: String;
    }
}

struct User {
    hash: PasswordHash,
    /// A client id, or the beginning of one with `*` behind it.
    client_id: Option<String>,
}

/// Who may do what, by the configuration.
pub struct Guard {
    users: HashMap<String, User>,
    /// `None`: everybody who is in may do everything.
    acl: Option<Rules>,
    anonymous: bool,
    passwords: Passwords,
    refusals: Refusals,
    quotas: Arc<Quotas>,
}

fn acl(
    sections: &[Section<AclSettings>],
    users: &HashMap<String, User>,
) -> Result<Rules, SettingsError> {
    let mut rules = Vec::new();
    for section in sections {
        let set = &section.settings;
        let (allow, what) = match (set.allow, set.deny) {
            (Some(what), None) => (true, what),
            (None, Some(what)) => (false, what),
            _ => return Err(section.wrong("expected one of `allow` and `deny`")),
        };
        if let Some(user) = &set.user
            && !users.contains_key(user)
        {
            // A user of a certificate is not in the list; one that is nearly in it is a slip.
            tracing::warn!(%user, "an [[acl]] names a user that no [[user]] has: it is about certificates only");
        }
        let topics = TopicPattern::new(&set.topic)
            .map_err(|error| section.wrong_key("topic", error.to_string()))?;
        rules.push(Rule {
            allow,
            verbs: match what {
                What::Publish => Verbs::of(&[Verb::Publish]),
                What::Subscribe => Verbs::of(&[Verb::Subscribe]),
                What::All => Verbs::ALL,
            },
            who: Who {
                user: set.user.clone(),
                client: set.client_id.clone(),
                ..Who::default()
            },
            resource: ResourcePattern::Topic(topics),
        });
    }
    Ok(Rules(rules))
}

impl Guard {
    /// `anonymous`: whether clients without a user may connect.
    pub fn new(
        users: &[Section<UserSettings>],
        rules: &[Section<AclSettings>],
        anonymous: bool,
    ) -> anyhow::Result<Guard> {
        let mut known_users = HashMap::new();
        for section in users {
            let set = &section.settings;
            if set.name.is_empty() {
                return Err(section.wrong_key("name", "a user needs a name").into());
            }
            let user = User {
                hash: set.password_hash.0.clone(),
                client_id: set.client_id.clone(),
            };
            if known_users.insert(set.name.clone(), user).is_some() {
                return Err(section
                    .wrong_key("name", "another user has this name")
                    .into());
            }
        }
        let acl = match rules {
            [] => None,
            rules => Some(acl(rules, &known_users)?),
        };
        // Of the same cost as the others' most likely are.
        let nobody = known_users.values().next();
        let nobody = nobody.map_or_else(PasswordHash::of_nobody, |user| user.hash.clone());
        Ok(Guard {
            users: known_users,
            acl,
            anonymous,
            // One at a time: a gateway has few cores, and devices to serve meanwhile.
            passwords: Passwords::new(1, limits::PASSWORDS_WAITING, nobody),
            refusals: Refusals::default(),
            quotas: Arc::default(),
        })
    }

    pub fn with_quotas(self, quotas: Arc<Quotas>) -> Guard {
        Guard { quotas, ..self }
    }

    async fn check(&self, login: Login<'_>, name: &str) -> Result<(), ConnectError> {
        let password = login.password.unwrap_or_default();
        let from = login.peer.address.map(|address| address.ip());
        let hash = self.users.get(name).map(|user| &user.hash);
        match self.passwords.check(name, password, hash, from).await {
            Ok(()) => Ok(()),
            Err(CheckError::TooMany) => Err(ConnectError::RateExceeded),
            Err(CheckError::Busy) => Err(ConnectError::ServerUnavailable),
            Err(CheckError::Wrong) => {
                if let Some(left_out) = self.refusals.tell(name, from) {
                    tracing::warn!(user = %name.escape_debug(), address = ?login.peer.address, left_out, "a wrong user name or password");
                }
                Err(ConnectError::BadUserNameOrPassword)
            }
        }
    }

    async fn login(&self, login: Login<'_>) -> Result<Option<Arc<str>>, ConnectError> {
        let certificate = login.peer.common_name();
        let name = match (login.user_name, certificate) {
            // The certificate was verified; a user name beside it may only say the same.
            (None, Some(name)) => return self.allowed_client(name, login.client),
            (Some(said), Some(name)) if said == &**name => {
                return self.allowed_client(name, login.client);
            }
            (Some(said), _) => said,
            (None, None) if self.anonymous => return Ok(None),
            (None, None) => return Err(ConnectError::NotAuthorized),
        };
        if self.users.is_empty() && self.anonymous {
            // Nobody to compare with: let in, and not as that user.
            return Ok(None);
        }
        self.check(login, name).await?;
        self.allowed_client(&Arc::from(name), login.client)
    }

    fn allowed_client(
        &self,
        name: &Arc<str>,
        client: &mqtt_broker::backend::ClientId,
    ) -> Result<Option<Arc<str>>, ConnectError> {
        let user = self.users.get(&**name);
        let pattern = user.and_then(|user| user.client_id.as_deref());
        if pattern.is_none_or(|pattern| client_matches(pattern, client.as_str())) {
            Ok(Some(name.clone()))
        } else {
            if let Some(left_out) = self.refusals.tell(name, None) {
                tracing::warn!(user = %name.escape_debug(), %client, left_out, "a user may not connect with this client id");
            }
            Err(ConnectError::NotAuthorized)
        }
    }
}

fn subject(who: &Principal) -> Subject<'_> {
    Subject {
        user: who.user.as_deref(),
        client: who.client.as_str(),
        ..Subject::default()
    }
}

impl Access for Guard {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Admitted, ConnectError>> {
        Box::pin(async move { self.login(login).await.map(Admitted::user) })
    }

    fn enter(&self, who: &Principal) -> Result<Share, Exceeded> {
        self.quotas.enter(&subject(who))
    }

    fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool {
        let topic = Resource::Topic(topic.as_str());
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may(&subject(who), Verb::Publish, topic))
    }

    fn may_subscribe(&self, who: &Principal, filter: &TopicFilter) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.grant(&subject(who), filter.as_str()) == Grant::Whole)
    }

    fn may_receive(&self, who: &Principal, topic: &TopicName) -> bool {
        let topic = Resource::Topic(topic.as_str());
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may(&subject(who), Verb::Subscribe, topic))
    }

    /// The rules do not change while the edge runs, so what is granted needs no second look.
    fn grants_whole(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mqtt_broker::backend::ClientId;

    #[test]
    fn what_is_in_flight_for_another_user_may_not_be_received() {
        let rule = |user: &str, topic: &str| Rule {
            allow: true,
            verbs: Verbs::ALL,
            who: Who {
                user: Some(user.into()),
                ..Who::default()
            },
            resource: ResourcePattern::Topic(TopicPattern::new(topic).unwrap()),
        };
        let acl = Rules(vec![rule("ann", "site/#"), rule("bob", "site/open/#")]);
        let guard = Guard {
            acl: Some(acl),
            ..Guard::new(&[], &[], false).unwrap()
        };
        let client = ClientId::new("panel");
        let who = |name: &str| Principal::new(client.clone(), Admitted::user(Some(name.into())));
        for (name, topic, expected) in [
            ("ann", "site/secret/x", true),
            ("bob", "site/secret/x", false),
            ("bob", "site/open/x", true),
        ] {
            let topic = TopicName::new(topic).unwrap();
            assert_eq!(
                guard.may_receive(&who(name), &topic),
                expected,
                "{name} {topic}"
            );
        }
        let open = Guard::new(&[], &[], true).unwrap();
        assert!(open.may_receive(&who("bob"), &TopicName::new("site/secret/x").unwrap()));
    }
}
