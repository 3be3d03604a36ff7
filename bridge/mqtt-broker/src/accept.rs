//! From the first byte to CONNACK.

use crate::access::{Peer, Principal};
use crate::aside;
use crate::authenticate::{self, Enhanced, Refused, Wire};
use crate::backend::{Backend, ClientId, ReadError, StorageError};
use crate::broker::Broker;
use crate::clock::put_right;
use crate::deadlines::save;
use crate::extra::{AddressPlace, Delayed, delayed, fill};
use crate::fit::Fit;
use crate::held::take_connect;
use crate::incoming::{Incoming, NoPacket};
use crate::limits;
use crate::lingering::linger;
use crate::metrics::Metrics;
use crate::output::Output;
use crate::registry::Claim;
use crate::shared;
use crate::unsettled::{settle, settle_left};
use bytes::BytesMut;
use mqtt_codec::{
    ConnAck, Connect, DecodeError, Decoder, Packet, PacketId, Properties, ReasonCode, TopicFilter,
    Version,
};
use mqtt_session::{
    Connected, Gate, Message, Session, SharedPlace, Source, check_connect, check_will,
};
use quota::Share;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) struct Accepted<B, S> {
    pub broker: Arc<Broker<B>>,
    pub claim: Claim,
    pub principal: Principal,
    pub enhanced: Option<Box<Enhanced>>,
    /// Was the client id made by the server?
    pub id_is_made: bool,
    pub share: Share,
    pub session: Session,
    pub reader: ReadHalf<S>,
    pub writer: WriteHalf<S>,
    pub decoder: Decoder,
    /// Bytes behind CONNECT that are here already.
    pub input: BytesMut,
    /// CONNACK, to be sent. Empty = it is larger than the client takes.
    pub output: Output,
    /// Asked before the feeds were.
    pub feeds_generation: u64,
    /// Is there anything of the session in storage?
    pub stored: bool,
    /// QoS 2 packet ids of messages that were not stored.
    pub unstored_ids: BTreeSet<PacketId>,
}

/// `None` = refused, and the client was told what the protocol allows to tell.
pub(crate) async fn accept<B, S>(
    broker: &Arc<Broker<B>>,
    stream: S,
    peer: &Peer,
    place: &AddressPlace,
) -> Option<Box<Accepted<B, S>>>
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let decoder = Decoder::server(broker.limits.maximum_packet_size as usize);
    let mut incoming = Incoming::new(reader, decoder, broker.unfinished_newcomers.clone());
    let patience = match place.refused() {
        None => limits::CONNECT_TIMEOUT,
        Some(_) => limits::REFUSED_TIMEOUT,
    };
    let first = tokio::select! {
        first = tokio::time::timeout(patience, incoming.next()) => first.ok()?,
        () = broker.shutdown.cancelled() => return None,
    };
    let first = match first {
        Ok(Packet::Connect(connect)) => Ok(connect),
        Ok(_) => Err(DecodeError::Protocol("the first packet is not CONNECT")),
        Err(NoPacket::Wrong(error)) => Err(error),
        Err(NoPacket::Gone) => return None,
        Err(NoPacket::NoRoom) => {
            tracing::debug!("a client is closed: there is no room for so large a CONNECT");
            return None;
        }
    };
    let mut ending = Ending {
        reader: &mut incoming.reader,
        writer: &mut writer,
        shutdown: &broker.shutdown,
    };
    let connect = match first {
        Ok(connect) => connect,
        Err(error) => {
            tracing::debug!(%error, "not a CONNECT");
            Metrics::add(&broker.metrics.protocol_errors, 1);
            if let DecodeError::UnsupportedVersion(level) = error {
                // Above 5 the answer has the form of 5, so that a later client finds the code (section 3.1.2.2).
                let version = if level > 5 {
                    Version::V5
                } else {
                    Version::V311
                };
                let fit = Fit::unlimited(version);
                refuse(&mut ending, &fit, error.reason_code()).await;
            }
            return None;
        }
    };
    let fit = Fit::of(&connect);
    if let Some(reason_code) = place.refused() {
        refuse(&mut ending, &fit, reason_code).await;
        return None;
    }
    if let Some(redirect) = &broker.extra.redirect {
        refuse_with(&mut ending, &fit, aside::redirected(redirect)).await;
        return None;
    }
    let mut wire = Wire {
        incoming: &mut incoming,
        writer: &mut writer,
        fit: &fit,
    };
    match establish(broker, *connect, peer, &mut wire).await {
        Ok(Established {
            claim,
            principal,
            enhanced,
            id_is_made,
            share,
            session,
            connack,
            feeds_generation,
            stored,
            unstored_ids,
        }) => {
            let mut output = Output::default();
            if !fit.encode(&Packet::ConnAck(Box::new(connack)), output.tail()) {
                tracing::info!(client = %session.client_id(), "a client is closed: CONNACK is larger than it takes");
            }
            let Incoming {
                reader,
                mut decoder,
                input,
                ..
            } = incoming;
            decoder.client_is_known();
            Some(Box::new(Accepted {
                broker: broker.clone(),
                claim,
                principal,
                enhanced,
                id_is_made,
                share,
                session,
                reader,
                writer,
                decoder,
                input,
                output,
                feeds_generation,
                stored,
                unstored_ids,
            }))
        }
        Err(Refused::With(reason_code)) => {
            let mut ending = Ending {
                reader: &mut incoming.reader,
                writer: &mut writer,
                shutdown: &broker.shutdown,
            };
            refuse(&mut ending, &fit, reason_code).await;
            None
        }
        Err(Refused::Gone) => None,
    }
}

/// A connection that becomes none.
struct Ending<'a, S> {
    reader: &'a mut ReadHalf<S>,
    writer: &'a mut WriteHalf<S>,
    shutdown: &'a CancellationToken,
}

async fn refuse<S: AsyncRead + AsyncWrite>(
    ending: &mut Ending<'_, S>,
    fit: &Fit,
    reason_code: ReasonCode,
) {
    let properties = Properties {
        reason_string: Some(reason_code.text().to_owned()),
        ..Properties::default()
    };
    let connack = ConnAck {
        session_present: false,
        reason_code,
        properties,
    };
    refuse_with(ending, fit, connack).await;
}

async fn refuse_with<S: AsyncRead + AsyncWrite>(
    ending: &mut Ending<'_, S>,
    fit: &Fit,
    connack: ConnAck,
) {
    debug_assert!(connack.reason_code.is_of_connack(), "{connack:?}");
    let mut output = BytesMut::new();
    fit.encode(&Packet::ConnAck(Box::new(connack)), &mut output);
    let until = Instant::now() + limits::LAST_WORDS;
    // The client may be gone: then nobody needs the answer.
    let told = tokio::time::timeout_at(until, async {
        ending.writer.write_all(&output).await?;
        ending.writer.shutdown().await
    });
    if let Ok(Ok(())) = told.await {
        linger(ending.reader, until, ending.shutdown).await;
    }
}

fn unavailable(error: StorageError) -> ReasonCode {
    tracing::error!(%error, "a client can not connect: its session can not be read or saved");
    ReasonCode::SERVER_UNAVAILABLE
}

fn random<const N: usize>() -> Result<[u8; N], ReasonCode> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| unavailable(StorageError(format!("no random numbers: {error}"))))?;
    Ok(bytes)
}

struct Established {
    claim: Claim,
    principal: Principal,
    enhanced: Option<Box<Enhanced>>,
    id_is_made: bool,
    share: Share,
    session: Session,
    connack: ConnAck,
    feeds_generation: u64,
    stored: bool,
    unstored_ids: BTreeSet<PacketId>,
}

async fn establish<B: Backend, S: AsyncRead + AsyncWrite>(
    broker: &Arc<Broker<B>>,
    connect: Connect,
    peer: &Peer,
    wire: &mut Wire<'_, S>,
) -> Result<Established, Refused> {
    check_connect(&connect)?;
    check_will(&connect, &broker.limits)?;
    let backend = &broker.backend;
    let id_is_made = connect.client_id.is_empty();
    let client = if id_is_made {
        ClientId::new(&format!("auto-{:032x}", u128::from_be_bytes(random()?)))
    } else {
        ClientId::new(&connect.client_id)
    };
    aside::check_newcomer(broker, &client, connect.user_name.as_deref(), peer)?;
    let authenticating = authenticate::on_connect(&*broker.access, &connect, &client, peer, wire);
    let (admitted, enhanced) = Box::pin(authenticating).await?;
    let principal = Principal::new(client.clone(), admitted);
    aside::check_banned(broker, &principal, peer)?;
    if !id_is_made && !broker.access.may_connect(&principal) {
        tracing::info!(%client, user = ?principal.user, "a client may not connect: its user must not have this client id");
        return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID.into());
    }
    let wants_response_information = connect.properties.request_response_information == Some(1);
    let mut connect = connect;
    connect.will = connect
        .will
        .filter(|will| !aside::is_bridge_state(&will.topic));
    if let Some(will) = &mut connect.will {
        let rewrites = &broker.extra.rewrites;
        will.topic = rewrites.topic(will.topic.clone(), &principal);
        // A will has a delay of its own.
        if aside::is_reserved(&will.topic) || delayed(&will.topic) != Delayed::No {
            return Err(ReasonCode::TOPIC_NAME_INVALID.into());
        }
        if !broker.access.may_publish(&principal, &will.topic) {
            tracing::info!(%client, topic = %will.topic, "a client may not connect: it must not publish its will");
            return Err(ReasonCode::NOT_AUTHORIZED.into());
        }
    }
    let (claim, taken_over) = broker.registry.take_over(&client).await;
    if taken_over {
        Metrics::add(&broker.metrics.takeovers, 1);
    }
    // Not before: the connection that was taken over does not count any more.
    let mut share = broker.access.enter(&principal).map_err(|error| {
        tracing::info!(%client, %error, "a client may not connect: a quota is used up");
        ReasonCode::QUOTA_EXCEEDED
    })?;
    let (brings_will, incoming) = (connect.will.is_some(), &mut *wire.incoming);
    let taking = take_connect(
        &mut share,
        brings_will,
        &claim,
        &principal,
        incoming,
        &broker.shutdown,
    );
    Box::pin(taking).await?;

    Box::pin(settle_left(broker, &client))
        .await
        .map_err(unavailable)?;
    let saved = backend.load_session(&client).await.map_err(unavailable)?;
    let was_stored = saved.is_some();
    let mut stored = saved.and_then(|saved| {
        Session::from_bytes(client.clone(), saved.bytes)
            .inspect_err(|error| tracing::error!(%client, %error, "the stored session can not be read: the client gets a new one"))
            .ok()
    });
    let is_unreadable = was_stored && stored.is_none();
    if let Some(session) = &mut stored {
        // What is due and not done yet: the will's delay or the session itself can be over.
        let (now_ms, by_new_clock) = put_right(broker, session);
        let mut ended = session.handle_deadline(now_ms);
        let expired = !ended.keep;
        if connect.clean_start {
            // It ends before its time, and its will is published then [MQTT-3.1.3-9].
            ended.will = ended.will.or_else(|| session.take_will());
            ended.keep = false;
        }
        let keep = ended.keep;
        if !keep || ended.will.is_some() {
            if by_new_clock {
                broker.by_new_clock.add(&client);
            }
            // Its will and its end in one step: what a crash in between could lose is the will.
            let settled = Box::pin(settle(broker, session, ended, true)).await;
            if settled.is_err() && !keep {
                Metrics::sub(&broker.metrics.persistent_sessions, 1);
            }
            settled.map_err(unavailable)?;
        }
        if expired {
            stored = None;
        }
    }
    let resume = stored.is_some() && !connect.clean_start;
    let mut unreleased = backend.unreleased(&client).await.map_err(unavailable)?;
    if !resume && (is_unreadable || !unreleased.is_empty()) {
        backend.delete_session(&client).await.map_err(unavailable)?;
    }
    let mut unstored_ids = broker.hub.unstored.take_unreleased(&client);
    if resume {
        unreleased.extend(&unstored_ids);
    } else {
        unstored_ids.clear();
    }
    let tag = u64::from_be_bytes(random()?);
    let Connected {
        mut session,
        mut connack,
    } = Session::handle_connect(
        connect,
        client.clone(),
        stored,
        unreleased,
        tag,
        broker.limits,
    );
    if wants_response_information {
        let template = broker.extra.response_topic.as_deref();
        connack.properties.response_information =
            template.and_then(|template| fill(template, &principal));
    }
    let enhanced = enhanced.map(|(enhanced, data)| {
        connack.properties.authentication_method = Some(enhanced.method.clone());
        connack.properties.authentication_data = Some(data);
        Box::new(enhanced)
    });

    let feeds_generation = backend.feeds_generation();
    let filters: Vec<TopicFilter> = session
        .subscriptions()
        .iter()
        .map(|(filter, _)| filter.clone())
        .collect();
    let mut taken_away = false;
    for filter in &filters {
        // The rules may be others than when it subscribed, and so may the user.
        if !broker.access.may_subscribe(&principal, filter) {
            tracing::info!(%client, %filter, "a subscription of a resumed session is taken away: it is not allowed any more");
            broker.unsubscribe_session(&mut session, filter);
            taken_away = true;
            continue;
        }
        session.add_new_feeds(backend.feeds_for(filter));
    }
    if taken_away {
        broker.keep_wanted_feeds(&mut session);
    }
    let shares: Vec<TopicFilter> = session.shared().map(|(share, _)| share.clone()).collect();
    for share in &shares {
        let filter = share.share().map(|(_, filter)| filter);
        if filter.is_some_and(|filter| !broker.access.may_subscribe(&principal, &filter)) {
            tracing::info!(%client, %share, "a subscription of a resumed session is taken away: it is not allowed any more");
            broker.unsubscribe_session(&mut session, share);
            backend
                .shared_leave(share, &client)
                .await
                .map_err(unavailable)?;
        }
    }
    if session.shared().next().is_some() {
        Box::pin(shared::join_again(&**backend, &session))
            .await
            .map_err(unavailable)?;
    }
    for (packet_id, source) in session.missing() {
        let message = Box::pin(read_again(broker, source, packet_id))
            .await
            .map_err(unavailable)?;
        session.supply(packet_id, message);
    }
    let (access, who) = (broker.access.clone(), principal.clone());
    let gate = Gate::new(move |topic| access.may_receive(&who, topic));
    session.drop_forbidden(&gate);
    if !broker.access.grants_whole() {
        session.set_gate(gate);
    }
    let store = session.is_persistent() || resume;
    if store {
        save(broker, &mut session).await.map_err(unavailable)?;
    }
    // One that can not be read was not counted.
    if store != (was_stored && !is_unreadable) {
        let gauge = &broker.metrics.persistent_sessions;
        if store {
            Metrics::add(gauge, 1)
        } else {
            Metrics::sub(gauge, 1)
        }
    }
    session.resend();
    // From here on the session is the connection's, which says when it ends what is to be done then.
    broker.deadlines.forget(&client);
    Ok(Established {
        claim,
        principal,
        enhanced,
        id_is_made,
        share,
        session,
        connack,
        feeds_generation,
        stored: store,
        unstored_ids,
    })
}

/// A message in flight of an earlier process.
async fn read_again<B: Backend>(
    broker: &Broker<B>,
    source: Source,
    packet_id: PacketId,
) -> Result<Option<Message>, StorageError> {
    match source {
        Source::Feed(feed, at) | Source::Shared(SharedPlace { feed, at, .. }) => {
            let this = |position, _: &str| position == at;
            match broker.backend.read(feed, at, 1, &this).await {
                Ok(read) => {
                    let first = read.messages.into_iter().next();
                    Ok(first.map(|(_, message)| message))
                }
                Err(ReadError::Gone) => Ok(None),
                Err(ReadError::Storage(error)) => Err(error),
            }
        }
        Source::Nowhere(_) => Ok(None),
        Source::Retained(topic) => {
            let Ok(filter) = TopicFilter::new(topic.as_str()) else {
                tracing::error!(%packet_id, %topic, "a retained message in flight has no valid topic");
                return Ok(None);
            };
            Ok(broker.retained(&filter).await?.into_iter().next())
        }
    }
}
