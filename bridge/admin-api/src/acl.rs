use serde::{Deserialize, Serialize};

/// Body of `POST /v1/acl`. The words are those of docs/reference/security.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateAclRule {
    /// Or deny.
    pub allow: bool,
    /// `publish,subscribe`, or `all`.
    pub verbs: String,
    /// `topic:plant/%u/#`, `stream:orders*`, or `*`.
    pub resource: String,
    /// Whom it is about: everybody whom all that is given fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The number of the rule before which it is put; none: at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}

/// Reply to `GET /v1/acl`: the first that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRules {
    pub rules: Vec<AclRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclRule {
    /// Never given twice.
    pub id: u64,
    pub allow: bool,
    pub verbs: String,
    pub resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// Body of `POST /v1/acl/check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckAcl {
    /// None: a client without a user.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub client_id: String,
    #[serde(default)]
    pub certificate: Option<String>,
    pub verb: String,
    pub resource: String,
}

/// Reply to `POST /v1/acl/check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclVerdict {
    pub allowed: bool,
    /// Why, in words.
    pub reason: String,
    /// The rule that decides, where one does.
    #[serde(default)]
    pub rule: Option<AclRule>,
}
