//! Topics made from topics: `{topic}`, `{1}` to `{9}`, `{rest}`, `{edge}` and plain text.

use std::fmt::Write;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    /// Counted from 1.
    Level(usize),
    /// The levels behind the highest one that the template names.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// The highest level that is named.
    named: usize,
}

impl Template {
    /// `edge` takes the place of `{edge}` here already: it is the same for every topic.
    pub fn new(text: &str, edge: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(open);
            push_text(&mut parts, before);
            let close = from.find('}').filter(|_| from.starts_with('{'));
            let close = close.ok_or("a { without its }, or the other way round")?;
            match from.get(1..close).unwrap_or_default() {
                "topic" => parts.push(Part::Topic),
                "rest" => parts.push(Part::Rest),
                "edge" => push_text(&mut parts, edge),
                other => match other.parse() {
                    Ok(level @ 1..=9) => parts.push(Part::Level(level)),
                    _ => {
                        return Err(format!(
                            "{{{other}}} is not known: there are {{topic}}, {{1}} to {{9}}, {{rest}} and {{edge}}"
                        ));
                    }
                },
            }
            rest = from.get(close + 1..).unwrap_or_default();
        }
        push_text(&mut parts, rest);
        if parts.is_empty() {
            return Err("it is empty".to_owned());
        }
        let text_of =
            |part: &Part| matches!(part, Part::Text(text) if text.contains(['+', '#', '\0']));
        if parts.iter().any(text_of) {
            return Err("a topic has no +, # or null character".to_owned());
        }
        let levels = parts.iter().map(|part| match part {
            Part::Level(level) => *level,
            _ => 0,
        });
        let named = levels.max().unwrap_or(0);
        Ok(Template { parts, named })
    }

    /// A level that the topic does not have is empty. An empty `{rest}` takes the slash before it along.
    pub fn render(&self, topic: &str) -> String {
        let mut out = String::with_capacity(topic.len() + 32);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Topic => out.push_str(topic),
                Part::Level(level) => {
                    out.push_str(topic.split('/').nth(level - 1).unwrap_or_default());
                }
                Part::Rest => {
                    let mut levels = topic.split('/').skip(self.named);
                    match levels.next() {
                        None => {
                            if out.ends_with('/') {
                                out.pop();
                            }
                        }
                        Some(first) => {
                            out.push_str(first);
                            for level in levels {
                                // Writing to a string does not fail.
                                let _ = write!(out, "/{level}");
                            }
                        }
                    }
                }
            }
        }
        out
    }
}

/// Text beside text becomes one part.
fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_from_topics() {
        for (template, topic, expected) in [
            ("{topic}", "sensors/line1/temp", "sensors/line1/temp"),
            (
                "{1}/{edge}/{rest}",
                "sensors/line1/temp",
                "sensors/gw-7/line1/temp",
            ),
            ("{1}/{edge}/{rest}", "sensors", "sensors/gw-7"),
            ("plant/{edge}/{topic}", "a/b", "plant/gw-7/a/b"),
            ("alarms/{2}/{3}", "x/door/open/now", "alarms/door/open"),
            ("{2}-{1}", "a/b", "b-a"),
            ("{2}/x", "a", "/x"),
            ("{rest}", "a/b", "a/b"),
            ("fixed", "a/b", "fixed"),
            ("{1}/{rest}", "/a", "/a"),
            ("{1}/{rest}", "a/", "a/"),
        ] {
            let made = Template::new(template, "gw-7").unwrap();
            assert_eq!(made.render(topic), expected, "{template} of {topic}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (template, expected) in [
            ("{device}/x", "{device} is not known"),
            ("{0}", "{0} is not known"),
            ("{10}", "{10} is not known"),
            ("{1", "without its }"),
            ("1}", "without its }"),
            ("", "empty"),
            ("a/+", "a topic has no +"),
        ] {
            let error = Template::new(template, "gw-7").unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
        assert!(
            Template::new("{edge}", "#").is_err(),
            "the edge's name counts as text"
        );
    }
}
