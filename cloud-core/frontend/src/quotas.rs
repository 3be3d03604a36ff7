//! How much clients may do: the quotas of the configuration, for all front ends.

use std::sync::Arc;

use access_rules::Subject;
use prometheus::Registry;
use quota::{Exceeded, Quotas, Share};

use crate::figures::{self, Figure};
use crate::{Asker, Context};

static FIGURES: [Figure<Arc<Quotas>>; 2] = [
    Figure::counter(
        "towline_quota_refused_total",
        "Connections refused because a quota was used up.",
        |quotas| quotas.counts().refused,
    ),
    Figure::counter(
        "towline_quota_delayed_total",
        "Times that a client was read later because a quota was used up.",
        |quotas| quotas.counts().delayed,
    ),
];

/// Fails only when the names are taken.
pub fn register(registry: &Registry, quotas: Arc<Quotas>) -> Result<(), prometheus::Error> {
    figures::register(registry, &FIGURES, move || quotas.clone())
}

impl Context {
    /// One connection more of this client, as long as the share lives.
    pub fn enter(&self, who: &Asker<'_>) -> Result<Share, Exceeded> {
        let known: Arc<[Arc<str>]>;
        let groups = match who.user {
            Some(user) if who.groups.is_empty() && self.quotas.name_groups() => {
                known = self.identity.groups_of(user);
                &known
            }
            _ => who.groups,
        };
        self.quotas.enter(&Subject {
            user: who.user,
            groups,
            client: who.client,
            certificate: who.certificate,
        })
    }
}
