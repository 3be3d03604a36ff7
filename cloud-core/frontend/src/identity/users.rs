//! Making, changing and deleting users.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use credentials::{Mechanism, PasswordHash, ScramKeys};
use kernel::{Entry, WriteError};

use super::{Identity, table};
use crate::Principal;
use crate::changes::Change;
use crate::limits;

/// A user, without the password: what is here does not let anybody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Arc<str>,
    pub groups: Arc<[Arc<str>]>,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// When the password or the groups were set last.
    pub changed_ms: i64,
    pub(super) password: PasswordHash,
    pub(super) scram: Vec<ScramKeys>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("user {0:?} exists already")]
    Exists(String),
    #[error("there is no user {0:?}")]
    Unknown(String),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Names stand in rules, in topics and in other systems' configurations.
pub fn check_name(what: &str, name: &str) -> Result<(), ChangeError> {
    let wrong = |why: String| Err(ChangeError::Invalid(format!("{what} {name:?}: {why}")));
    if name.is_empty() || name.len() > limits::MAX_USER_NAME {
        return wrong(format!("a name has 1 to {} bytes", limits::MAX_USER_NAME));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return wrong("a name has no control characters, and no spaces at its ends".to_owned());
    }
    if name == Principal::ANONYMOUS {
        return wrong("that is what clients without a user are called".to_owned());
    }
    Ok(())
}

/// Everything that is kept of a password; hundreds of milliseconds.
fn secrets(password: &str) -> Result<(PasswordHash, Vec<ScramKeys>), ChangeError> {
    if password.is_empty() {
        return Err(ChangeError::Invalid("a password must not be empty".into()));
    }
    let hash = PasswordHash::of(password.as_bytes())
        .ok_or_else(|| ChangeError::Invalid("the password is too long".into()))?;
    let scram = Mechanism::ALL.map(|mechanism| ScramKeys::of(mechanism, password.as_bytes()));
    Ok((hash, scram.into()))
}

async fn secrets_of(password: String) -> Result<(PasswordHash, Vec<ScramKeys>), ChangeError> {
    tokio::task::spawn_blocking(move || secrets(&password))
        .await
        .map_err(|_| {
            ChangeError::Invalid("the password could not be hashed: the process is ending".into())
        })?
}

fn check_groups(groups: BTreeSet<String>) -> Result<Arc<[Arc<str>]>, ChangeError> {
    if groups.len() > limits::MAX_GROUPS {
        return Err(ChangeError::Invalid(format!(
            "a user has at most {} groups",
            limits::MAX_GROUPS
        )));
    }
    for group in &groups {
        check_name("group", group)?;
    }
    Ok(groups.into_iter().map(Arc::from).collect())
}

/// What becomes of those of a user that is changed.
#[derive(PartialEq, Eq)]
enum Connections {
    Stay,
    End,
}

impl Identity {
    /// By name.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.0.users.load().all()
    }

    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.0.users.load().get(name)
    }

    /// Resolves when it is durable and can log in.
    pub async fn add_user(
        &self,
        name: &str,
        password: String,
        groups: BTreeSet<String>,
        now_ms: i64,
    ) -> Result<Arc<User>, ChangeError> {
        check_name("user", name)?;
        let groups = check_groups(groups)?;
        let (password, scram) = secrets_of(password).await?;
        let change = self.0.changes.begin().await;
        if self.user(name).is_some() {
            return Err(ChangeError::Exists(name.to_owned()));
        }
        if self.0.users.load().all().len() >= limits::MAX_USERS {
            return Err(ChangeError::Invalid(format!(
                "there are {} users, the limit",
                limits::MAX_USERS
            )));
        }
        let user = User {
            name: name.into(),
            groups,
            created_ms: now_ms,
            changed_ms: now_ms,
            password,
            scram,
        };
        self.put(change, user, Connections::Stay).await
    }

    /// Connections that came with the old password end.
    pub async fn set_password(
        &self,
        name: &str,
        password: String,
        now_ms: i64,
    ) -> Result<Arc<User>, ChangeError> {
        let (password, scram) = secrets_of(password).await?;
        let change = self.0.changes.begin().await;
        let user = self.existing(name)?;
        let user = User {
            changed_ms: now_ms,
            password,
            scram,
            ..(*user).clone()
        };
        self.put(change, user, Connections::End).await
    }

    /// Adds to some groups and takes from others; rules see it at once.
    pub async fn set_groups(
        &self,
        name: &str,
        add: BTreeSet<String>,
        remove: &BTreeSet<String>,
        now_ms: i64,
    ) -> Result<Arc<User>, ChangeError> {
        let change = self.0.changes.begin().await;
        let user = self.existing(name)?;
        let mut groups: BTreeSet<String> = user.groups.iter().map(|one| one.to_string()).collect();
        groups.extend(add);
        groups.retain(|group| !remove.contains(group));
        let groups = check_groups(groups)?;
        let user = User {
            groups,
            changed_ms: now_ms,
            ..(*user).clone()
        };
        self.put(change, user, Connections::Stay).await
    }

    /// Its connections end.
    pub async fn delete_user(&self, name: &str) -> Result<(), ChangeError> {
        let change = self.0.changes.begin().await;
        let user = self.existing(name)?;
        let key = Bytes::copy_from_slice(user.name.as_bytes());
        let entry = Entry::new().delete(table::TABLE, key);
        let identity = self.clone();
        let put_in_force = move || {
            let users = identity.0.users.load().without(&user.name);
            identity.0.users.store(Arc::new(users));
            identity.end_connections(&user.name);
        };
        Ok(change.write(&self.0.kernel, entry, put_in_force).await?)
    }

    /// Whoever is connected as this user has to prove again who he is.
    fn end_connections(&self, name: &str) {
        self.0.passwords.forget(name);
        self.0.revocations.revoke(name);
    }

    fn existing(&self, name: &str) -> Result<Arc<User>, ChangeError> {
        self.user(name)
            .ok_or_else(|| ChangeError::Unknown(name.to_owned()))
    }

    async fn put(
        &self,
        change: Change,
        user: User,
        connections: Connections,
    ) -> Result<Arc<User>, ChangeError> {
        let value =
            table::encode(&user).map_err(|error| ChangeError::Invalid(error.to_string()))?;
        let key = Bytes::copy_from_slice(user.name.as_bytes());
        let entry = Entry::new().put(table::TABLE, key, value);
        let identity = self.clone();
        let put_in_force = move || {
            let name = user.name.clone();
            let users = identity.0.users.load().with(user);
            identity.0.users.store(Arc::new(users));
            if connections == Connections::End {
                identity.end_connections(&name);
            }
            identity.existing(&name)
        };
        change.write(&self.0.kernel, entry, put_in_force).await?
    }
}
