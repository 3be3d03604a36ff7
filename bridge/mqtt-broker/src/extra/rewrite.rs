//! Topics that are written anew before anything else looks at them. The first rule that fits decides.

use super::delayed::split_delayed;
use super::placeholders::fill_into;
use crate::access::Principal;
use mqtt_codec::{TopicError, TopicFilter, TopicName};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Publish,
    Subscribe,
    All,
}

/// `from` is a topic filter, `to` a topic with `{1}`, `{2}`, ... for what its wildcards stood for (`#`: all the rest), `%c` and `%u`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    verb: Verb,
    from: TopicFilter,
    to: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// With `%c` and `%u`.
    Text(String),
    /// What the wildcard of that index stood for.
    Capture(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    #[error(transparent)]
    Filter(#[from] TopicError),
    #[error("{{{0}}} stands for a wildcard that the filter does not have")]
    NoSuchWildcard(usize),
    #[error("a brace that is not {{1}}, {{2}} and so on")]
    Brace,
}

impl Rewrite {
    pub fn new(verb: Verb, from: &str, to: &str) -> Result<Rewrite, RewriteError> {
        let from = TopicFilter::new(from)?;
        let wildcards = from.levels().filter(|l| matches!(*l, "+" | "#")).count();
        let blank = to.replace(['{', '}'], "");
        let to = pieces(to, wildcards)?;
        TopicFilter::new(&blank)?;
        Ok(Rewrite { verb, from, to })
    }

    /// What the rule makes of a topic or a filter, if it is about that. Wildcards in a filter stand for themselves.
    fn apply(&self, text: &str, who: &Principal) -> Option<String> {
        let captures = captures(self.from.as_str(), text)?;
        let mut written = String::new();
        for piece in &self.to {
            match piece {
                Piece::Text(text) => fill_into(&mut written, text, who)?,
                Piece::Capture(index) => written.push_str(captures.get(*index)?),
            }
        }
        Some(written)
    }
}

/// What the wildcards of a filter stand for in a text that it matches.
fn captures<'a>(filter: &str, text: &'a str) -> Option<Vec<&'a str>> {
    if text.starts_with('$') && filter.starts_with(['+', '#']) {
        return None;
    }
    let (mut captures, mut rest) = (Vec::new(), Some(text));
    for level in filter.split('/') {
        if level == "#" {
            captures.push(rest.unwrap_or_default());
            return Some(captures);
        }
        let (here, after) = match rest?.split_once('/') {
            Some((here, after)) => (here, Some(after)),
            None => (rest?, None),
        };
        match level {
            "+" if here != "#" => captures.push(here),
            _ if level == here => {}
            _ => return None,
        }
        rest = after;
    }
    rest.is_none().then_some(captures)
}

/// A template, read once: what is put into it later is not looked at for braces.
fn pieces(to: &str, wildcards: usize) -> Result<Vec<Piece>, RewriteError> {
    let (mut pieces, mut rest) = (Vec::new(), to);
    while let Some((before, after)) = rest.split_once('{') {
        let (number, after) = after.split_once('}').ok_or(RewriteError::Brace)?;
        let number: usize = number.parse().map_err(|_| RewriteError::Brace)?;
        let index = number.checked_sub(1).ok_or(RewriteError::Brace)?;
        if index >= wildcards {
            return Err(RewriteError::NoSuchWildcard(number));
        }
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Capture(index));
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

/// The rules of a broker, in their order.
#[derive(Clone, Debug, Default)]
pub struct Rewrites(pub Vec<Rewrite>);

impl Rewrites {
    fn first(&self, verb: Verb, text: &str, who: &Principal) -> Option<String> {
        let of_verb = self.0.iter();
        let mut of_verb = of_verb.filter(|rule| rule.verb == verb || rule.verb == Verb::All);
        of_verb.find_map(|rule| rule.apply(text, who))
    }

    /// A topic that would not be valid stays as it is. Of `$delayed/...` the topic behind it, unless a rule is about the whole.
    pub(crate) fn topic(&self, topic: TopicName, who: &Principal) -> TopicName {
        if self.0.is_empty() {
            return topic;
        }
        let whole = topic.as_str();
        let written = self.first(Verb::Publish, whole, who).or_else(|| {
            let (prefix, inner) = split_delayed(whole)?;
            let inner = self.first(Verb::Publish, inner, who)?;
            Some(format!("{prefix}{inner}"))
        });
        let written = written.and_then(|text| TopicName::new(&text).ok());
        written.unwrap_or(topic)
    }

    /// Of `$share/...` and `$exclusive/...` the filter behind it.
    pub(crate) fn filter(&self, filter: &TopicFilter, who: &Principal) -> TopicFilter {
        if self.0.is_empty() {
            return filter.clone();
        }
        let text = filter.as_str();
        let inner = match filter.share() {
            Some((name, _)) => "$share/".len() + name.len() + 1,
            None if text.starts_with("$exclusive/") => "$exclusive/".len(),
            None => 0,
        };
        let (prefix, inner) = text.split_at(inner);
        let written = self.first(Verb::Subscribe, inner, who);
        let written = written.and_then(|text| TopicFilter::new(&format!("{prefix}{text}")).ok());
        written.unwrap_or_else(|| filter.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Admitted;
    use crate::backend::ClientId;

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let rule = |from, to| Rewrite::new(Verb::Publish, from, to).unwrap();
        let rules = Rewrites(vec![
            rule("up/#", "tenants/%c/{1}"),
            rule("of/+/+", "%u/{2}/{1}%"),
            rule("split/+", "s/%{1}c"),
        ]);
        for (client, user, topic, expected) in [
            ("c", None, "up/bob/x", "tenants/c/bob/x"),
            ("{1}", None, "up/bob/x", "tenants/{1}/bob/x"),
            ("{3F2504E0}", None, "up/x", "tenants/{3F2504E0}/x"),
            ("{", None, "up/}{1}", "tenants/{/}{1}"),
            ("c", None, "up/%c", "tenants/c/%c"),
            ("c", Some("{2}"), "of/a/{1}", "{2}/{1}/a%"),
            ("x", None, "split/x", "s/%xc"),
            // The rule is not about these.
            ("a/b", None, "up/x", "up/x"),
            ("a+", None, "up/x", "up/x"),
            ("#", None, "up/x", "up/x"),
            ("%u", Some("ann"), "up/x", "up/x"),
            ("c", None, "of/a/b", "of/a/b"),
        ] {
            let admitted = Admitted::user(user.map(Into::into));
            let who = Principal::new(ClientId::new(client), admitted);
            let written = rules.topic(TopicName::new(topic).unwrap(), &who);
            assert_eq!(written.as_str(), expected, "{client} {topic}");
        }
    }
}
