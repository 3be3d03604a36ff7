//! What can be done with a resource.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Write records: MQTT's PUBLISH, Kafka's Produce, AMQP's publish and bind.
    Publish,
    /// Read records: MQTT's SUBSCRIBE, Kafka's Fetch and membership of a group, AMQP's consume, get and purge.
    Subscribe,
    Create,
    Delete,
    Alter,
    /// See that it is there and how it is. Who may do anything else with it, may this as well, unless a rule says no before.
    Describe,
    /// Come with a client id, and so have its session. It is no part of `all`: rules of before it was there say nothing of it.
    Connect,
}

impl Verb {
    pub const ALL: [Verb; 7] = [
        Verb::Publish,
        Verb::Subscribe,
        Verb::Create,
        Verb::Delete,
        Verb::Alter,
        Verb::Describe,
        Verb::Connect,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Verb::Publish => "publish",
            Verb::Subscribe => "subscribe",
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::Alter => "alter",
            Verb::Describe => "describe",
            Verb::Connect => "connect",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no verb: expected publish, subscribe, create, delete, alter, describe, all (of these) or connect"
)]
pub struct UnknownVerb(pub String);

impl FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Verb, UnknownVerb> {
        match text {
            "produce" => Ok(Verb::Publish),
            "consume" => Ok(Verb::Subscribe),
            text => Verb::ALL
                .into_iter()
                .find(|verb| verb.name() == text)
                .ok_or_else(|| UnknownVerb(text.to_owned())),
        }
    }
}

/// A set of verbs: `publish,subscribe`, or `all` of them but `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    pub const ALL: Verbs = Verbs(0b11_1111);

    pub fn of(verbs: &[Verb]) -> Verbs {
        Verbs(verbs.iter().fold(0, |bits, verb| bits | verb.bit()))
    }

    /// Just this one.
    pub fn is_only(self, verb: Verb) -> bool {
        self.0 == verb.bit()
    }

    pub fn has(self, verb: Verb) -> bool {
        self.0 & verb.bit() != 0
    }

    /// Is a rule with these verbs about `verb`? What a rule allows includes that it is seen.
    pub(crate) fn is_about(self, verb: Verb, allow: bool) -> bool {
        self.has(verb) || (allow && verb == Verb::Describe && self.0 & Verbs::ALL.0 != 0)
    }
}

impl fmt::Display for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, left) = match self.0 & Verbs::ALL.0 == Verbs::ALL.0 {
            true => ("all", Verbs(self.0 & !Verbs::ALL.0)),
            false => ("", *self),
        };
        f.write_str(word)?;
        let mut joint = if word.is_empty() { "" } else { "," };
        for verb in Verb::ALL.into_iter().filter(|verb| left.has(*verb)) {
            write!(f, "{joint}{}", verb.name())?;
            joint = ",";
        }
        Ok(())
    }
}

impl FromStr for Verbs {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Verbs, UnknownVerb> {
        let mut verbs = Verbs(0);
        for word in text.split(',') {
            verbs.0 |= match word.trim() {
                "all" => Verbs::ALL.0,
                word => word.parse::<Verb>()?.bit(),
            };
        }
        Ok(verbs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        for (text, expected) in [
            ("publish", "publish"),
            ("consume,produce", "publish,subscribe"),
            ("all", "all"),
            ("publish,subscribe,create,delete,alter,describe", "all"),
            ("connect", "connect"),
            ("connect,all", "all,connect"),
        ] {
            let verbs: Verbs = text.parse().expect(text);
            assert_eq!(verbs.to_string(), expected);
        }
        assert!(!Verbs::ALL.has(Verb::Connect));
        for text in ["", "read", "publish,", "Publish"] {
            assert!(text.parse::<Verbs>().is_err(), "{text}");
        }
    }
}
