//! What a connection does beside the protocol, and who is not let in.

use crate::access::{Admitted, Peer, Principal};
use crate::backend::{Backend, ClientId, Message, PublishError};
use crate::broker::Broker;
use crate::clients::{Ask, subscriptions};
use crate::connection::{Connection, End, by_administrator};
use crate::extra::{BanKey, Delayed, Redirect, delayed, exclusive};
use crate::limits;
use crate::sys::{Values, is_sys, wants_sys};
use mqtt_codec::{
    ConnAck, Disconnect, Properties, ReasonCode, SubscribeFilter, TopicFilter, TopicName,
};
use mqtt_session::Close;
use std::future::pending;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

/// Every client is told to go elsewhere (section 4.11).
pub(crate) fn redirected(redirect: &Redirect) -> ConnAck {
    let reason_code = if redirect.moved {
        ReasonCode::SERVER_MOVED
    } else {
        ReasonCode::USE_ANOTHER_SERVER
    };
    let properties = Properties {
        server_reference: Some(redirect.server.clone()),
        reason_string: Some(reason_code.text().to_owned()),
        ..Properties::default()
    };
    ConnAck {
        session_present: false,
        reason_code,
        properties,
    }
}

/// The last packet, with what was wrong. What failed in here is no business of a client.
pub(crate) fn goodbye(close: &Close) -> Disconnect {
    debug_assert!(close.reason_code.is_of_disconnect(), "{close}");
    let text = match close.reason_code {
        ReasonCode::SERVER_BUSY => close.reason_code.text().to_owned(),
        _ => close.text.clone(),
    };
    Disconnect {
        reason_code: close.reason_code,
        properties: Properties {
            reason_string: Some(text),
            ..Properties::default()
        },
    }
}

/// Topics on which only the server, or nobody, publishes.
pub(crate) fn is_reserved(topic: &TopicName) -> bool {
    let text = topic.as_str();
    is_sys(topic) || text.starts_with("$share/") || text.starts_with("$exclusive/")
}

/// Where mosquitto's bridges say whether they are connected, which is also their will: `$SYS/broker/connection/{client}/state`. It is of no use to
/// anybody here, and a bridge must not be kept out because of it.
pub(crate) fn is_bridge_state(topic: &TopicName) -> bool {
    let name = topic.as_str().strip_prefix("$SYS/broker/connection/");
    name.is_some_and(|name| name.ends_with("/state"))
}

/// Before anything is checked that costs something.
pub(crate) fn check_newcomer<B: Backend>(
    broker: &Broker<B>,
    client: &ClientId,
    user_name: Option<&str>,
    peer: &Peer,
) -> Result<(), ReasonCode> {
    let said = Admitted::user(user_name.map(Into::into));
    let who = Principal::new(client.clone(), said);
    // First: who is not let in anyhow takes nothing from the others.
    check_banned(broker, &who, peer)?;
    if !broker.connection_rate.admits() {
        return Err(ReasonCode::CONNECTION_RATE_EXCEEDED);
    }
    Ok(())
}

pub(crate) fn check_banned<B: Backend>(
    broker: &Broker<B>,
    who: &Principal,
    peer: &Peer,
) -> Result<(), ReasonCode> {
    let address = peer.address.map(|address| address.ip());
    let mut keys = BanKey::all_of(&who.client, who.user.as_deref(), address);
    if keys.any(|key| broker.bans.is_banned(&key)) {
        return Err(ReasonCode::BANNED);
    }
    Ok(())
}

/// Waits for ever where nobody asked for them.
pub(crate) async fn next_values(sys: &mut Option<watch::Receiver<Values>>) -> Values {
    if let Some(values) = sys
        && values.changed().await.is_ok()
    {
        return values.borrow_and_update().clone();
    }
    pending().await
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Send + 'static> Connection<B, S> {
    /// What is to be done with a message before it is stored: after how many milliseconds it is to be published, if not now; or why not at all.
    pub(crate) fn admit(&mut self, message: &mut Message) -> Result<Option<i64>, PublishError> {
        let rewrites = &self.broker.extra.rewrites;
        if !rewrites.0.is_empty() {
            message.topic = rewrites.topic(message.topic.clone(), &self.principal);
            message.origin = self.session.origin_of(message);
        }
        let mut after_ms = None;
        match delayed(&message.topic) {
            Delayed::No => {}
            Delayed::Invalid => {
                let expected = "expected $delayed/{seconds}/{topic}".to_owned();
                return Err(PublishError::TopicNameInvalid(expected));
            }
            Delayed::By { seconds, topic } => {
                let delay_ms = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
                message.topic = topic;
                message.origin = self.session.origin_of(message);
                // Its life begins when it is published.
                message.expires_at = message.expires_at.take().map(|at| at.later(delay_ms));
                after_ms = Some(delay_ms);
            }
        }
        let access = &self.broker.access;
        if is_reserved(&message.topic) || !access.may_publish(&self.principal, &message.topic) {
            return Err(PublishError::NotAuthorized);
        }
        Ok(after_ms)
    }

    /// The subscriptions that the server makes. What a session that is resumed has already is its own, options and all.
    pub(crate) async fn auto_subscribe(&mut self) -> Result<(), End> {
        let broker = self.broker.clone();
        let made = broker.extra.auto_subscribe.iter();
        let made = made.filter_map(|auto| auto.entry(&self.principal));
        let new: Vec<SubscribeFilter> = made.filter(|entry| !self.has(&entry.filter)).collect();
        let mut with_retained = Vec::new();
        let changes = !new.is_empty();
        for entry in new {
            let filter = entry.filter.clone();
            let subscribed = self.subscribe_one(entry, None).await?;
            if subscribed.reason_code.is_error() {
                let client = self.session.client_id();
                tracing::info!(%client, %filter, code = subscribed.reason_code.0, "a subscription that the server makes was refused");
            }
            with_retained.extend(subscribed.send_retained);
        }
        if changes && self.session.is_persistent() {
            self.save_now().await?;
        }
        self.subscribed(with_retained).await?;
        Ok(())
    }

    /// Is it subscribed to what this filter would become?
    fn has(&self, filter: &TopicFilter) -> bool {
        let filter = self.subscribed_as(filter);
        self.session.is_member(&filter) || self.session.subscriptions().get(&filter).is_some()
    }

    /// What a filter is in the session: rewritten, and without `$exclusive/`.
    pub(crate) fn subscribed_as(&self, filter: &TopicFilter) -> TopicFilter {
        let rewrites = &self.broker.extra.rewrites;
        let filter = rewrites.filter(filter, &self.principal);
        exclusive(&filter).flatten().unwrap_or(filter)
    }

    /// Until when the client is not listened to.
    pub(crate) fn heard_at(&mut self) -> Option<Instant> {
        self.throttle.as_mut()?.until(Instant::now())
    }

    pub(crate) fn throttled_until(&self) -> Option<Instant> {
        self.throttle.as_ref()?.held_until()
    }

    pub(crate) fn throttle_message(&mut self) {
        if let Some(throttle) = &mut self.throttle {
            throttle.message(Instant::now());
        }
    }

    pub(crate) fn throttle_bytes(&mut self, bytes: usize) {
        if let Some(throttle) = &mut self.throttle {
            throttle.read(bytes, Instant::now());
        }
    }

    /// Begins or ends to follow `$SYS`, as the subscriptions say.
    pub(crate) fn follow_sys(&mut self) {
        let mut filters = self.session.subscriptions().iter();
        let wanted = filters.any(|(filter, _)| wants_sys(filter));
        if !wanted {
            self.sys = None;
        } else if self.sys.is_none() {
            self.sys = Some(self.broker.sys.subscribe());
        }
    }

    pub(crate) fn offer_values(&mut self, values: Values) {
        // Its client does not take what it has: these are old when it does, and others come.
        if self.session.deliveries_waiting() >= limits::MAX_HELD_BACK {
            return;
        }
        let now_ms = self.broker.backend.now_ms();
        for value in values.iter() {
            self.session.offer_unstored(value, now_ms);
        }
    }

    /// Does something that was published wait for the client, and nothing of it moves? What the client is answered counts for nothing: who sends
    /// PINGREQ all the time may take nothing else.
    pub(crate) fn note_waiting(&self, waits: bool, moved: bool) {
        let waited = self.place.note_waiting(waits, moved);
        if let Some(waited) = waited
            && waited >= self.broker.extra.slow_after
        {
            let now_ms = self.broker.backend.now_ms();
            let client = self.session.client_id();
            self.broker.slow.note(client, waited, now_ms);
        }
    }

    pub(crate) async fn answer(&mut self, asks: Vec<Ask>) -> Result<(), End> {
        for ask in asks {
            // Who asked may have gone: then nobody needs the answer.
            match ask {
                Ask::Kick => return Err(by_administrator().into()),
                Ask::Subscriptions(answer) => drop(answer.send(subscriptions(&self.session))),
                Ask::Unsubscribe(filter, answer) => {
                    let codes = self.unsubscribe_from(std::slice::from_ref(&filter)).await?;
                    let was_there = codes.first() == Some(&ReasonCode::SUCCESS);
                    let _ = answer.send(was_there);
                }
            }
        }
        Ok(())
    }
}
