//! Which topics are stored: rules in their order, the first whose filter matches decides.

use mqtt_codec::{TopicFilter, TopicName, filter_matches};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// In the log, as everything without a rule.
    Always,
    /// Nowhere: for who is connected when it is published.
    Never,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistRules(pub Vec<(TopicFilter, Persist)>);

impl PersistRules {
    /// Is there a topic that is not stored?
    pub fn can_be_unstored(&self) -> bool {
        self.0.iter().any(|(_, persist)| *persist == Persist::Never)
    }

    pub fn is_stored(&self, topic: &TopicName) -> bool {
        let mut rules = self.0.iter();
        let first = rules.find(|(filter, _)| filter_matches(filter.as_str(), topic.as_str()));
        first.is_none_or(|(_, persist)| *persist == Persist::Always)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |filter, persist| (TopicFilter::new(filter).expect("a filter"), persist);
        let rules = PersistRules(vec![
            rule("a/kept", Persist::Always),
            rule("a/#", Persist::Never),
            rule("#", Persist::Always),
        ]);
        assert!(rules.can_be_unstored());
        for (topic, stored) in [
            ("a/kept", true),
            ("a/b", false),
            ("a", false),
            ("b", true),
            ("$x", true),
        ] {
            let topic = TopicName::new(topic).expect("a topic");
            assert_eq!(rules.is_stored(&topic), stored, "{topic}");
        }
        assert!(!PersistRules::default().can_be_unstored());
    }
}
