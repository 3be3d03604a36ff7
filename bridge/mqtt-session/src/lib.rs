//! The MQTT session and its QoS machine, without sockets, clocks or storage: inputs by `handle_*`,
//! outputs by `poll_*`, time is an argument.

mod feed;
mod message;

pub use feed::{FeedId, Position};
pub use message::{ClientId, Message, MessageProperties};
