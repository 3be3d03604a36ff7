//! Users as they are stored.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use credentials::{Mechanism, PasswordHash, ScramKeys};
use kernel::Kernel;
use serde::{Deserialize, Serialize};

use super::{UnreadableError, User};

/// The kernel table. Key: the name. Value: [`VERSION`], then a [`Stored`] as JSON.
pub const TABLE: &str = "users";

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// PHC form.
    password: String,
    scram: Vec<String>,
    groups: Vec<String>,
    /// Milliseconds since the epoch.
    created_ms: i64,
    changed_ms: i64,
}

pub fn encode(user: &User) -> Result<Bytes, serde_json::Error> {
    let stored = Stored {
        password: user.password.to_string(),
        scram: user.scram.iter().map(ScramKeys::to_string).collect(),
        groups: user.groups.iter().map(|group| group.to_string()).collect(),
        created_ms: user.created_ms,
        changed_ms: user.changed_ms,
    };
    let json = serde_json::to_vec(&stored)?;
    let mut value = BytesMut::with_capacity(1 + json.len());
    value.put_u8(VERSION);
    value.put_slice(&json);
    Ok(value.freeze())
}

pub fn decode(name: &str, value: &[u8]) -> Option<User> {
    let (version, json) = value.split_first()?;
    if *version != VERSION {
        return None;
    }
    let stored: Stored = serde_json::from_slice(json).ok()?;
    let scram: Option<Vec<ScramKeys>> = stored.scram.iter().map(|s| ScramKeys::parse(s)).collect();
    Some(User {
        name: name.into(),
        password: PasswordHash::parse(&stored.password)?,
        scram: scram?,
        groups: stored
            .groups
            .iter()
            .map(|group| Arc::from(&**group))
            .collect(),
        created_ms: stored.created_ms,
        changed_ms: stored.changed_ms,
    })
}

/// All of them, in memory.
#[derive(Default)]
pub struct Users(HashMap<Arc<str>, Arc<User>>);

impl Users {
    pub fn read(kernel: &Kernel) -> Result<Users, UnreadableError> {
        let mut users = HashMap::new();
        for (key, value) in kernel.table_scan(TABLE, b"") {
            let name = String::from_utf8_lossy(&key);
            let user = decode(&name, &value).ok_or_else(|| UnreadableError {
                what: format!("user {name}"),
            })?;
            users.insert(user.name.clone(), Arc::new(user));
        }
        Ok(Users(users))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<Arc<User>> {
        self.0.get(name).cloned()
    }

    pub fn all(&self) -> Vec<Arc<User>> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn with(&self, user: User) -> Users {
        let mut users = self.0.clone();
        users.insert(user.name.clone(), Arc::new(user));
        Users(users)
    }

    pub fn without(&self, name: &str) -> Users {
        let mut users = self.0.clone();
        users.remove(name);
        Users(users)
    }
}

impl User {
    pub fn scram(&self, mechanism: Mechanism) -> Option<&ScramKeys> {
        self.scram.iter().find(|keys| keys.mechanism() == mechanism)
    }
}
