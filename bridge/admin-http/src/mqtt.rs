//! The MQTT broker, whatever its backend: who is connected, with what; ending and banning.

use std::sync::Arc;
use std::time::Duration;

use admin_api::{
    MQTT_RETAINED_SHOWN, MqttBan, MqttBans, MqttClient, MqttClients, MqttRetained,
    MqttRetainedMessages, MqttSession, MqttSessions, MqttSlowSubscriber, MqttSlowSubscribers,
    MqttSubscription, MqttSubscriptions, paths,
};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use axum::{Json, Router};
use mqtt_broker::backend::{Backend, ClientId, StorageError};
use mqtt_broker::extra::{Ban, BanKey};
use mqtt_broker::{Broker, ConnectedClient, SubscriptionInfo};
use mqtt_codec::{TopicFilter, Version};
use serde::Deserialize;

use crate::Refusal;

/// Bytes of a retained payload that are shown.
const SHOWN_PAYLOAD: usize = 120;
/// Retained messages that are shown where nothing is asked for, and at most.
const SHOWN_RETAINED: (usize, usize) = (100, MQTT_RETAINED_SHOWN);

/// Where the broker is, once it serves.
struct Served<B>(Arc<dyn Fn() -> Option<Arc<Broker<B>>> + Send + Sync>);

impl<B> Clone for Served<B> {
    fn clone(&self) -> Served<B> {
        Served(self.0.clone())
    }
}

/// All of `/v1/mqtt`. `broker` says where it is; `None`: it is not served, or not yet.
pub fn routes<B: Backend, S: Clone + Send + Sync + 'static>(
    broker: impl Fn() -> Option<Arc<Broker<B>>> + Send + Sync + 'static,
) -> Router<S> {
    let client = format!("{}/{{id}}", paths::MQTT_CLIENTS);
    let of_client = format!("{client}/subscriptions");
    let session = format!("{}/{{id}}", paths::MQTT_SESSIONS);
    Router::new()
        .route(paths::MQTT_CLIENTS, get(clients::<B>))
        .route(&client, get(one_client::<B>).delete(kick::<B>))
        .route(
            &of_client,
            get(subscriptions_of::<B>).delete(unsubscribe::<B>),
        )
        .route(paths::MQTT_SUBSCRIPTIONS, get(subscriptions::<B>))
        .route(paths::MQTT_SESSIONS, get(sessions::<B>))
        .route(&session, delete(end_session::<B>))
        .route(paths::MQTT_RETAINED, get(retained::<B>))
        .route(paths::MQTT_SLOW, get(slow::<B>))
        .route(
            paths::MQTT_BANS,
            get(bans::<B>).post(ban::<B>).delete(lift::<B>),
        )
        .with_state(Served(Arc::new(broker)))
}

fn broker<B>(served: &Served<B>) -> Result<Arc<Broker<B>>, Refusal> {
    (served.0)().ok_or_else(|| {
        Refusal::unavailable(
            "MQTT is not served",
            "its listeners are off, or it is still starting",
        )
    })
}

fn no_client(id: &str) -> Refusal {
    Refusal::not_found(
        format!("no MQTT client {id:?} is connected"),
        "`towline mqtt clients` lists those that are, `towline mqtt sessions` those that have a session",
    )
}

fn unreadable(error: StorageError) -> Refusal {
    Refusal::unavailable(error.to_string(), "try again; the log on stderr says more")
}

fn filter(text: &str) -> Result<TopicFilter, Refusal> {
    TopicFilter::new(text)
        .map_err(|error| Refusal::invalid(format!("{text:?} is no topic filter: {error}"), ""))
}

fn client(info: ConnectedClient) -> MqttClient {
    let version = match info.version {
        Version::V5 => "5",
        _ => "3.1.1",
    };
    MqttClient {
        client: info.client.to_string(),
        user: info.user.map(|user| user.to_string()),
        address: info.address.map(|address| address.to_string()),
        version: version.to_owned(),
        connected_ms: info.connected_ms,
        session_expiry_seconds: Some(info.expiry_interval).filter(|time| *time != u32::MAX),
        subscriptions: info.subscriptions + info.shared_subscriptions,
        in_flight: info.in_flight,
    }
}

fn subscription(client: &ClientId, info: SubscriptionInfo) -> MqttSubscription {
    let prefix = if info.exclusive { "$exclusive/" } else { "" };
    MqttSubscription {
        client: client.to_string(),
        filter: format!("{prefix}{}", info.filter),
        qos: info.options.qos as u8,
        no_local: info.options.no_local,
        retain_as_published: info.options.retain_as_published,
        identifier: info.identifier,
    }
}

async fn clients<B: Backend>(
    State(served): State<Served<B>>,
) -> Result<Json<MqttClients>, Refusal> {
    let clients = broker(&served)?.clients().into_iter().map(client);
    Ok(Json(MqttClients {
        clients: clients.collect(),
    }))
}

async fn one_client<B: Backend>(
    State(served): State<Served<B>>,
    Path(id): Path<String>,
) -> Result<Json<MqttClient>, Refusal> {
    let info = broker(&served)?.client(&ClientId::new(&id));
    info.map(|info| Json(client(info)))
        .ok_or_else(|| no_client(&id))
}

async fn kick<B: Backend>(
    State(served): State<Served<B>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    if broker(&served)?.kick(&ClientId::new(&id)) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_client(&id))
    }
}

async fn subscriptions_of<B: Backend>(
    State(served): State<Served<B>>,
    Path(id): Path<String>,
) -> Result<Json<MqttSubscriptions>, Refusal> {
    let client = ClientId::new(&id);
    let found = broker(&served)?.subscriptions_of(&client).await;
    let found = found.map_err(unreadable)?.ok_or_else(|| no_client(&id))?;
    let subscriptions = found.into_iter().map(|info| subscription(&client, info));
    Ok(Json(MqttSubscriptions {
        subscriptions: subscriptions.collect(),
    }))
}

#[derive(Deserialize)]
struct Filter {
    filter: String,
}

async fn unsubscribe<B: Backend>(
    State(served): State<Served<B>>,
    Path(id): Path<String>,
    query: Result<Query<Filter>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let Query(Filter { filter: text }) = query?;
    let text = text.strip_prefix("$exclusive/").unwrap_or(&text);
    let filter = filter(text)?;
    let broker = broker(&served)?;
    let done = broker.unsubscribe(&ClientId::new(&id), &filter).await;
    match done.map_err(unreadable)? {
        Some(true) => Ok(StatusCode::NO_CONTENT),
        Some(false) => Err(Refusal::not_found(
            format!("client {id:?} has no subscription {text:?}"),
            format!("`towline mqtt subscriptions {id}` lists them"),
        )),
        None => Err(no_client(&id)),
    }
}

async fn subscriptions<B: Backend>(
    State(served): State<Served<B>>,
) -> Result<Json<MqttSubscriptions>, Refusal> {
    let broker = broker(&served)?;
    let mut all = Vec::new();
    let connected = broker.subscriptions_of_connected().await;
    for (client, of_client) in connected.map_err(unreadable)? {
        let of_client = of_client.into_iter();
        all.extend(of_client.map(|info| subscription(&client, info)));
    }
    for session in broker.sessions().await.map_err(unreadable)? {
        if !session.connected {
            let of_session = session.subscriptions.into_iter();
            all.extend(of_session.map(|info| subscription(&session.client, info)));
        }
    }
    Ok(Json(MqttSubscriptions { subscriptions: all }))
}

async fn sessions<B: Backend>(
    State(served): State<Served<B>>,
) -> Result<Json<MqttSessions>, Refusal> {
    let sessions = broker(&served)?.sessions().await.map_err(unreadable)?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let sessions = sessions.into_iter().map(|session| MqttSession {
        client: session.client.to_string(),
        connected: session.connected,
        disconnected_ms: session.disconnected_ms,
        expiry_seconds: Some(session.expiry_interval).filter(|time| *time != u32::MAX),
        subscriptions: count(session.subscriptions.len()),
        in_flight: count(session.in_flight),
        will_pending: session.will_pending,
    });
    Ok(Json(MqttSessions {
        sessions: sessions.collect(),
    }))
}

async fn end_session<B: Backend>(
    State(served): State<Served<B>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let ended = broker(&served)?.delete_session(&ClientId::new(&id)).await;
    if ended.map_err(unreadable)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::not_found(
            format!("there is no MQTT session of client {id:?}"),
            "`towline mqtt sessions` lists them",
        ))
    }
}

#[derive(Deserialize)]
struct Retained {
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

async fn retained<B: Backend>(
    State(served): State<Served<B>>,
    query: Result<Query<Retained>, QueryRejection>,
) -> Result<Json<MqttRetainedMessages>, Refusal> {
    let Query(Retained {
        filter: text,
        limit,
    }) = query?;
    let filter = filter(text.as_deref().unwrap_or("#"))?;
    let found = broker(&served)?
        .retained(&filter)
        .await
        .map_err(unreadable)?;
    let limit = limit.unwrap_or(SHOWN_RETAINED.0).min(SHOWN_RETAINED.1);
    let more = found.len() > limit;
    let messages = found.into_iter().take(limit).map(|message| {
        let payload = &message.payload;
        let shown = payload.get(..SHOWN_PAYLOAD).unwrap_or(payload);
        MqttRetained {
            topic: message.topic.to_string(),
            qos: message.qos as u8,
            bytes: payload.len() as u64,
            payload: String::from_utf8_lossy(shown).into_owned(),
            expires_ms: message.expires_at.as_ref().map(|at| at.at()),
        }
    });
    Ok(Json(MqttRetainedMessages {
        messages: messages.collect(),
        more,
    }))
}

async fn slow<B: Backend>(
    State(served): State<Served<B>>,
) -> Result<Json<MqttSlowSubscribers>, Refusal> {
    let slow = broker(&served)?.slow_subscribers().into_iter();
    let subscribers = slow.map(|slow| MqttSlowSubscriber {
        client: slow.client.to_string(),
        waited_ms: u64::try_from(slow.longest.as_millis()).unwrap_or(u64::MAX),
        last_ms: slow.last_ms,
    });
    Ok(Json(MqttSlowSubscribers {
        subscribers: subscribers.collect(),
    }))
}

async fn bans<B: Backend>(State(served): State<Served<B>>) -> Result<Json<MqttBans>, Refusal> {
    let broker = broker(&served)?;
    let now_ms = broker.backend().now_ms();
    let bans = broker.bans().list().into_iter();
    let bans = bans.map(|(key, ban)| MqttBan {
        who: key.to_string(),
        until_ms: ban.lasts.map(|left| {
            let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
            now_ms.saturating_add(left)
        }),
        for_ms: None,
        reason: ban.reason,
    });
    Ok(Json(MqttBans {
        bans: bans.collect(),
    }))
}

fn key(who: &str) -> Result<BanKey, Refusal> {
    who.parse()
        .map_err(|error: String| Refusal::invalid(error, ""))
}

/// `None`: until it is lifted. It lasts by no clock: that may be set, and on an edge be years off.
fn lasts(request: &MqttBan, now_ms: i64) -> Result<Option<Duration>, Refusal> {
    let left_ms = match (request.for_ms, request.until_ms) {
        (Some(for_ms), _) => for_ms,
        (None, Some(until_ms)) => u64::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(0),
        (None, None) => return Ok(None),
    };
    if left_ms == 0 {
        let hint = "say a time that is yet to come, or none";
        return Err(Refusal::invalid(
            "the ban would be over already, by the clock of this broker",
            hint,
        ));
    }
    Ok(Some(Duration::from_millis(left_ms)))
}

async fn ban<B: Backend>(
    State(served): State<Served<B>>,
    body: Result<Json<MqttBan>, JsonRejection>,
) -> Result<StatusCode, Refusal> {
    let Json(request) = body?;
    let broker = broker(&served)?;
    let ban = Ban {
        lasts: lasts(&request, broker.backend().now_ms())?,
        reason: request.reason,
    };
    if !broker.bans().add(key(&request.who)?, ban) {
        return Err(Refusal::unavailable(
            "there are too many bans",
            "lift some, `towline mqtt bans` lists them",
        ));
    }
    broker.kick_banned();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Who {
    who: String,
}

async fn lift<B: Backend>(
    State(served): State<Served<B>>,
    query: Result<Query<Who>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let Query(Who { who }) = query?;
    if broker(&served)?.bans().lift(&key(&who)?) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::not_found(
            format!("{who} is not banned"),
            "`towline mqtt bans` lists who is",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_lasts_as_long_as_it_is_asked_for() {
        let asked = |for_ms, until_ms| {
            let request = MqttBan {
                for_ms,
                until_ms,
                ..MqttBan::default()
            };
            lasts(&request, 1_000).ok()
        };
        let seconds = |n| Some(Some(Duration::from_secs(n)));
        for (for_ms, until_ms, expected) in [
            (None, None, Some(None)),
            (None, Some(3_000), seconds(2)),
            // Whatever either clock says.
            (Some(5_000), None, seconds(5)),
            (Some(5_000), Some(0), seconds(5)),
            (None, Some(1_000), None),
            (None, Some(i64::MIN), None),
            (Some(0), Some(3_000), None),
        ] {
            assert_eq!(asked(for_ms, until_ms), expected, "{for_ms:?} {until_ms:?}");
        }
    }
}
