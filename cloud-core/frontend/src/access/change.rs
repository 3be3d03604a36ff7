//! Adding and deleting rules.

use std::sync::Arc;

use access_rules::{Kind, ResourcePattern, Rule, Verb};
use bytes::Bytes;
use kernel::{Entry, WriteError};

use super::table::{KEY, RuleList, TABLE};
use super::{Access, Listed};
use crate::changes::Change;
use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("there is no rule {0}")]
    Unknown(u64),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Access {
    /// In the order in which they are looked at.
    pub fn rules(&self) -> Vec<Listed> {
        self.0.list.load().all()
    }

    /// At the end, or before another rule. Resolves when it is durable and holds.
    pub async fn add_rule(&self, rule: Rule, before: Option<u64>) -> Result<Listed, RulesError> {
        check(&rule)?;
        let change = self.0.changes.begin().await;
        let current = self.0.list.load_full();
        let mut listed = current.all();
        if listed.len() >= limits::MAX_RULES {
            let limit = limits::MAX_RULES;
            return Err(RulesError::Invalid(format!(
                "there are {limit} rules, the limit"
            )));
        }
        let at = match before {
            None => listed.len(),
            Some(id) => listed
                .iter()
                .position(|one| one.id == id)
                .ok_or(RulesError::Unknown(id))?,
        };
        // The first is number 1.
        let id = current.next_id.max(1);
        let new = Listed { id, rule };
        listed.insert(at, new.clone());
        self.store(change, RuleList::new(id + 1, listed)).await?;
        Ok(new)
    }

    pub async fn delete_rule(&self, id: u64) -> Result<(), RulesError> {
        let change = self.0.changes.begin().await;
        let current = self.0.list.load_full();
        let mut listed = current.all();
        let before = listed.len();
        listed.retain(|one| one.id != id);
        if listed.len() == before {
            return Err(RulesError::Unknown(id));
        }
        self.store(change, RuleList::new(current.next_id, listed))
            .await
    }

    async fn store(&self, change: Change, list: RuleList) -> Result<(), RulesError> {
        let value = list
            .encode()
            .map_err(|error| RulesError::Invalid(error.to_string()))?;
        let entry = Entry::new().put(TABLE, Bytes::from_static(KEY), value);
        let access = self.clone();
        let put_in_force = move || access.0.list.store(Arc::new(list));
        Ok(change.write(&self.0.kernel, entry, put_in_force).await?)
    }
}

/// A verb and a resource that do not belong together would be a rule that never fits.
fn check(rule: &Rule) -> Result<(), RulesError> {
    let connects = rule.verbs.has(Verb::Connect);
    let wrong = match &rule.resource {
        ResourcePattern::Named(Kind::ClientId, _) if !rule.verbs.is_only(Verb::Connect) => {
            "what can be done with a client id is to connect"
        }
        ResourcePattern::Named(Kind::ClientId, _) | ResourcePattern::Everything => return Ok(()),
        _ if connects => "connect is about client ids: client-id:NAME, or * for all of them",
        _ => return Ok(()),
    };
    Err(RulesError::Invalid(wrong.to_owned()))
}
