//! What rules are about.

use std::fmt;
use std::str::FromStr;

use crate::pattern::{filled_is, rest_after_filled};
use crate::{PatternError, Subject, TopicPattern};

/// One thing, by the name that clients use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// An MQTT topic or topic filter.
    Topic(&'a str),
    /// A stream: what Kafka calls a topic.
    Stream(&'a str),
    /// A consumer group.
    Group(&'a str),
    Queue(&'a str),
    Exchange(&'a str),
    /// What a client of MQTT calls itself, and its session is called.
    ClientId(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Topic,
    Stream,
    Group,
    Queue,
    Exchange,
    ClientId,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Topic,
        Kind::Stream,
        Kind::Group,
        Kind::Queue,
        Kind::Exchange,
        Kind::ClientId,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Topic => "topic",
            Kind::Stream => "stream",
            Kind::Group => "group",
            Kind::Queue => "queue",
            Kind::Exchange => "exchange",
            Kind::ClientId => "client-id",
        }
    }
}

impl<'a> Resource<'a> {
    pub fn kind(self) -> Kind {
        self.parts().0
    }

    pub fn name(self) -> &'a str {
        self.parts().1
    }

    fn parts(self) -> (Kind, &'a str) {
        match self {
            Resource::Topic(name) => (Kind::Topic, name),
            Resource::Stream(name) => (Kind::Stream, name),
            Resource::Group(name) => (Kind::Group, name),
            Resource::Queue(name) => (Kind::Queue, name),
            Resource::Exchange(name) => (Kind::Exchange, name),
            Resource::ClientId(name) => (Kind::ClientId, name),
        }
    }

    /// Reads `kind:name`.
    pub fn parse(text: &'a str) -> Result<Resource<'a>, ResourceError> {
        let unknown = || ResourceError::Kind(text.to_owned());
        let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
        if name.is_empty() {
            return Err(PatternError::Empty.into());
        }
        Ok(match kind {
            "topic" => Resource::Topic(name),
            "stream" => Resource::Stream(name),
            "group" => Resource::Group(name),
            "queue" => Resource::Queue(name),
            "exchange" => Resource::Exchange(name),
            "client-id" => Resource::ClientId(name),
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.parts();
        write!(f, "{}:{name}", kind.name())
    }
}

/// The resources of a rule: `topic:FILTER`, `stream:NAME`, `group:NAME`, `queue:NAME`, `exchange:NAME`, `client-id:NAME`, or `*` for everything. A
/// NAME may end with `*`, which stands for any end; `%u` and `%c` in it are the user and the client id, and without that name it is about nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourcePattern {
    Everything,
    Topic(TopicPattern),
    Named(Kind, Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    #[error(
        "{0:?} is no resource: expected topic:FILTER, stream:NAME, group:NAME, queue:NAME, exchange:NAME, client-id:NAME (a NAME may end with *), or * for everything"
    )]
    Kind(String),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("{0:?}: a * may stand at the end of a name only")]
    Star(String),
}

impl ResourcePattern {
    /// Does it have everything that `asked` names?
    pub fn covers(&self, asked: Resource<'_>, who: &Subject<'_>) -> bool {
        match (self, asked) {
            (ResourcePattern::Everything, _) => true,
            (ResourcePattern::Topic(pattern), Resource::Topic(filter)) => {
                pattern.covers(filter, who)
            }
            (ResourcePattern::Named(kind, pattern), asked) if *kind == asked.kind() => {
                match pattern.strip_suffix('*') {
                    Some(beginning) => rest_after_filled(beginning, asked.name(), who).is_some(),
                    None => filled_is(pattern, asked.name(), who),
                }
            }
            _ => false,
        }
    }

    /// Does it have anything of what `asked` names? The same as `covers`, except for filters of topics.
    pub fn overlaps(&self, asked: Resource<'_>, who: &Subject<'_>) -> bool {
        match (self, asked) {
            (ResourcePattern::Topic(pattern), Resource::Topic(filter)) => {
                pattern.overlaps(filter, who)
            }
            _ => self.covers(asked, who),
        }
    }
}

impl FromStr for ResourcePattern {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<ResourcePattern, ResourceError> {
        if text == "*" {
            return Ok(ResourcePattern::Everything);
        }
        let resource = Resource::parse(text)?;
        match resource {
            Resource::Topic(filter) => Ok(ResourcePattern::Topic(TopicPattern::new(filter)?)),
            named => {
                let name = named.name();
                if name.strip_suffix('*').unwrap_or(name).contains('*') {
                    return Err(ResourceError::Star(text.to_owned()));
                }
                Ok(ResourcePattern::Named(named.kind(), name.into()))
            }
        }
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourcePattern::Everything => f.write_str("*"),
            ResourcePattern::Topic(pattern) => write!(f, "topic:{}", pattern.as_str()),
            ResourcePattern::Named(kind, name) => write!(f, "{}:{name}", kind.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_what_they_name() {
        let who = Subject {
            user: Some("ann"),
            client: "c1",
            ..Subject::default()
        };
        for (pattern, resource, expected) in [
            ("*", "queue:q", true),
            ("stream:orders", "stream:orders", true),
            ("stream:orders", "stream:orders2", false),
            ("stream:orders", "queue:orders", false),
            ("stream:orders*", "stream:orders2", true),
            ("stream:*", "stream:x", true),
            ("group:%u-*", "group:ann-1", true),
            ("group:%u-*", "group:bob-1", false),
            ("queue:%c", "queue:c1", true),
            ("exchange:amq.topic", "exchange:amq.topic", true),
            ("client-id:%u-*", "client-id:ann-1", true),
            ("client-id:%u-*", "client-id:bob-1", false),
            ("topic:a/+", "topic:a/b", true),
            ("topic:a/+", "stream:a", false),
        ] {
            let read: ResourcePattern = pattern.parse().expect(pattern);
            assert_eq!(read.to_string(), pattern);
            let resource = Resource::parse(resource).expect(resource);
            assert_eq!(
                read.covers(resource, &who),
                expected,
                "{pattern} {resource}"
            );
        }
        // Filled in with nothing these would have everything of everybody.
        for (pattern, resource) in [
            ("group:%c*", Resource::Group("x")),
            ("group:%u*", Resource::Group("x")),
            ("queue:a%c", Resource::Queue("a")),
            ("client-id:%u-*", Resource::ClientId("-1")),
        ] {
            let read: ResourcePattern = pattern.parse().expect(pattern);
            for user in [None, Some("")] {
                let nobody = Subject {
                    user,
                    ..Subject::default()
                };
                assert!(!read.covers(resource, &nobody), "{pattern} {resource}");
            }
        }
        for wrong in [
            "",
            "orders",
            "table:x",
            "stream:",
            "stream:a*b",
            "topic:a/#/b",
            "**",
        ] {
            assert!(wrong.parse::<ResourcePattern>().is_err(), "{wrong}");
        }
    }
}
