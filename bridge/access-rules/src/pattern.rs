//! Topics of a rule.

use crate::Subject;

/// The topics of a rule: a topic filter in which a level (or a part of one) may be `%u`, the user, or `%c`, the client id.
/// Other than in a subscription a wildcard at the first level also stands for topics that begin with `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern must not be empty")]
    Empty,
    #[error("a pattern must not contain the null character")]
    Null,
    #[error("# must be the last level, and alone in it")]
    MisplacedMulti,
    #[error("+ must be alone in its level")]
    MisplacedSingle,
}

impl TopicPattern {
    pub fn new(text: &str) -> Result<TopicPattern, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.contains('\0') {
            return Err(PatternError::Null);
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
                return Err(PatternError::MisplacedMulti);
            }
            if level.contains('+') && level.len() > 1 {
                return Err(PatternError::MisplacedSingle);
            }
        }
        Ok(TopicPattern(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Can it be filled in for this client? Not when it asks for a name that there is none of, or one that would change the levels.
    fn is_about(&self, who: &Subject<'_>) -> bool {
        let usable =
            |name: Option<&str>| named(name).is_some_and(|name| !name.contains(['/', '+', '#']));
        (!self.0.contains("%u") || usable(who.user))
            && (!self.0.contains("%c") || usable(Some(who.client)))
    }

    /// Is every topic of the filter `asked` one of these? A topic is a filter too.
    pub fn covers(&self, asked: &str, who: &Subject<'_>) -> bool {
        if !self.is_about(who) {
            return false;
        }
        let (mut ours, mut asked) = (self.0.split('/'), asked.split('/'));
        loop {
            match (ours.next(), asked.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(ours), Some(level)) if filled_is(ours, level, who) => {}
                _ => return false,
            }
        }
    }

    /// Is there a topic that both these and the filter `asked` have?
    pub fn overlaps(&self, asked: &str, who: &Subject<'_>) -> bool {
        if !self.is_about(who) {
            return false;
        }
        let (mut ours, mut asked) = (self.0.split('/'), asked.split('/'));
        loop {
            match (ours.next(), asked.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
                (Some(ours), Some(level)) if filled_is(ours, level, who) => {}
                _ => return false,
            }
        }
    }
}

/// An empty name is none: filled in it would leave a pattern that has everything in it.
fn named(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !name.is_empty())
}

/// Is `pattern`, with `%u` and `%c` filled in, the text `actual`? Names that are filled in are not looked at again: a user may be
/// called `%c`.
pub(crate) fn filled_is(pattern: &str, actual: &str, who: &Subject<'_>) -> bool {
    rest_after_filled(pattern, actual, who).is_some_and(str::is_empty)
}

/// What `actual` has behind the filled in `pattern`; `None` where it does not begin with it.
pub(crate) fn rest_after_filled<'a>(
    pattern: &str,
    actual: &'a str,
    who: &Subject<'_>,
) -> Option<&'a str> {
    let (mut pattern, mut actual) = (pattern, actual);
    while let Some(at) = pattern.find('%') {
        let (plain, rest) = (pattern.get(..at)?, pattern.get(at..)?);
        actual = actual.strip_prefix(plain)?;
        (actual, pattern) = if let Some(rest) = rest.strip_prefix("%u") {
            (actual.strip_prefix(named(who.user)?)?, rest)
        } else if let Some(rest) = rest.strip_prefix("%c") {
            (actual.strip_prefix(named(Some(who.client))?)?, rest)
        } else {
            (actual.strip_prefix('%')?, rest.get(1..)?)
        };
    }
    actual.strip_prefix(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_in_filters() {
        let who = Subject::default();
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
            let outer_pattern = TopicPattern::new(outer).expect(outer);
            let inner_pattern = TopicPattern::new(inner).expect(inner);
            assert_eq!(
                outer_pattern.covers(inner, &who),
                covered,
                "{outer} covers {inner}"
            );
            assert_eq!(
                outer_pattern.overlaps(inner, &who),
                overlap,
                "{outer} overlaps {inner}"
            );
            assert_eq!(
                inner_pattern.overlaps(outer, &who),
                overlap,
                "{inner} overlaps {outer}"
            );
        }
    }

    #[test]
    fn names_are_filled_in_and_change_no_levels() {
        let who = |user, client| Subject {
            user,
            client,
            ..Subject::default()
        };
        for (pattern, user, client, topic, expected) in [
            ("users/%u/inbox", Some("ann"), "c", "users/ann/inbox", true),
            ("users/%u/inbox", Some("ann"), "c", "users/bob/inbox", false),
            ("users/%u/inbox", None, "c", "users/c/inbox", false),
            ("users/%u/#", Some("a/b"), "c", "users/a/b/inbox", false),
            ("users/%u", Some("+"), "c", "users/+", false),
            ("dev-%c/%u/x", Some("ann"), "7", "dev-7/ann/x", true),
            ("dev-%c", None, "7", "dev-77", false),
            ("%u/%c", Some("%c"), "d1", "%c/d1", true),
            ("100%/%u", Some("ann"), "c", "100%/ann", true),
            ("a%cb", None, "", "ab", false),
        ] {
            let found = TopicPattern::new(pattern)
                .expect(pattern)
                .covers(topic, &who(user, client));
            assert_eq!(found, expected, "{pattern} {user:?} {client} {topic}");
        }
        for wrong in ["", "a/#/%u", "a+/b", "a#", "a\0"] {
            assert!(TopicPattern::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
