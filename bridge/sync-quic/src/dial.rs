//! From a core's addresses to one established connection, over whatever gets through first.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use sync::Frame;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::carrier::{Carrier, CloseOnDrop, Closed, RecvPipe, SendPipe, Transport, control};
use crate::mux::{Mux, Peer};
use crate::quic::Client;
use crate::signs::{Sign, Signs};
use crate::tls::ClientTls;
use crate::wire::{WriteFrameError, write_frame};
use crate::{CORE_NAME, CoreAddress, Timing, away, quic};

/// Streams that the core may open towards an edge: the downlink.
const CORE_STREAMS: u32 = 1;
/// Head start of each attempt over the next: QUIC first, and TLS joins when it has not got through by then. An attempt that
/// fails at once ends it. After the last one it begins again from the first, so that somebody always asks about once a second
/// and a link that comes back is found. One that is answered has a longer start: see `signs`.
const HEAD_START: Duration = Duration::from_secs(1);
/// The same, where TLS was what got through the last time.
pub(crate) const SHORT_START: Duration = Duration::from_millis(300);
/// Between two addresses of one name.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Unsent bytes that the kernel holds for a TLS connection: what waits there can not be overtaken.
const NOT_SENT: u32 = 16 * 1024;

#[derive(Debug)]
pub(crate) enum DialError {
    Resolve(String),
    Unreachable(String),
    Untrusted(String),
    Busy(String),
}

impl DialError {
    /// Somebody has answered: that says more than that somebody else has not.
    fn is_answer(&self) -> bool {
        matches!(self, DialError::Untrusted(_) | DialError::Busy(_))
    }
}

impl From<Closed> for DialError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Untrusted(reason) => DialError::Untrusted(reason),
            Closed::Busy(reason) => DialError::Busy(reason),
            other => DialError::Unreachable(other.to_string()),
        }
    }
}

/// One host, one transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) host_port: String,
    pub(crate) transport: Transport,
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.transport, self.host_port)
    }
}

/// In the order of the addresses; QUIC before TLS where both may be.
pub(crate) fn candidates(addresses: &[CoreAddress]) -> Vec<Candidate> {
    let both = [Transport::Quic, Transport::Tls];
    let pairs = addresses.iter().flat_map(|address| {
        let may = move |transport: &Transport| address.transport.is_none_or(|t| t == *transport);
        both.into_iter().filter(may).map(|transport| Candidate {
            host_port: address.host_port.clone(),
            transport,
        })
    });
    pairs.collect()
}

/// An established connection, on which nothing was said yet but what is in `control`.
pub(crate) struct Dialled {
    pub(crate) carrier: Carrier,
    /// QUIC's, which has to be kept as long as the connection.
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) candidate: Candidate,
    /// The control stream, when the first frame has been sent on it as early data.
    pub(crate) control: Option<(SendPipe, RecvPipe)>,
    pub(crate) resumed: bool,
    pub(crate) guard: CloseOnDrop,
}

impl Dialled {
    /// The control stream with `first` on it.
    pub(crate) async fn say(
        &mut self,
        first: &Frame,
    ) -> Result<(SendPipe, RecvPipe), WriteFrameError> {
        if let Some(control) = self.control.take() {
            return Ok(control);
        }
        let (mut send, recv) = self
            .carrier
            .open_control()
            .await
            .map_err(WriteFrameError::Connection)?;
        write_frame(&mut send, first).await?;
        Ok((send, recv))
    }
}

/// What an attempt ends with: TLS's tasks are started for the winner only.
enum Reached {
    Quic(Client, quinn::Connection, Option<(SendPipe, RecvPipe)>),
    Tls(Box<TlsStream<TcpStream>>, SocketAddr),
}

type Attempt<T> = Pin<Box<dyn Future<Output = Result<T, DialError>> + Send>>;

/// Tries the candidates, each with a head start over the next (`soon`: that of the first), until one is established; `early` goes out as
/// early data of the first where an earlier connection has left a ticket. No other takes one: were two of them heard, the later hello would
/// end the connection of the earlier. `signs` learns what is heard of the core meanwhile. Fails when all have failed; else runs until it is
/// dropped.
pub(crate) async fn race(
    candidates: &[Candidate],
    soon: Option<Duration>,
    tls: &ClientTls,
    timing: &Timing,
    early: Option<&Frame>,
    signs: &Signs,
) -> Result<Dialled, DialError> {
    let count = candidates.len();
    let Some(first) = candidates.first() else {
        return Err(DialError::Resolve("no address is given".to_owned()));
    };
    let begin = |index: usize| {
        let candidate = candidates.get(index % count)?.clone();
        let early = early.filter(|_| index == 0).cloned();
        let (tls, timing, signs) = (tls.clone(), *timing, signs.clone());
        let attempt: Attempt<_> = Box::pin(async move {
            let reached = attempt(index, &candidate, tls, timing, early, signs).await?;
            Ok((candidate, reached))
        });
        Some(attempt)
    };
    let over = |index: usize| {
        candidates
            .get(index % count)
            .map_or(first.transport, |one| one.transport)
    };
    let one_host = candidates
        .iter()
        .all(|candidate| candidate.host_port == first.host_port);
    let step = |index: usize| soon.filter(|_| index == 0).unwrap_or(HEAD_START);
    let rules = Rules {
        enough: count,
        answer_or_end: one_host,
        signs,
        weed: true,
    };
    let (candidate, reached) = staggered(begin, over, step, rules).await?;
    Ok(match reached {
        Reached::Quic(client, connection, control) => {
            let carrier = Carrier::Quic(connection);
            Dialled {
                guard: CloseOnDrop(carrier.clone()),
                carrier,
                client: Some(Arc::new(client)),
                candidate,
                resumed: control.is_some(),
                control,
            }
        }
        Reached::Tls(stream, remote) => {
            let peer = Peer {
                remote,
                certificate: None,
            };
            let mux = Mux::start(
                *stream,
                peer,
                Some(timing.keep_alive),
                timing.idle_timeout,
                None,
            );
            let carrier = Carrier::Tls(mux);
            Dialled {
                guard: CloseOnDrop(carrier.clone()),
                carrier,
                client: None,
                candidate,
                resumed: false,
                control: None,
            }
        }
    })
}

struct Rules<'a> {
    /// It has failed when nothing is left that runs and so many have been started.
    enough: usize,
    /// It has failed as soon as somebody answers that this will not do.
    answer_or_end: bool,
    signs: &'a Signs,
    /// Whether attempts of a silence end once another has been answered.
    weed: bool,
}

/// Starts one attempt after the other, `step` apart or as soon as one fails, but none beside one that is answered, and takes the first that
/// succeeds. `over`: the transport of each.
async fn staggered<T: Send + 'static>(
    begin: impl Fn(usize) -> Option<Attempt<T>>,
    over: impl Fn(usize) -> Transport,
    step: impl Fn(usize) -> Duration,
    rules: Rules<'_>,
) -> Result<T, DialError> {
    let Rules {
        enough,
        answer_or_end,
        signs,
        weed,
    } = rules;
    // Dropping it ends what still runs.
    let mut running = JoinSet::new();
    let mut handles = Vec::new();
    let mut started = 0;
    let mut more = true;
    let mut crowd = false;
    let mut next = Instant::now();
    let mut worst: Option<DialError> = None;
    loop {
        let alone = signs.alone_until(over(started));
        let at = alone.map_or(next, |until| next.max(until));
        tokio::select! {
            biased;
            Some(ended) = running.join_next() => match ended {
                Ok(Ok(reached)) => return Ok(reached),
                // A core that is busy is not to be asked in another way at once.
                Ok(Err(error)) if answer_or_end && DialError::is_answer(&error) => return Err(error),
                Ok(Err(error)) => {
                    if !worst.as_ref().is_some_and(DialError::is_answer) {
                        worst = Some(error);
                    }
                    if running.is_empty() && started >= enough {
                        break;
                    }
                    if started < enough {
                        next = Instant::now();
                    }
                }
                Err(error) if error.is_cancelled() => {}
                Err(error) => worst = Some(DialError::Unreachable(error.to_string())),
            },
            answered = signs.answered(), if weed && crowd => {
                handles.retain(|(index, handle): &(usize, AbortHandle)| {
                    let stays = answered.contains(index);
                    if !stays {
                        handle.abort();
                    }
                    stays
                });
                crowd = false;
            }
            () = tokio::time::sleep_until(at), if more => {
                if signs.alone_until(over(started)).is_some_and(|until| until > Instant::now()) {
                    continue;
                }
                match begin(started) {
                    Some(attempt) => {
                        handles.push((started, running.spawn(attempt)));
                        crowd = running.len() > 1;
                        next = Instant::now() + step(started);
                        started += 1;
                    }
                    None => more = false,
                }
                if running.is_empty() && !more {
                    break;
                }
            }
        }
    }
    Err(worst.unwrap_or_else(|| DialError::Resolve("the name has no address".to_owned())))
}

/// One candidate: its name is looked up now, since the address of a core may have changed since the last attempt.
async fn attempt(
    number: usize,
    candidate: &Candidate,
    tls: ClientTls,
    timing: Timing,
    early: Option<Frame>,
    signs: Signs,
) -> Result<Reached, DialError> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&candidate.host_port)
        .await
        .map_err(|error| DialError::Resolve(error.to_string()))?
        .collect();
    let count = addresses.len();
    let transport = candidate.transport;
    let begin = |index: usize| {
        let address = *addresses.get(index)?;
        let early = early.clone().filter(|_| index == 0);
        let tls = tls.clone();
        let sign = signs.attempt(number, transport);
        let attempt: Attempt<_> = match transport {
            Transport::Quic => Box::pin(attempt_quic(address, tls, timing, early, sign)),
            Transport::Tls => Box::pin(attempt_tls(address, tls, sign)),
        };
        Some(attempt)
    };
    let rules = Rules {
        enough: count,
        // The others are the same host's.
        answer_or_end: true,
        signs: &signs,
        weed: false,
    };
    staggered(begin, |_| transport, |_| NEXT_ADDRESS, rules).await
}

/// `early` is the hello. It is the only frame that goes out as early data, before the core has proved that it is there now: it
/// changes nothing in the core that saying it twice would not, and the core takes early data of one ticket only once. Batches and
/// gap reports could follow it there (their sequences make repetitions harmless) but have to wait for the welcome, which says how
/// large they may be; confirmations of commands must wait.
async fn attempt_quic(
    address: SocketAddr,
    tls: ClientTls,
    timing: Timing,
    early: Option<Frame>,
    sign: Arc<Sign>,
) -> Result<Reached, DialError> {
    let unreachable =
        |error: &dyn std::fmt::Display| DialError::Unreachable(format!("{address}: {error}"));
    // QUIC does not hear that there is no way: it would try until its time is over.
    quic::local_address(address).map_err(|error| unreachable(&error))?;
    let client = Client::new(address, &sign).map_err(|error| unreachable(&error))?;
    let may_be_heard = early.is_some();
    let mut config = quinn::ClientConfig::new(match early {
        Some(_) => tls.quic,
        None => tls.quic_anew,
    });
    let transport = quic::edge_transport(&timing, CORE_STREAMS, tls.link, may_be_heard);
    config.transport_config(transport);
    let connecting = client
        .endpoint
        .connect_with(config, address, CORE_NAME)
        .map_err(|error| unreachable(&error))?;
    let connecting = match early {
        Some(first) => match connecting.into_0rtt() {
            Ok((connection, accepted)) => {
                let early = say_early(&connection, &first).await;
                // Resolves when the handshake is over, and so when it is known that the core is there.
                let accepted = accepted.await;
                if let Some(reason) = connection.close_reason() {
                    return Err(quic::closed(reason).into());
                }
                let control = early.filter(|_| accepted);
                return Ok(Reached::Quic(client, connection, control));
            }
            Err(connecting) => connecting,
        },
        None => connecting,
    };
    let connection = connecting
        .await
        .map_err(|error| DialError::from(quic::closed(error)))?;
    Ok(Reached::Quic(client, connection, None))
}

/// `None` = it has to be said again once the handshake is over.
async fn say_early(connection: &quinn::Connection, first: &Frame) -> Option<(SendPipe, RecvPipe)> {
    let (send, recv) = connection.open_bi().await.ok()?;
    let (mut send, recv) = control(send, recv);
    write_frame(&mut send, first).await.ok()?;
    Some((send, recv))
}

async fn attempt_tls(
    address: SocketAddr,
    tls: ClientTls,
    sign: Arc<Sign>,
) -> Result<Reached, DialError> {
    let unreachable =
        |error: &dyn std::fmt::Display| DialError::Unreachable(format!("{address}: {error}"));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| unreachable(&error))?;
    sign.note();
    tune(&stream);
    let name = ServerName::try_from(CORE_NAME).map_err(|error| unreachable(&error))?;
    let stream = TlsConnector::from(tls.tls)
        .connect(name, stream)
        .await
        .map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
            match tls {
                Some(rustls::Error::AlertReceived(away::ALERT)) => {
                    DialError::Busy(format!("{address}: the core took nobody more"))
                }
                Some(error @ rustls::Error::InvalidCertificate(_))
                | Some(error @ rustls::Error::AlertReceived(_)) => {
                    DialError::Untrusted(error.to_string())
                }
                _ => unreachable(&error),
            }
        })?;
    Ok(Reached::Tls(Box::new(stream), address))
}

/// Small packets go at once, and little waits in the kernel where nothing can overtake it.
pub(crate) fn tune(stream: &TcpStream) {
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| socket2::SockRef::from(stream).set_tcp_notsent_lowat(NOT_SENT));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a socket could not be tuned");
    }
}

#[cfg(test)]
mod tests;
