//! The MQTT session and its QoS machine, without sockets, clocks or storage: inputs by `handle_*`,
//! outputs by `poll_*`, time is an argument.

mod close;
mod delivery;
mod feed;
mod gate;
mod handle_connect;
mod handle_disconnect;
mod handle_pingreq;
mod handle_puback;
mod handle_pubcomp;
mod handle_publish;
mod handle_pubrec;
mod handle_pubrel;
mod handle_subscribe;
mod handle_unsubscribe;
mod in_flight;
mod limits;
mod message;
mod message_bytes;
mod origin;
mod outbound;
mod retained;
mod session;
mod shared;
mod shared_message;
mod state_bytes;
mod subscriptions;

pub use close::Close;
pub use delivery::{Delivery, OutgoingPublish};
pub use feed::{FeedId, Position};
pub use gate::Gate;
pub use handle_connect::{Connected, check_connect, check_will};
pub use handle_disconnect::Ended;
pub use handle_publish::PublishAction;
pub use handle_subscribe::Subscribed;
pub use in_flight::Source;
pub use limits::Limits;
pub use message::{ClientId, Expiry, Message, MessageProperties};
pub use outbound::Offer;
pub use session::{PendingWill, Session};
pub use shared::{SharedPlace, SharedSubscription, ToSettle};
pub use shared_message::SharedMessage;
pub use state_bytes::StateError;
pub use subscriptions::{Filters, Match, Subscription, Subscriptions};
