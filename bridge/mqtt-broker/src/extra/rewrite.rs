//! Topics that are written anew before anything else looks at them. The first rule that fits decides.

use super::delayed::split_delayed;
use super::fill;
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
    to: String,
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
        expand(to, &vec![""; wildcards])?;
        let blank = to.replace(['{', '}'], "");
        TopicFilter::new(&blank)?;
        let to = to.to_owned();
        Ok(Rewrite { verb, from, to })
    }

    /// What the rule makes of a topic or a filter, if it is about that. Wildcards in a filter stand for themselves.
    fn apply(&self, text: &str, who: &Principal) -> Option<String> {
        let captures = captures(self.from.as_str(), text)?;
        let to = fill(&self.to, who)?;
        expand(&to, &captures).ok()
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

fn expand(to: &str, captures: &[&str]) -> Result<String, RewriteError> {
    let (mut out, mut rest) = (String::new(), to);
    while let Some((before, after)) = rest.split_once('{') {
        let (number, after) = after.split_once('}').ok_or(RewriteError::Brace)?;
        let number: usize = number.parse().map_err(|_| RewriteError::Brace)?;
        let index = number.checked_sub(1).ok_or(RewriteError::Brace)?;
        let capture = captures.get(index);
        out.push_str(before);
        out.push_str(capture.ok_or(RewriteError::NoSuchWildcard(number))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
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
