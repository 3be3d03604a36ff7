//! An access list: rules in order, the first that fits decides, and where none fits the answer is no.

use mqtt_codec::{TopicError, TopicFilter, TopicName};

use crate::access::Principal;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Publish,
    Subscribe,
    All,
}

/// The topics of a rule: a topic filter in which a level (or a part of one) may be `%u`, the user, or `%c`, the client id.
/// Other than in a subscription a wildcard at the first level also stands for topics that begin with `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern(String);

impl TopicPattern {
    pub fn new(text: &str) -> Result<TopicPattern, TopicError> {
        TopicFilter::new(&text.replace("%u", "u").replace("%c", "c"))?;
        Ok(TopicPattern(text.to_owned()))
    }

    /// The filter for this client. `None`: the rule is not about it, since it has no user, or a name that would change the levels.
    fn filter_for(&self, who: &Principal) -> Option<std::borrow::Cow<'_, str>> {
        if !self.0.contains('%') {
            return Some((&self.0).into());
        }
        let mut filter = self.0.clone();
        for (mark, name) in [
            ("%u", who.user.as_deref()),
            ("%c", Some(who.client.as_str())),
        ] {
            if filter.contains(mark) {
                let name =
                    name.filter(|name| !name.is_empty() && !name.contains(['/', '+', '#']))?;
                // A name that contains the other mark must not be filled in again.
                filter = filter.replace(mark, &name.replace('%', "\u{0}"));
            }
        }
        Some(filter.replace('\u{0}', "%").into())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub verb: Verb,
    /// `None`: every user, and clients without one.
    pub user: Option<String>,
    /// A client id, or the beginning of one with `*` behind it. `None`: all.
    pub client: Option<String>,
    pub topics: TopicPattern,
}

impl Rule {
    fn is_about(&self, verb: Verb, who: &Principal) -> bool {
        (self.verb == Verb::All || self.verb == verb)
            && (self.user.is_none() || self.user.as_deref() == who.user.as_deref())
            && self
                .client
                .as_deref()
                .is_none_or(|pattern| client_matches(pattern, who.client.as_str()))
    }
}

/// Is `client` the one that `pattern` names, or does it begin as `pattern` before its `*`?
pub fn client_matches(pattern: &str, client: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => client.starts_with(beginning),
        None => client == pattern,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl(pub Vec<Rule>);

impl Acl {
    pub fn may_publish(&self, who: &Principal, topic: &TopicName) -> bool {
        self.decide(Verb::Publish, who, |_, filter| {
            covers(filter, topic.as_str())
        })
    }

    /// A rule that allows fits when it allows every topic of the filter; one that denies fits when it denies any of them.
    pub fn may_subscribe(&self, who: &Principal, asked: &TopicFilter) -> bool {
        self.decide(Verb::Subscribe, who, |allow, filter| {
            if allow {
                covers(filter, asked.as_str())
            } else {
                overlaps(filter, asked.as_str())
            }
        })
    }

    fn decide(&self, verb: Verb, who: &Principal, fits: impl Fn(bool, &str) -> bool) -> bool {
        let rules = self.0.iter().filter(|rule| rule.is_about(verb, who));
        for rule in rules {
            if let Some(filter) = rule.topics.filter_for(who)
                && fits(rule.allow, &filter)
            {
                return rule.allow;
            }
        }
        false
    }
}

/// Is every topic of `inner` one of `outer`? Both are filters; a topic is one too.
fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Is there a topic that both filters match?
fn overlaps(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ClientId;

    fn who(user: Option<&str>, client: &str) -> Principal {
        Principal {
            user: user.map(Into::into),
            client: ClientId::new(client),
        }
    }

    fn rule(
        allow: bool,
        verb: Verb,
        user: Option<&str>,
        client: Option<&str>,
        topics: &str,
    ) -> Rule {
        Rule {
            allow,
            verb,
            user: user.map(Into::into),
            client: client.map(Into::into),
            topics: TopicPattern::new(topics).expect("a pattern"),
        }
    }

    #[test]
    fn filters_in_filters() {
        for (outer, inner, covered, overlap) in [
            ("#", "a/b", true, true),
            ("#", "$SYS/x", true, true),
            ("#", "#", true, true),
            ("a/#", "a", true, true),
            ("a/#", "a/+/c", true, true),
            ("a/#", "#", false, true),
            ("a/+", "a/b", true, true),
            ("a/+", "a/#", false, true),
            ("a/+/c", "a/b/+", false, true),
            ("a/b", "a/+", false, true),
            ("a/b", "a/b/c", false, false),
            ("a/b", "c/#", false, false),
            ("+/b", "a/c", false, false),
            ("+", "a/b", false, false),
        ] {
            assert_eq!(covers(outer, inner), covered, "{outer} covers {inner}");
            assert_eq!(overlaps(outer, inner), overlap, "{outer} overlaps {inner}");
            assert_eq!(overlaps(inner, outer), overlap, "{inner} overlaps {outer}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        use Verb::*;
        let acl = Acl(vec![
            rule(false, All, None, None, "plant/secret/#"),
            rule(true, All, Some("operator"), None, "#"),
            rule(true, Publish, None, None, "devices/%c/#"),
            rule(true, Subscribe, None, None, "users/%u/inbox"),
            rule(true, Subscribe, None, Some("display-*"), "plant/#"),
            rule(true, Publish, Some("plc"), Some("plc-1"), "plant/+/state"),
        ]);
        let publish = |user, client, topic: &str| {
            acl.may_publish(&who(user, client), &TopicName::new(topic).expect("topic"))
        };
        let subscribe = |user, client, filter: &str| {
            acl.may_subscribe(
                &who(user, client),
                &TopicFilter::new(filter).expect("filter"),
            )
        };
        for (user, client, topic, expected) in [
            (Some("operator"), "x", "anything/at/all", true),
            (Some("operator"), "x", "$SYS/x", true),
            (Some("operator"), "x", "plant/secret/key", false),
            (None, "d1", "devices/d1/temp", true),
            (None, "d1", "devices/d2/temp", false),
            (None, "+", "devices/+x/temp", false),
            (None, "d/1", "devices/d/1/temp", false),
            (Some("plc"), "plc-1", "plant/7/state", true),
            (Some("plc"), "plc-2", "plant/7/state", false),
            (Some("else"), "plc-1", "plant/7/state", false),
            (None, "x", "users/x/inbox", false),
        ] {
            if let Ok(topic) = TopicName::new(topic) {
                assert_eq!(
                    publish(user, client, topic.as_str()),
                    expected,
                    "{user:?} {client} {topic}"
                );
            }
        }
        for (user, client, filter, expected) in [
            (Some("operator"), "x", "a/#", true),
            // All of the plant has the secret in it.
            (Some("operator"), "x", "plant/#", false),
            (Some("operator"), "x", "#", false),
            (Some("ann"), "x", "users/ann/inbox", true),
            (Some("ann"), "x", "users/+/inbox", false),
            (None, "x", "users/x/inbox", false),
            (Some("a/b"), "x", "users/a/b/inbox", false),
            (Some("#"), "x", "users/#", false),
            (None, "display-7", "plant/line1/#", true),
            (None, "display-7", "plant/secret/#", false),
            (None, "displays", "plant/line1/#", false),
            (None, "d1", "devices/d1/#", false),
        ] {
            assert_eq!(
                subscribe(user, client, filter),
                expected,
                "{user:?} {client} {filter}"
            );
        }
        // A user called like the mark of the client id.
        let acl = Acl(vec![rule(true, All, None, None, "%u/%c")]);
        let topic = TopicName::new("%c/d1").expect("topic");
        assert!(acl.may_publish(&who(Some("%c"), "d1"), &topic));
        assert!(TopicPattern::new("a/#/%u").is_err());
    }
}
