//! Users and access rules of the edge: `[[user]]`, `[[acl]]`, `allow-anonymous`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use mqtt_broker::access::{Access, Login, Principal};
use mqtt_broker::acl::{Acl, Rule, TopicPattern, Verb, client_matches};
use mqtt_broker::backend::ConnectError;
use mqtt_codec::{TopicFilter, TopicName};
use parking_lot::Mutex;
use settings::{Section, SettingsError, choices, settings};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use crate::limits;
use crate::password::PasswordHash;

settings! {
    pub struct UserSettings {
        pub name: String;
        pub password_hash: PasswordHash;
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

/// Failed attempts of one user from one address.
struct Failures {
    count: u32,
    last: Instant,
}

/// Who may do what, by the configuration.
pub struct Guard {
    users: HashMap<String, User>,
    /// `None`: everybody who is in may do everything.
    acl: Option<Acl>,
    anonymous: bool,
    /// Checked in place of an unknown user's password, so that the time tells nothing.
    nobody: PasswordHash,
    /// One at a time: a hash costs memory and a core for tens of milliseconds.
    checking: Arc<Semaphore>,
    waiting: Semaphore,
    /// Passwords that were right, as digests under a key that lives as long as the process: devices reconnect often.
    known: Mutex<HashMap<String, [u8; 32]>>,
    key: [u8; 32],
    failures: Mutex<HashMap<(Option<IpAddr>, String), Failures>>,
}

fn acl(
    sections: &[Section<AclSettings>],
    users: &HashMap<String, User>,
) -> Result<Acl, SettingsError> {
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
            verb: match what {
                What::Publish => Verb::Publish,
                What::Subscribe => Verb::Subscribe,
                What::All => Verb::All,
            },
            user: set.user.clone(),
            client: set.client_id.clone(),
            topics,
        });
    }
    Ok(Acl(rules))
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
                hash: set.password_hash.clone(),
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
            nobody,
            checking: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(limits::PASSWORDS_WAITING),
            known: Mutex::default(),
            key: rand::random(),
            failures: Mutex::default(),
        })
    }

    fn digest(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update((user.len() as u64).to_be_bytes());
        digest.update(user);
        digest.update(password);
        digest.finalize().into()
    }

    fn may_try(&self, who: &(Option<IpAddr>, String)) -> bool {
        let mut failures = self.failures.lock();
        match failures.get(who) {
            Some(failed) if failed.last.elapsed() >= limits::PASSWORD_PAUSE => {
                failures.remove(who);
                true
            }
            Some(failed) => failed.count < limits::PASSWORD_TRIES,
            None => true,
        }
    }

    fn failed(&self, who: (Option<IpAddr>, String)) {
        let mut failures = self.failures.lock();
        if failures.len() >= limits::PASSWORD_FAILURES && !failures.contains_key(&who) {
            failures.retain(|_, failed| failed.last.elapsed() < limits::PASSWORD_PAUSE);
            if failures.len() >= limits::PASSWORD_FAILURES {
                let oldest = failures.iter().min_by_key(|(_, failed)| failed.last);
                if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
                    failures.remove(&oldest);
                }
            }
        }
        let now = Instant::now();
        let entry = failures.entry(who).or_insert(Failures {
            count: 0,
            last: now,
        });
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
    }

    async fn check(&self, login: Login<'_>, name: &str) -> Result<(), ConnectError> {
        let password = login.password.unwrap_or_default();
        let digest = self.digest(name, password);
        let was_right = self.known.lock().get(name).copied();
        if was_right.is_some_and(|known| known.ct_eq(&digest).into()) {
            return Ok(());
        }
        let who = (
            login.peer.address.map(|address| address.ip()),
            name.chars().take(limits::MAX_NAME).collect(),
        );
        if !self.may_try(&who) {
            return Err(ConnectError::RateExceeded);
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(ConnectError::ServerUnavailable);
        };
        let unavailable = |_| ConnectError::ServerUnavailable;
        let permit = self.checking.clone().acquire_owned().await;
        let permit = permit.map_err(unavailable)?;
        let user = self.users.get(name);
        let hash = user.map_or(&self.nobody, |user| &user.hash).clone();
        let password = password.to_vec();
        let right = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            hash.verify(&password)
        });
        let right = right.await.map_err(|_| ConnectError::ServerUnavailable)?;
        if right && user.is_some() {
            self.failures.lock().remove(&who);
            self.known.lock().insert(name.to_owned(), digest);
            return Ok(());
        }
        tracing::warn!(user = %name.escape_debug(), address = ?login.peer.address, "a wrong user name or password");
        self.failed(who);
        Err(ConnectError::BadUserNameOrPassword)
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
            tracing::warn!(user = %name.escape_debug(), %client, "a user may not connect with this client id");
            Err(ConnectError::NotAuthorized)
        }
    }
}

impl Access for Guard {
    fn authenticate<'a>(
        &'a self,
        login: Login<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<str>>, ConnectError>> {
        Box::pin(self.login(login))
    }

    fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_publish(who, topic))
    }

    fn may_subscribe(&self, who: &Principal, filter: &TopicFilter) -> bool {
        self.acl
            .as_ref()
            .is_none_or(|acl| acl.may_subscribe(who, filter))
    }
}
