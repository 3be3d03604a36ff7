//! What becomes of a message that a device publishes: `[[rule]]`. The first rule whose filter matches decides; where none does, the
//! message is forwarded as it is. `docs/reference/edge-rules.md` has examples.

mod reading;
mod reduce;
mod template;

use std::time::Duration;

use mqtt_codec::{TopicFilter, TopicName};
use record::{StreamName, stream_for_topic};
use settings::{Section, SettingsError, Value, choices, settings};

use crate::lanes::Lane;
use crate::limits;
use reading::Field;
pub use reduce::{Output, Reducer};
use template::Template;

choices! {
    /// What of RETAIN goes upstream. On the edge it counts in any case.
    pub enum Retain {
        Keep = "keep",
        Drop = "drop",
    }
}

/// By how much a reading must differ from the last one that was forwarded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DeadBand {
    /// At all.
    Any,
    Absolute(f64),
    Percent(f64),
}

impl Value for DeadBand {
    fn parse(text: &str) -> Result<DeadBand, String> {
        let wrong =
            || "expected `any`, a number like 0.5, or a share of the last value like 2%".to_owned();
        let not_negative = |text: &str| {
            let number = f64::parse(text.trim()).map_err(|_| wrong())?;
            if number < 0.0 {
                Err(wrong())
            } else {
                Ok(number)
            }
        };
        match text.strip_suffix('%') {
            _ if text == "any" => Ok(DeadBand::Any),
            Some(percent) => not_negative(percent).map(DeadBand::Percent),
            None => not_negative(text).map(DeadBand::Absolute),
        }
    }
}

settings! {
    pub struct RuleSettings {
        pub filter: String;
        pub forward: bool = "true";
        pub topic: Option<String>;
        pub stream: Option<String>;
        pub key: Option<String>;
        pub lane: Option<String>;
        pub retain: Retain = "keep";
        pub on_change: Option<DeadBand>;
        pub every: Option<Duration>;
        pub window: Option<Duration>;
        pub field: Option<String>;
    }
}

/// What is left out of what is forwarded.
#[derive(Debug, Clone, PartialEq)]
pub enum Reduction {
    OnChange(DeadBand),
    /// Milliseconds.
    Every(i64),
    /// Milliseconds.
    Window(i64),
}

/// Where a forwarded message goes.
#[derive(Debug, Clone)]
pub struct Forward {
    topic: Option<Template>,
    stream: Option<StreamName>,
    key: Option<Template>,
    /// Index into the lanes of the configuration.
    pub lane: usize,
    pub retain: Retain,
    reduction: Option<(Reduction, Option<Field>)>,
}

#[derive(Debug, Clone)]
struct Rule {
    filter: TopicFilter,
    /// `None`: it stays on the edge.
    forward: Option<Forward>,
}

/// The rules of one edge.
#[derive(Debug, Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    /// What no rule matches.
    otherwise: Forward,
}

/// The stream and the key of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub stream: StreamName,
    pub key: String,
}

impl Forward {
    /// `None`: what the templates make of this topic is no topic.
    pub fn address(&self, topic: &TopicName) -> Option<Address> {
        let upstream = match &self.topic {
            None => topic.as_str().to_owned(),
            Some(template) => template.render(topic.as_str()),
        };
        let stream = match &self.stream {
            Some(stream) => stream.clone(),
            None => stream_for_topic(&upstream),
        };
        let key = match &self.key {
            None => upstream,
            Some(template) => template.render(topic.as_str()),
        };
        TopicName::new(&key).ok()?;
        Some(Address { stream, key })
    }

    /// Does the record of a message lie under its own topic?
    pub fn is_plain(&self) -> bool {
        self.topic.is_none() && self.stream.is_none() && self.key.is_none()
    }

    pub fn is_reduced(&self) -> bool {
        self.reduction.is_some()
    }

    fn reduction(&self) -> Option<&Reduction> {
        self.reduction.as_ref().map(|(reduction, _)| reduction)
    }
}

impl Rules {
    pub fn new(
        sections: &[Section<RuleSettings>],
        lanes: &[Lane],
        edge: &str,
    ) -> Result<Rules, SettingsError> {
        let mut rules = Vec::new();
        if let Some(section) = sections.get(limits::MAX_RULES) {
            return Err(section.wrong(format!("more than {} rules", limits::MAX_RULES)));
        }
        for section in sections {
            rules.push(rule(section, lanes, edge)?);
        }
        Ok(Rules {
            rules,
            otherwise: Forward {
                topic: None,
                stream: None,
                key: None,
                lane: 0,
                retain: Retain::Keep,
                reduction: None,
            },
        })
    }

    /// `None`: the message stays on the edge.
    pub fn forward(&self, topic: &TopicName) -> Option<&Forward> {
        match self.rules.iter().find(|rule| rule.filter.matches(topic)) {
            Some(rule) => rule.forward.as_ref(),
            None => Some(&self.otherwise),
        }
    }

    /// Is there anything that only local readers get?
    pub fn need_local(&self) -> bool {
        let stays = |rule: &Rule| rule.forward.as_ref().is_none_or(Forward::is_reduced);
        self.rules.iter().any(stays)
    }

    pub fn reduce(&self) -> bool {
        let mut forwards = self.rules.iter().filter_map(|rule| rule.forward.as_ref());
        forwards.any(Forward::is_reduced)
    }
}

fn rule(
    section: &Section<RuleSettings>,
    lanes: &[Lane],
    edge: &str,
) -> Result<Rule, SettingsError> {
    let set = &section.settings;
    let filter = TopicFilter::new(&set.filter)
        .map_err(|error| section.wrong_key("filter", error.to_string()))?;
    if filter.is_shared() {
        return Err(section.wrong_key("filter", "a shared subscription is no filter of a rule"));
    }
    if !set.forward {
        let others = [
            "topic",
            "stream",
            "key",
            "lane",
            "retain",
            "on-change",
            "every",
            "window",
            "field",
        ];
        if let Some(key) = others.into_iter().find(|key| section.has(key)) {
            return Err(section.wrong_key(
                key,
                "what is not forwarded (`forward = false`) has none of this",
            ));
        }
        let forward = None;
        return Ok(Rule { filter, forward });
    }
    let template = |key: &str, text: &Option<String>| {
        let template = text.as_deref().map(|text| Template::new(text, edge));
        template
            .transpose()
            .map_err(|reason| section.wrong_key(key, reason))
    };
    let stream = set.stream.as_deref().map(StreamName::new).transpose();
    let lane = match &set.lane {
        None => 0,
        Some(name) => {
            let found = lanes.iter().position(|lane| lane.name == *name);
            found.ok_or_else(|| {
                let names: Vec<&str> = lanes.iter().map(|lane| lane.name.as_str()).collect();
                section.wrong_key(
                    "lane",
                    format!("there is no such lane, but {}", names.join(", ")),
                )
            })?
        }
    };
    Ok(Rule {
        forward: Some(Forward {
            topic: template("topic", &set.topic)?,
            stream: stream.map_err(|error| section.wrong_key("stream", error.to_string()))?,
            key: template("key", &set.key)?,
            lane,
            retain: set.retain,
            reduction: reduction(section)?,
        }),
        filter,
    })
}

fn reduction(
    section: &Section<RuleSettings>,
) -> Result<Option<(Reduction, Option<Field>)>, SettingsError> {
    let set = &section.settings;
    let milliseconds = |key: &str, time: Duration| {
        if (limits::MIN_INTERVAL..=limits::MAX_INTERVAL).contains(&time) {
            Ok(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
        } else {
            Err(section.wrong_key(key, "expected 100ms to 7d"))
        }
    };
    let mut found = Vec::new();
    if let Some(band) = set.on_change {
        found.push(Reduction::OnChange(band));
    }
    if let Some(time) = set.every {
        found.push(Reduction::Every(milliseconds("every", time)?));
    }
    if let Some(time) = set.window {
        found.push(Reduction::Window(milliseconds("window", time)?));
    }
    let field = set.field.as_deref().map(Field::new).transpose();
    let field = field.map_err(|reason| section.wrong_key("field", reason))?;
    match (found.pop(), found.is_empty()) {
        (Some(_), false) => {
            Err(section.wrong("only one of `on-change`, `every` and `window` in a rule"))
        }
        (Some(Reduction::Every(_)), _) if field.is_some() => {
            Err(section.wrong_key("field", "`every` does not look into messages"))
        }
        (None, _) if field.is_some() => {
            Err(section.wrong_key("field", "it is for `on-change` and `window`"))
        }
        (reduction, _) => Ok(reduction.map(|reduction| (reduction, field))),
    }
}

#[cfg(test)]
mod tests;
