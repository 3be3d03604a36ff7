//! Users and access rules of the edge: `[[user]]`, `[[acl]]`, `allow-anonymous`.

use std::collections::HashMap;
use std::sync::Arc;

use access_rules::{
    Grant, Resource, ResourcePattern, Rule, Rules, Subject, TopicPattern, Verb, Verbs, Who,
    client_matches,
};
use credentials::{
    CheckError, Mechanism, PasswordHash, Passwords, Refusals, ScramError, ScramLogin,
};
use futures_util::future::BoxFuture;
use mqtt_broker::access::{
    Access, Admitted, Exceeded, Exchange, Login, Peer, Principal, Share, client_first,
};
use mqtt_broker::backend::{ClientId, ConnectError};
use mqtt_codec::{TopicFilter, TopicName};
use quota::Quotas;
use settings::{Section, SettingsError, choices, settings};

use crate::limits;
use crate::password::SecretsSetting;

settings! {
    pub struct UserSettings {
        pub name: String;
        pub password_hash: SecretsSetting;
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
    secrets: SecretsSetting,
    /// A client id, or the beginning of one with `*` behind it.
    client_id: Option<String>,
}

/// Who is let in.
struct Users {
    by_name: HashMap<String, User>,
    passwords: Passwords,
    refusals: Refusals,
}

/// Who may do what, by the configuration.
pub struct Guard {
    users: Arc<Users>,
    /// `None`: everybody who is in may do everything.
    acl: Option<Rules>,
    anonymous: bool,
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

impl Users {
    fn new(users: &[Section<UserSettings>], secret: [u8; 32]) -> Result<Users, SettingsError> {
        let mut by_name = HashMap::new();
        for section in users {
            let set = &section.settings;
            if set.name.is_empty() {
                return Err(section.wrong_key("name", "a user needs a name"));
            }
            let user = User {
                secrets: set.password_hash.clone(),
                client_id: set.client_id.clone(),
            };
            if by_name.insert(set.name.clone(), user).is_some() {
                return Err(section.wrong_key("name", "another user has this name"));
            }
        }
        // Of the same cost as the others' most likely are.
        let nobody = by_name.values().next();
        let nobody = nobody.map_or_else(PasswordHash::of_nobody, |user| user.secrets.hash.clone());
        Ok(Users {
            by_name,
            // One at a time: a gateway has few cores, and devices to serve meanwhile.
            passwords: Passwords::new(1, limits::PASSWORDS_WAITING, nobody).with_secret(secret),
            refusals: Refusals::default(),
        })
    }

    async fn check(&self, login: Login<'_>, name: &str) -> Result<(), ConnectError> {
        let password = login.password.unwrap_or_default();
        let hash = self.by_name.get(name).map(|user| &user.secrets.hash);
        let checking = self
            .passwords
            .check(name, password, hash, login.peer.source());
        checking.await.map_err(|error| match error {
            CheckError::TooMany => ConnectError::RateExceeded,
            CheckError::Busy => ConnectError::ServerUnavailable,
            CheckError::Wrong => self.wrong(name, login.peer),
        })
    }

    fn wrong(&self, name: &str, peer: &Peer) -> ConnectError {
        if let Some(left_out) = self.refusals.tell(name, peer.source()) {
            tracing::warn!(user = %name.escape_debug(), address = ?peer.address, left_out, "a wrong user name or password");
        }
        ConnectError::BadUserNameOrPassword
    }

    fn begin_scram(
        &self,
        mechanism: Mechanism,
        first: &[u8],
        peer: &Peer,
    ) -> Result<(ScramLogin, Vec<u8>), ConnectError> {
        let keys_of = |name: &str| {
            let user = self.by_name.get(name)?;
            user.secrets.keys(mechanism).cloned()
        };
        let begun = self
            .passwords
            .begin_scram(mechanism, first, peer.source(), keys_of);
        begun.map_err(|error| self.refusal(error, "", peer))
    }

    /// Who it is, and the last message to the client.
    fn finish_scram(
        &self,
        login: ScramLogin,
        last: &[u8],
        client: &ClientId,
        peer: &Peer,
    ) -> Result<(Admitted, Vec<u8>), ConnectError> {
        let name: Arc<str> = login.user().into();
        let finished = self.passwords.finish_scram(login, last);
        let data = finished.map_err(|error| self.refusal(error, &name, peer))?;
        let user = self.allowed_client(&name, client)?;
        Ok((Admitted::user(user), data))
    }

    fn refusal(&self, error: ScramError, name: &str, peer: &Peer) -> ConnectError {
        match error {
            ScramError::Wrong | ScramError::OtherUser => self.wrong(name, peer),
            ScramError::TooMany => ConnectError::RateExceeded,
            ScramError::Malformed | ScramError::ChannelBinding | ScramError::Extension => {
                ConnectError::MalformedData
            }
        }
    }

    fn allowed_client(
        &self,
        name: &Arc<str>,
        client: &ClientId,
    ) -> Result<Option<Arc<str>>, ConnectError> {
        let user = self.by_name.get(&**name);
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

impl Guard {
    /// `anonymous`: whether clients without a user may connect. `secret`: always the same, for the salts that users without keys of SCRAM are shown, and
    /// those that there are not.
    pub fn new(
        users: &[Section<UserSettings>],
        rules: &[Section<AclSettings>],
        anonymous: bool,
        secret: [u8; 32],
    ) -> anyhow::Result<Guard> {
        let users = Users::new(users, secret)?;
        let acl = match rules {
            [] => None,
            rules => Some(acl(rules, &users.by_name)?),
        };
        Ok(Guard {
            users: Arc::new(users),
            acl,
            anonymous,
            quotas: Arc::default(),
        })
    }

    pub fn with_quotas(self, quotas: Arc<Quotas>) -> Guard {
        Guard { quotas, ..self }
    }

    async fn login(&self, login: Login<'_>) -> Result<Option<Arc<str>>, ConnectError> {
        let certificate = login.peer.common_name();
        let name = match (login.user_name, certificate) {
            // The certificate was verified; a user name beside it may only say the same.
            (None, Some(name)) => return self.users.allowed_client(name, login.client),
            (Some(said), Some(name)) if said == &**name => {
                return self.users.allowed_client(name, login.client);
            }
            (Some(said), _) => said,
            (None, None) if self.anonymous => return Ok(None),
            (None, None) => return Err(ConnectError::NotAuthorized),
        };
        if self.users.by_name.is_empty() && self.anonymous {
            // Nobody to compare with: let in, and not as that user.
            return Ok(None);
        }
        self.users.check(login, name).await?;
        self.users.allowed_client(&Arc::from(name), login.client)
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

    fn exchange(
        &self,
        method: &str,
        client: &ClientId,
        peer: &Peer,
    ) -> Result<Box<dyn Exchange>, ConnectError> {
        let mechanism = Mechanism::from_name(method);
        let mechanism = mechanism.ok_or(ConnectError::BadAuthenticationMethod)?;
        let (users, of) = (self.users.clone(), peer.clone());
        let begin = move |first: &[u8]| {
            let (login, question) = users.begin_scram(mechanism, first, &of)?;
            Ok((login, question.into()))
        };
        let (users, of, client) = (self.users.clone(), peer.clone(), client.clone());
        let finish = move |login: ScramLogin, last: &[u8]| {
            let (admitted, data) = users.finish_scram(login, last, &client, &of)?;
            Ok((admitted, data.into()))
        };
        Ok(client_first(begin, finish))
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
mod tests;
