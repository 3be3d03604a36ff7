use serde::{Deserialize, Serialize};

/// Body of `POST /v1/users`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub name: String,
    /// Only what is made of it is kept.
    pub password: String,
    #[serde(default)]
    pub groups: Vec<String>,
}

/// Body of `PATCH /v1/users/{name}`. What it does not name stays as it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterUser {
    /// Connections that came with the old one end.
    #[serde(default)]
    pub password: Option<String>,
    #[serde(default)]
    pub add_groups: Vec<String>,
    #[serde(default)]
    pub remove_groups: Vec<String>,
}

// Passwords: never in a log.
impl std::fmt::Debug for CreateUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateUser")
            .field("name", &self.name)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AlterUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlterUser")
            .field("add_groups", &self.add_groups)
            .field("remove_groups", &self.remove_groups)
            .finish_non_exhaustive()
    }
}

/// Reply to `GET /v1/users`, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    pub users: Vec<User>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    #[serde(default)]
    pub groups: Vec<String>,
    pub created_ms: i64,
    /// When the password or the groups were set last.
    pub changed_ms: i64,
}
