use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A label selector, as in `towline get edges -l site=berlin,stage!=test,gpu,!retired`. All terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// `key=value` or `key==value`
    Equals(String, String),
    /// `key!=value`: another value or no such label
    Differs(String, String),
    /// `key`
    Exists(String),
    /// `!key`
    Absent(String),
}

/// A term that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError {
    pub term: String,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "label selector: cannot read {:?}; a term is key=value, key!=value, key or !key, joined by commas",
            self.term
        )
    }
}

impl std::error::Error for SelectorError {}

impl Selector {
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| match term {
            Term::Equals(key, value) => labels.get(key) == Some(value),
            Term::Differs(key, value) => labels.get(key) != Some(value),
            Term::Exists(key) => labels.contains_key(key),
            Term::Absent(key) => !labels.contains_key(key),
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Selector, SelectorError> {
        if text.trim().is_empty() {
            return Ok(Selector::default());
        }
        let terms = text
            .split(',')
            .map(|term| parse(term.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Selector { terms })
    }
}

fn parse(term: &str) -> Result<Term, SelectorError> {
    let key = |key: &str| {
        let key = key.trim();
        if key.is_empty() || key.contains(['=', '!', ' ']) {
            return Err(SelectorError {
                term: term.to_owned(),
            });
        }
        Ok(key.to_owned())
    };
    if let Some((left, right)) = term.split_once("!=") {
        return Ok(Term::Differs(key(left)?, right.trim().to_owned()));
    }
    if let Some((left, right)) = term.split_once('=') {
        let right = right.strip_prefix('=').unwrap_or(right);
        return Ok(Term::Equals(key(left)?, right.trim().to_owned()));
    }
    match term.strip_prefix('!') {
        Some(absent) => Ok(Term::Absent(key(absent)?)),
        None => Ok(Term::Exists(key(term)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let labels: BTreeMap<String, String> = [("site", "berlin"), ("gpu", "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        for (selector, expected) in [
            ("", true),
            ("site=berlin", true),
            ("site==berlin", true),
            ("site=paris", false),
            ("site!=paris", true),
            ("stage!=test", true),
            ("gpu", true),
            ("!gpu", false),
            ("!retired, site=berlin", true),
            ("site=berlin,gpu=x", false),
        ] {
            assert_eq!(
                selector.parse::<Selector>().unwrap().matches(&labels),
                expected,
                "{selector}"
            );
        }
    }

    #[test]
    fn unreadable_terms_are_refused_with_the_term() {
        for selector in ["=x", "a=b,,c", "!", "a b", "!=x"] {
            let error = selector.parse::<Selector>().unwrap_err();
            assert!(
                error.to_string().contains("label selector"),
                "{selector}: {error}"
            );
        }
    }
}
