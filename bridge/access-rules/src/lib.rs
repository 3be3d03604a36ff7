//! Who may do what: rules in order, the first that fits decides, and where none fits the answer is no.
//!
//! One vocabulary for all protocols, on the edge and in the core. Nothing here knows a protocol, a socket or a table, and no question
//! allocates: rules are asked for every message.

mod pattern;
mod resource;
mod rules;
mod verb;

pub use pattern::{PatternError, TopicPattern};
pub use resource::{Kind, Resource, ResourceError, ResourcePattern};
pub use rules::{Decision, Grant, Rule, Rules, Subject, Who, client_matches};
pub use verb::{UnknownVerb, Verb, Verbs};
