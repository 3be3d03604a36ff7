//! Reductions: what is left out, and what is sent in its place. No clock, no store: messages come in with the place and the time that
//! the local log gave them, and what is to be forwarded comes out.
//!
//! The state is one entry a topic, at most `limits::REDUCED_TOPICS`. Where there are more, the topic that was silent longest ends its
//! window or interval early, so that nothing is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use mqtt_broker::backend::Message;
use mqtt_codec::{QoS, TopicName};
use serde::{Deserialize, Serialize};

use super::reading::{self, Reading};
use super::{DeadBand, Forward, Reduction, Rules};
use crate::limits;

/// A message to be forwarded under the rules for its topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    pub message: Message,
    /// Of the record, milliseconds since 1970.
    pub time: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Last {
    Number(f64),
    /// Of anything else: a digest.
    Other(u64),
}

/// Count, extremes and sum of the readings of one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Window {
    start: i64,
    count: u64,
    ignored: u64,
    /// These four mean nothing while `count` is 0.
    min: f64,
    max: f64,
    sum: f64,
    last: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    OnChange(Last),
    Every {
        sent: i64,
        /// The newest message since then, and its place in the local log.
        waiting: Option<(u64, i64, Message)>,
    },
    Window(Window),
}

#[derive(Debug, Clone)]
struct Entry {
    state: State,
    touched: u64,
    due: Option<i64>,
}

/// How a topic's state is kept over a restart. A waiting message is its place in the local log.
#[derive(Serialize, Deserialize)]
enum Saved {
    OnChange(Last),
    Every { sent: i64, waiting: Option<u64> },
    Window(Window),
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    topics: Vec<(String, Saved)>,
}

const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
#[error("the state of the reductions can not be read: {0}")]
pub struct RestoreError(String);

pub struct Reducer {
    rules: Arc<Rules>,
    topics: HashMap<TopicName, Entry>,
    by_touch: BTreeMap<u64, TopicName>,
    by_due: BTreeSet<(i64, TopicName)>,
    touches: u64,
    waiting_bytes: usize,
}

/// What a window tells: the value of the record that is sent for it. `docs/reference/edge-rules.md` documents it.
#[derive(Serialize)]
struct Report<'a> {
    topic: &'a str,
    start: i64,
    end: i64,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<f64>,
    ignored: u64,
}

impl Window {
    fn new(start: i64) -> Window {
        Window {
            start,
            count: 0,
            ignored: 0,
            min: 0.0,
            max: 0.0,
            sum: 0.0,
            last: 0.0,
        }
    }

    fn add(&mut self, reading: &Reading) {
        match reading {
            Reading::Number(number) => {
                let first = self.count == 0;
                self.count += 1;
                self.min = if first {
                    *number
                } else {
                    self.min.min(*number)
                };
                self.max = if first {
                    *number
                } else {
                    self.max.max(*number)
                };
                // Never infinite: JSON could not keep it.
                self.sum = (self.sum + number).clamp(f64::MIN, f64::MAX);
                self.last = *number;
            }
            _ => self.ignored += 1,
        }
    }

    fn output(&self, topic: &TopicName, length: i64) -> Output {
        let some = |number: f64| (self.count > 0 && number.is_finite()).then_some(number);
        let end = self.start.saturating_add(length);
        let report = Report {
            topic: topic.as_str(),
            start: self.start,
            end,
            count: self.count,
            min: some(self.min),
            max: some(self.max),
            mean: some(self.sum / self.count as f64),
            last: some(self.last),
            ignored: self.ignored,
        };
        let mut message = bare(topic);
        // Numbers and texts: there is nothing in it that JSON could not say.
        message.payload = serde_json::to_vec(&report).unwrap_or_default().into();
        message.properties.content_type = Some("application/json".to_owned());
        Output { message, time: end }
    }
}

fn bare(topic: &TopicName) -> Message {
    Message {
        topic: topic.clone(),
        payload: Bytes::new(),
        qos: QoS::AtLeastOnce,
        retain: false,
        expires_at: None,
        origin: None,
        number: None,
        properties: Default::default(),
    }
}

impl DeadBand {
    fn lets_pass(self, last: Last, now: Last) -> bool {
        let (Last::Number(last), Last::Number(now)) = (last, now) else {
            return last != now;
        };
        let change = (now - last).abs();
        match self {
            DeadBand::Any => now != last,
            DeadBand::Absolute(band) => change > band,
            DeadBand::Percent(percent) => change > last.abs() * percent / 100.0,
        }
    }
}

fn digest(bytes: &[u8]) -> Last {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Last::Other(hasher.finish())
}

fn last_of(reading: Reading, payload: &[u8]) -> Last {
    match reading {
        Reading::Number(number) => Last::Number(number),
        Reading::Other(text) => digest(text.as_bytes()),
        Reading::None => digest(payload),
    }
}

impl Reducer {
    pub fn new(rules: Arc<Rules>) -> Reducer {
        Reducer {
            rules,
            topics: HashMap::new(),
            by_touch: BTreeMap::new(),
            by_due: BTreeSet::new(),
            touches: 0,
            waiting_bytes: 0,
        }
    }

    /// The next message of the local log, `time` its record's.
    pub fn offer(&mut self, at: u64, message: &Message, time: i64, out: &mut Vec<Output>) {
        let rules = self.rules.clone();
        let Some((reduction, field)) = rules
            .forward(&message.topic)
            .and_then(|forward| forward.reduction.as_ref())
        else {
            return;
        };
        let pass = || Output {
            message: message.clone(),
            time,
        };
        // It clears the retained message, and is no reading.
        if message.payload.is_empty() && message.retain {
            out.push(pass());
            return;
        }
        let mut state = self.take(&message.topic);
        let read = || reading::read(&message.payload, field.as_ref());
        let state = match reduction {
            Reduction::OnChange(band) => {
                let now = last_of(read(), &message.payload);
                match state.take() {
                    Some(State::OnChange(last)) if !band.lets_pass(last, now) => {
                        State::OnChange(last)
                    }
                    other => {
                        self.end(&message.topic, other, out);
                        out.push(pass());
                        State::OnChange(now)
                    }
                }
            }
            Reduction::Every(interval) => match state.take() {
                Some(State::Every { sent, .. })
                    if (0..*interval).contains(&time.saturating_sub(sent)) =>
                {
                    let payload = Bytes::copy_from_slice(&message.payload);
                    let message = Message {
                        payload,
                        ..message.clone()
                    };
                    State::Every {
                        sent,
                        waiting: Some((at, time, message)),
                    }
                }
                other => {
                    // What waited is older than this one, which takes its place.
                    if !matches!(other, Some(State::Every { .. })) {
                        self.end(&message.topic, other, out);
                    }
                    out.push(pass());
                    State::Every {
                        sent: time,
                        waiting: None,
                    }
                }
            },
            Reduction::Window(length) => {
                let start = time.div_euclid(*length) * length;
                let mut window = match state.take() {
                    Some(State::Window(window)) if window.start == start => window,
                    other => {
                        self.end(&message.topic, other, out);
                        Window::new(start)
                    }
                };
                window.add(&read());
                State::Window(window)
            }
        };
        self.put(message.topic.clone(), state, out);
    }

    /// All times until now were off by so many milliseconds.
    pub fn shift(&mut self, add: i64) {
        if add == 0 {
            return;
        }
        self.by_due.clear();
        for (topic, entry) in &mut self.topics {
            match &mut entry.state {
                State::OnChange(_) => {}
                State::Every { sent, waiting } => {
                    *sent = sent.saturating_add(add);
                    if let Some((_, time, message)) = waiting {
                        *time = time.saturating_add(add);
                        let expires = message.expires_at.take();
                        message.expires_at = expires.map(|at| at.later(add));
                    }
                }
                State::Window(window) => window.start = window.start.saturating_add(add),
            }
            if let Some(due) = &mut entry.due {
                *due = due.saturating_add(add);
                self.by_due.insert((*due, topic.clone()));
            }
        }
    }

    /// Ends the windows and intervals whose time is over.
    pub fn due(&mut self, now: i64, out: &mut Vec<Output>) {
        while let Some((at, topic)) = self.by_due.first().cloned() {
            if at > now {
                return;
            }
            let state = self.take(&topic);
            let sent_waiting = matches!(&state, Some(State::Every { .. }));
            self.end(&topic, state, out);
            if sent_waiting {
                let state = State::Every {
                    sent: at,
                    waiting: None,
                };
                self.put(topic, state, out);
            }
        }
    }

    /// When [`Reducer::due`] has something to do.
    pub fn next_due(&self) -> Option<i64> {
        self.by_due.first().map(|(at, _)| *at)
    }

    /// The oldest place in the local log that is still needed.
    pub fn oldest_waiting(&self) -> Option<u64> {
        let waiting = self.topics.values().filter_map(|entry| match &entry.state {
            State::Every {
                waiting: Some((at, ..)),
                ..
            } => Some(*at),
            _ => None,
        });
        waiting.min()
    }

    /// What is to be sent for a state that ends here.
    fn end(&self, topic: &TopicName, state: Option<State>, out: &mut Vec<Output>) {
        match state {
            Some(State::Every {
                waiting: Some((_, time, message)),
                ..
            }) => out.push(Output { message, time }),
            Some(State::Window(window)) => {
                let length = match self.rules.forward(topic).and_then(Forward::reduction) {
                    Some(Reduction::Window(length)) => *length,
                    // The rule was another one when the window began.
                    _ => 0,
                };
                out.push(window.output(topic, length));
            }
            _ => {}
        }
    }

    fn take(&mut self, topic: &TopicName) -> Option<State> {
        let entry = self.topics.remove(topic)?;
        self.by_touch.remove(&entry.touched);
        if let Some(due) = entry.due {
            self.by_due.remove(&(due, topic.clone()));
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(cost(&entry.state));
        Some(entry.state)
    }

    fn put(&mut self, topic: TopicName, state: State, out: &mut Vec<Output>) {
        let reduction = self.rules.forward(&topic).and_then(Forward::reduction);
        let due = match (&state, reduction) {
            (
                State::Every {
                    sent,
                    waiting: Some(_),
                },
                Some(Reduction::Every(interval)),
            ) => Some(sent.saturating_add(*interval)),
            (State::Window(window), Some(Reduction::Window(length))) => {
                Some(window.start.saturating_add(*length))
            }
            // It was begun under another rule: over at once.
            (
                State::Every {
                    waiting: Some(_), ..
                }
                | State::Window(_),
                _,
            ) => Some(i64::MIN),
            _ => None,
        };
        self.waiting_bytes += cost(&state);
        self.touches += 1;
        let touched = self.touches;
        self.by_touch.insert(touched, topic.clone());
        if let Some(due) = due {
            self.by_due.insert((due, topic.clone()));
        }
        self.topics.insert(
            topic,
            Entry {
                state,
                touched,
                due,
            },
        );
        while self.topics.len() > limits::REDUCED_TOPICS
            || self.waiting_bytes > limits::REDUCED_WAITING_BYTES
        {
            let Some((_, oldest)) = self.by_touch.pop_first() else {
                return;
            };
            let state = self.take(&oldest);
            self.end(&oldest, state, out);
        }
    }

    #[cfg(test)]
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.clone()
    }

    pub fn snapshot(&self) -> Vec<u8> {
        let topics = self.topics.iter().map(|(topic, entry)| {
            let saved = match &entry.state {
                State::OnChange(last) => Saved::OnChange(*last),
                State::Every { sent, waiting } => Saved::Every {
                    sent: *sent,
                    waiting: waiting.as_ref().map(|(at, ..)| *at),
                },
                State::Window(window) => Saved::Window(*window),
            };
            (topic.as_str().to_owned(), saved)
        });
        let snapshot = Snapshot {
            version: VERSION,
            topics: topics.collect(),
        };
        // Texts and finite numbers: there is nothing in it that JSON could not say.
        serde_json::to_vec(&snapshot).unwrap_or_default()
    }

    /// The state of an earlier process. Gives the places in the local log whose messages wait: each is to be given to
    /// [`Reducer::supply`].
    pub fn restore(rules: Arc<Rules>, bytes: &[u8]) -> Result<(Reducer, Vec<u64>), RestoreError> {
        let wrong = |what: String| RestoreError(what);
        let snapshot: Snapshot =
            serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if snapshot.version != VERSION {
            return Err(wrong(format!("version {}", snapshot.version)));
        }
        let mut reducer = Reducer::new(rules);
        let mut places = Vec::new();
        // Nothing can be over the limits: they were kept when it was written, or it is cut here.
        for (topic, saved) in snapshot.topics.into_iter().take(limits::REDUCED_TOPICS) {
            let topic = TopicName::new(&topic).map_err(|error| wrong(error.to_string()))?;
            let state = match saved {
                Saved::OnChange(last) => State::OnChange(last),
                Saved::Window(window) => State::Window(window),
                Saved::Every { sent, waiting } => {
                    places.extend(waiting);
                    State::Every {
                        sent,
                        waiting: None,
                    }
                }
            };
            reducer.put(topic, state, &mut Vec::new());
        }
        Ok((reducer, places))
    }

    /// A message that waited before the restart.
    pub fn supply(&mut self, at: u64, message: &Message, time: i64, out: &mut Vec<Output>) {
        if let Some(State::Every { sent, .. }) = self.take(&message.topic) {
            let state = State::Every {
                sent,
                waiting: Some((at, time, message.clone())),
            };
            self.put(message.topic.clone(), state, out);
        }
    }
}

/// What a state keeps beside its fixed size, in bytes.
fn cost(state: &State) -> usize {
    match state {
        State::Every {
            waiting: Some((_, _, message)),
            ..
        } => message.payload.len(),
        _ => 0,
    }
}
