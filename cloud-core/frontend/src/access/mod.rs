//! Who may do what, for all front ends.
//!
//! The rules are one row of a kernel table, and a snapshot in memory: a question takes no lock. Whoever changes them does it here, in
//! this process, so the next question is answered by the new ones.

mod change;
mod table;

use std::sync::Arc;

use access_rules::{Decision, Grant, Resource, Subject, Verb};
use arc_swap::ArcSwap;
use kernel::Kernel;

pub use change::RulesError;
pub use table::{Listed, TABLE};

use crate::changes::Changes;
use crate::identity::UnreadableError;
use crate::{Identity, Principal};
use table::RuleList;

/// Who asks, as a front end knows it.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub user: Option<&'a str>,
    /// Of the credentials; where there are none, those of the user in the table count.
    pub groups: &'a [Arc<str>],
    pub certificate: Option<&'a str>,
    /// What the client calls itself (MQTT's client id, Kafka's `client.id`, AMQP's `connection_name`).
    pub client: &'a str,
}

impl Principal {
    pub fn asker<'a>(&'a self, client: &'a str) -> Asker<'a> {
        Asker {
            user: self.user.as_deref(),
            groups: &self.groups,
            certificate: self.certificate.as_deref(),
            client,
        }
    }
}

/// Why the answer is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Clients without a user may not come at all.
    NoStrangers,
    /// There are no rules (of `connect`, when that is asked): whoever is let in may do everything (have every client id).
    NoRules,
    Rule(Listed),
    /// There are rules, and none fits.
    NoneFits,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    kernel: Kernel,
    identity: Identity,
    list: ArcSwap<RuleList>,
    changes: Changes,
}

impl Access {
    pub fn open(kernel: Kernel, identity: Identity) -> Result<Access, UnreadableError> {
        let list = RuleList::read(&kernel)?;
        Ok(Access(Arc::new(Inner {
            kernel,
            identity,
            list: ArcSwap::from_pointee(list),
            changes: Changes::default(),
        })))
    }

    /// `None`: nobody has to look at rules, this is the answer.
    fn without_rules(&self, list: &RuleList, who: &Asker<'_>, verb: Verb) -> Option<bool> {
        // Who came as nobody, before there were users, is nobody any more.
        if who.user.is_none() && !self.0.identity.lets_strangers() {
            return Some(false);
        }
        (!list.are_about(verb)).then_some(true)
    }

    fn with_subject<T>(
        &self,
        list: &RuleList,
        who: &Asker<'_>,
        ask: impl FnOnce(&Subject<'_>) -> T,
    ) -> T {
        let known: Arc<[Arc<str>]>;
        let groups = match who.user {
            Some(user) if who.groups.is_empty() && list.name_groups() => {
                known = self.0.identity.groups_of(user);
                &known
            }
            _ => who.groups,
        };
        ask(&Subject {
            user: who.user,
            groups,
            client: who.client,
            certificate: who.certificate,
        })
    }

    /// May `who` do that?
    pub fn may(&self, who: &Asker<'_>, verb: Verb, resource: Resource<'_>) -> bool {
        let list = self.0.list.load();
        self.without_rules(&list, who, verb).unwrap_or_else(|| {
            self.with_subject(&list, who, |who| list.rules().may(who, verb, resource))
        })
    }

    /// May `who` do that with anything at all?
    pub fn may_any(&self, who: &Asker<'_>, verb: Verb) -> bool {
        let list = self.0.list.load();
        self.without_rules(&list, who, verb)
            .unwrap_or_else(|| self.with_subject(&list, who, |who| list.rules().may_any(who, verb)))
    }

    /// May `who` subscribe to this topic filter? When a part of it is denied, yes: [`Access::may`] is asked for each message.
    pub fn may_subscribe(&self, who: &Asker<'_>, filter: &str) -> bool {
        let list = self.0.list.load();
        self.without_rules(&list, who, Verb::Subscribe)
            .unwrap_or_else(|| {
                self.with_subject(&list, who, |who| list.rules().grant(who, filter))
                    != Grant::Nothing
            })
    }

    /// The answer, with its reason.
    pub fn explain(&self, who: &Asker<'_>, verb: Verb, resource: Resource<'_>) -> (bool, Reason) {
        let list = self.0.list.load();
        match self.without_rules(&list, who, verb) {
            Some(false) => return (false, Reason::NoStrangers),
            Some(true) => return (true, Reason::NoRules),
            None => {}
        }
        let Decision { allowed, rule } =
            self.with_subject(&list, who, |who| list.rules().decide(who, verb, resource));
        let reason = rule
            .and_then(|at| list.listed(at))
            .map_or(Reason::NoneFits, Reason::Rule);
        (allowed, reason)
    }
}
