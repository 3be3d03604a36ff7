//! The rules, and what they say.

use crate::{Resource, ResourcePattern, Verb, Verbs};

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// `None`: anonymous.
    pub user: Option<&'a str>,
    pub groups: &'a [std::sync::Arc<str>],
    /// What the client calls itself: it is verified for nobody.
    pub client: &'a str,
    /// The name in the certificate that was verified.
    pub certificate: Option<&'a str>,
}

/// Whom a rule is about: everybody whom all that is named fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    pub user: Option<String>,
    pub group: Option<String>,
    /// A client id, or the beginning of one with `*` behind it.
    pub client: Option<String>,
    pub certificate: Option<String>,
}

impl Who {
    pub fn is_about(&self, who: &Subject<'_>) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == name)
        };
        is(&self.user, who.user)
            && is(&self.certificate, who.certificate)
            && self
                .group
                .as_deref()
                .is_none_or(|group| who.groups.iter().any(|one| **one == *group))
            && self
                .client
                .as_deref()
                .is_none_or(|pattern| client_matches(pattern, who.client))
    }
}

/// Is `client` the one that `pattern` names, or does it begin as `pattern` before its `*`?
pub fn client_matches(pattern: &str, client: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => client.starts_with(beginning),
        None => client == pattern,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub verbs: Verbs,
    pub who: Who,
    pub resource: ResourcePattern,
}

impl Rule {
    fn is_about(&self, verb: Verb, who: &Subject<'_>) -> bool {
        self.verbs.is_about(verb, self.allow) && self.who.is_about(who)
    }
}

/// An answer, and the place in the list of the rule that gave it; none: no rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub rule: Option<usize>,
}

/// How much of a topic filter may be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Everything it can match.
    Whole,
    /// Some of it is denied: each message has to be asked about.
    Part,
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// May `who` do that with this one resource?
    pub fn decide(&self, who: &Subject<'_>, verb: Verb, resource: Resource<'_>) -> Decision {
        let rule = self
            .0
            .iter()
            .position(|rule| rule.is_about(verb, who) && rule.resource.covers(resource, who));
        Decision {
            allowed: rule
                .and_then(|at| self.0.get(at))
                .is_some_and(|rule| rule.allow),
            rule,
        }
    }

    pub fn may(&self, who: &Subject<'_>, verb: Verb, resource: Resource<'_>) -> bool {
        self.decide(who, verb, resource).allowed
    }

    /// Whether anything that a rule allows under this verb exists for `who`, whatever it is called.
    pub fn may_any(&self, who: &Subject<'_>, verb: Verb) -> bool {
        self.0
            .iter()
            .any(|rule| rule.allow && rule.is_about(verb, who))
    }

    /// How much of this topic filter may be subscribed to. A rule fits when it has all of the filter; one that denies a part of it,
    /// before, leaves the rest.
    pub fn grant(&self, who: &Subject<'_>, filter: &str) -> Grant {
        let asked = Resource::Topic(filter);
        let mut granted = Grant::Whole;
        for rule in &self.0 {
            if !rule.is_about(Verb::Subscribe, who) {
                continue;
            }
            if rule.resource.covers(asked, who) {
                return if rule.allow { granted } else { Grant::Nothing };
            }
            if !rule.allow && rule.resource.overlaps(asked, who) {
                granted = Grant::Part;
            }
        }
        Grant::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn rule(
        allow: bool,
        verbs: &str,
        user: Option<&str>,
        client: Option<&str>,
        resource: &str,
    ) -> Rule {
        Rule {
            allow,
            verbs: verbs.parse().expect(verbs),
            who: Who {
                user: user.map(Into::into),
                client: client.map(Into::into),
                ..Who::default()
            },
            resource: resource.parse().expect(resource),
        }
    }

    fn plant() -> Rules {
        Rules(vec![
            rule(false, "all", None, None, "topic:plant/secret/#"),
            rule(true, "all", Some("operator"), None, "topic:#"),
            rule(true, "publish", None, None, "topic:devices/%c/#"),
            rule(true, "subscribe", None, None, "topic:users/%u/inbox"),
            rule(true, "subscribe", None, Some("display-*"), "topic:plant/#"),
            rule(
                true,
                "publish",
                Some("plc"),
                Some("plc-1"),
                "topic:plant/+/state",
            ),
        ])
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = plant();
        for (user, client, topic, expected) in [
            (Some("operator"), "x", "anything/at/all", true),
            (Some("operator"), "x", "$SYS/x", true),
            (Some("operator"), "x", "plant/secret/key", false),
            (None, "d1", "devices/d1/temp", true),
            (None, "d1", "devices/d2/temp", false),
            (None, "d/1", "devices/d/1/temp", false),
            (Some("plc"), "plc-1", "plant/7/state", true),
            (Some("plc"), "plc-2", "plant/7/state", false),
            (Some("else"), "plc-1", "plant/7/state", false),
            (None, "x", "users/x/inbox", false),
        ] {
            let who = Subject {
                user,
                client,
                ..Subject::default()
            };
            let found = rules.may(&who, Verb::Publish, Resource::Topic(topic));
            assert_eq!(found, expected, "{user:?} {client} {topic}");
        }
    }

    #[test]
    fn a_filter_is_granted_whole_in_part_or_not() {
        let rules = plant();
        for (user, client, filter, expected) in [
            (Some("operator"), "x", "a/#", Grant::Whole),
            // All of the plant has the secret in it.
            (Some("operator"), "x", "plant/#", Grant::Part),
            (Some("operator"), "x", "#", Grant::Part),
            (Some("operator"), "x", "plant/secret/key", Grant::Nothing),
            (Some("ann"), "x", "users/ann/inbox", Grant::Whole),
            (Some("ann"), "x", "users/+/inbox", Grant::Nothing),
            (None, "x", "users/x/inbox", Grant::Nothing),
            (Some("#"), "x", "users/#", Grant::Nothing),
            (None, "display-7", "plant/line1/#", Grant::Whole),
            (None, "display-7", "plant/secret/#", Grant::Nothing),
            (None, "displays", "plant/line1/#", Grant::Nothing),
            (None, "d1", "devices/d1/#", Grant::Nothing),
        ] {
            let who = Subject {
                user,
                client,
                ..Subject::default()
            };
            assert_eq!(
                rules.grant(&who, filter),
                expected,
                "{user:?} {client} {filter}"
            );
        }
    }

    #[test]
    fn groups_certificates_and_what_may_be_seen() {
        let mut team = rule(true, "subscribe", None, None, "stream:orders*");
        team.who.group = Some("team".into());
        let mut device = rule(true, "publish", None, None, "stream:plant");
        device.who.certificate = Some("gw-1".into());
        let rules = Rules(vec![
            rule(false, "describe", Some("eve"), None, "stream:orders-secret"),
            team,
            device,
        ]);
        let groups: [Arc<str>; 2] = ["other".into(), "team".into()];
        let ann = Subject {
            user: Some("ann"),
            groups: &groups,
            ..Subject::default()
        };
        let eve = Subject {
            user: Some("eve"),
            groups: &groups,
            ..Subject::default()
        };
        let gateway = Subject {
            user: Some("gw-1"),
            certificate: Some("gw-1"),
            ..Subject::default()
        };
        let impostor = Subject {
            user: Some("gw-1"),
            ..Subject::default()
        };
        for (who, verb, resource, expected, by) in [
            (
                &ann,
                Verb::Subscribe,
                Resource::Stream("orders-7"),
                true,
                Some(1),
            ),
            (
                &ann,
                Verb::Describe,
                Resource::Stream("orders-7"),
                true,
                Some(1),
            ),
            (
                &ann,
                Verb::Publish,
                Resource::Stream("orders-7"),
                false,
                None,
            ),
            (
                &eve,
                Verb::Describe,
                Resource::Stream("orders-secret"),
                false,
                Some(0),
            ),
            (
                &eve,
                Verb::Subscribe,
                Resource::Stream("orders-secret"),
                true,
                Some(1),
            ),
            (
                &gateway,
                Verb::Publish,
                Resource::Stream("plant"),
                true,
                Some(2),
            ),
            (
                &impostor,
                Verb::Publish,
                Resource::Stream("plant"),
                false,
                None,
            ),
        ] {
            let decision = rules.decide(who, verb, resource);
            assert_eq!(
                (decision.allowed, decision.rule),
                (expected, by),
                "{who:?} {verb} {resource}"
            );
        }
        assert!(rules.may_any(&gateway, Verb::Publish) && !rules.may_any(&ann, Verb::Publish));
    }
}
