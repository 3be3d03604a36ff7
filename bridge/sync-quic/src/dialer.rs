//! An edge's way to its core over many connections: which addresses there are, which was good the last time, and whether QUIC gets through.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sync::{Frame, Hello, Window};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{self, Connection, Events};
use crate::dial::{Candidate, DialError, Dialled, SHORT_START, candidates, race};
use crate::enrol::shown;
use crate::knock::knock;
use crate::outcome::ConnectError;
use crate::signs::Signs;
use crate::tls::{ClientTls, edge_config};
use crate::{CoreAddress, Identity, IdentityError, Now, Timing, Transport, quic};

/// First pause between two looks whether QUIC gets through, while TLS is in use; doubles.
const FIRST_PROBE: Duration = Duration::from_secs(60);
const LONGEST_PROBE: Duration = Duration::from_secs(30 * 60);
/// Between two looks whether TLS gets through, while QUIC is silent.
const NEXT_TLS_PROBE: Duration = Duration::from_secs(1);
/// What QUIC has left to say something once TLS has got through: where the whole link was away both come back, and QUIC is the one to keep.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How often the kernel is asked which way it would send. Costs two calls and no packet.
const LOOK: Duration = Duration::from_millis(500);
/// An attempt to connect that takes longer than this has met silence: it is knocked beside it.
const KNOCK_AFTER: Duration = Duration::from_secs(1);
/// An attempt that takes longer has met a link that was away, and not UDP that does not get through.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two knocks, for the first [`OFTEN`] of a silence, and then. A knock takes 52 bytes with the headers of IPv4: 10 kB a minute, then 3.
const KNOCK: Duration = Duration::from_millis(300);
const OFTEN: Duration = Duration::from_secs(10 * 60);
const KNOCK_RARELY: Duration = Duration::from_secs(1);
/// Round trips after which an attempt that was begun on an answered knock is not alone any more: half a one more than it needs.
const SECOND: f64 = 1.5;
const LEAST_SECOND: Duration = Duration::from_millis(100);
/// Where knocking says nothing new, the pause before it may.
const NO_NEWS: Duration = Duration::from_secs(10);
/// Stands for the rest of the world where no core's address is known yet (RFC 5737): nothing is sent to it.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Kept as long as the edge runs: the session tickets for a quick return are in it.
pub struct Dialer {
    cores: Vec<CoreAddress>,
    tls: ClientTls,
    timing: Timing,
    state: Mutex<State>,
    /// Whether something waits for the core.
    hurry: Box<dyn Fn() -> bool + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Addresses that the core itself has named: tried after the configured ones.
    learned: Vec<CoreAddress>,
    last_good: Option<Candidate>,
    last_remote: Option<SocketAddr>,
    /// A connection that a probe has established, for the next [`Dialer::connect`].
    prepared: Option<Dialled>,
    /// Since when nobody has answered, where that was asked by knocking.
    silent_since: Option<Instant>,
    /// Whether the core is silent on the connection that was the last one, or was when it ended.
    silence: Option<watch::Receiver<Option<Instant>>>,
    /// A knock was answered, and nothing was asked since.
    answered: bool,
    /// A knock was answered and no connection came of it, as where only small packets get through: the next answer is no news.
    in_vain: bool,
}

impl Dialer {
    pub fn new(
        cores: Vec<CoreAddress>,
        identity: &Identity,
        now: Now,
        timing: Timing,
    ) -> Result<Dialer, IdentityError> {
        Ok(Dialer {
            cores,
            tls: edge_config(identity, now)?,
            timing,
            state: Mutex::default(),
            hurry: Box::new(|| false),
        })
    }

    /// Bytes are spent to find out soon that the core can be reached again, as long as `hurry` says so: something waits to be sent.
    pub fn hurrying_while(mut self, hurry: impl Fn() -> bool + Send + Sync + 'static) -> Dialer {
        self.hurry = Box::new(hurry);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, shows the certificate, says hello and waits for the welcome. Takes at most `timing.handshake`; where it turns out meanwhile
    /// that a core is there again, that begins anew.
    ///
    /// `hello.version` and `hello.edge` have to be [`sync::VERSION`] and the identity's. The two halves may be used from different
    /// tasks; acknowledgements are read and the window is freed in the background, even when nobody asks for events.
    pub async fn connect(
        &self,
        hello: Hello,
        window: Window,
    ) -> Result<(Connection, Events), ConnectError> {
        let first = Frame::Hello(hello);
        let prepared = self.state().prepared.take();
        let mut end = Instant::now() + self.timing.handshake;
        let dialled = match prepared {
            Some(dialled) => dialled,
            None => self.dial(&first, &mut end).await?,
        };
        let candidate = dialled.candidate.clone();
        let remote = dialled.carrier.remote();
        let established = client::establish(dialled, first, window, self.timing.keep_alive);
        let result = match tokio::time::timeout_at(end, established).await {
            Ok(result) => result,
            Err(_) => return Err(self.too_late()),
        };
        if let Ok((connection, _)) = &result {
            if let Some(rtt) = connection.rtt() {
                self.tls.link.set_rtt(rtt);
            }
            let mut state = self.state();
            state.silence = Some(connection.silence());
            state.answered = false;
            state.last_good = Some(candidate);
            state.last_remote = Some(remote);
            (state.silent_since, state.in_vain) = (None, false);
        }
        result.map_err(|error| match error {
            client::HandshakeError::Dial(error) => self.failed(error),
            client::HandshakeError::Connect(error) => error,
        })
    }

    /// By `end`, or later where the core turns out to be there again meanwhile: what was asked before that is on its way into nothing, and
    /// will be asked again at times of its own.
    async fn dial(&self, first: &Frame, end: &mut Instant) -> Result<Dialled, ConnectError> {
        let began = Instant::now();
        let signs = &Signs::default();
        let once = |end: Instant| async move {
            let (mut order, tls_was_last) = self.order();
            let (answered, early) = self.early(first);
            let mut soon = tls_was_last.then_some(SHORT_START);
            if let (Some(first), true) = (order.first().cloned(), answered) {
                // What is lost of a handshake costs it several round trips; a second one does not know of it.
                let rtt = self.tls.link.rtt();
                soon = rtt.map(|rtt| rtt.mul_f64(SECOND).max(LEAST_SECOND));
                order.insert(0, first);
            }
            let race = race(&order, soon, &self.tls, &self.timing, early, signs);
            match tokio::time::timeout_at(end, race).await {
                Ok(result) => result.map_err(|error| self.failed(error)),
                Err(_) => Err(self.too_late()),
            }
        };
        let answered = || signs.alone_until(Transport::Quic);
        let back = async {
            let mut quiet_until = began + KNOCK_AFTER;
            loop {
                tokio::time::sleep_until(quiet_until).await;
                match answered() {
                    // The core is there, and has its reasons.
                    Some(until) if until > Instant::now() => quiet_until = until,
                    _ => {
                        self.core_is_back().await;
                        match answered() {
                            // The attempt was heard first: nothing that is begun anew would be heard sooner.
                            Some(until) if until > Instant::now() => self.take_back_answer(),
                            _ => return,
                        }
                    }
                }
            }
        };
        let dialled = tokio::select! {
            // Where both are ready, the one that needs no more round trip.
            biased;
            dialled = once(*end) => dialled,
            () = back => {
                *end = Instant::now() + self.timing.handshake;
                once(*end).await
            }
        }?;
        // After a silence it is chance which of the two asked first when the link was back.
        let tls = dialled.carrier.transport() == Transport::Tls;
        if tls && began.elapsed() >= SILENCE && self.last_was_quic() {
            let mut order = self.order().0;
            order.retain(|candidate| candidate.transport == Transport::Quic);
            let signs = Signs::default();
            let quic = race(&order, None, &self.tls, &self.timing, Some(first), &signs);
            if let Ok(Ok(quic)) = tokio::time::timeout(LAST_WORD, quic).await {
                return Ok(quic);
            }
        }
        Ok(dialled)
    }

    /// Whether a knock was answered just now, and what is to go out as early data. A connection leaves one ticket for that, which is good for
    /// one attempt: one that goes into a silence would waste it, and the one that is heard would take a round trip more.
    fn early<'a>(&self, first: &'a Frame) -> (bool, Option<&'a Frame>) {
        let mut state = self.state();
        let was_silent = state.silence.as_ref();
        let was_silent = was_silent.is_some_and(|silence| silence.borrow().is_some());
        let answered = std::mem::take(&mut state.answered);
        (answered, (answered || !was_silent).then_some(first))
    }

    /// Nothing was begun on the strength of it.
    fn take_back_answer(&self) {
        let mut state = self.state();
        (state.answered, state.in_vain) = (false, false);
    }

    fn last_was_quic(&self) -> bool {
        let state = self.state();
        let last = state.last_good.as_ref();
        last.is_some_and(|last| last.transport == Transport::Quic)
    }

    fn too_late(&self) -> ConnectError {
        ConnectError::Unreachable {
            core: shown(&self.cores),
            reason: format!("no answer within {:?}", self.timing.handshake),
        }
    }

    /// Returns when the core that was connected last answers to knocks, as far as something is in a hurry and that is news. Never returns
    /// where there is no such core, or it was reached over TLS only. To be awaited beside an attempt, and the pause before one. Cancel-safe.
    pub async fn core_is_back(&self) {
        let remote = self.state().last_remote;
        let Some(remote) = remote.filter(|_| self.last_was_quic()) else {
            return std::future::pending().await;
        };
        loop {
            let pause = {
                let mut state = self.state();
                let since = *state.silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() < OFTEN {
                    KNOCK
                } else {
                    KNOCK_RARELY
                }
            };
            let answered = match (self.hurry)() {
                true => knock(remote, pause).await,
                false => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            match answered {
                Ok(true) if std::mem::replace(&mut self.state().in_vain, true) => {
                    tokio::time::sleep(NO_NEWS).await;
                }
                Ok(true) => {
                    self.state().answered = true;
                    return;
                }
                Ok(false) => self.state().in_vain = false,
                Err(_) => tokio::time::sleep(pause).await,
            }
        }
    }

    /// The last good one's host first. True = TLS was what got through there.
    fn order(&self) -> (Vec<Candidate>, bool) {
        let state = self.state();
        let mut order = candidates(&self.cores);
        let known: Vec<Candidate> = candidates(&state.learned)
            .into_iter()
            .filter(|candidate| !order.contains(candidate))
            .collect();
        order.extend(known);
        let Some(last) = &state.last_good else {
            return (order, false);
        };
        // Stable: within the host QUIC stays before TLS.
        order.sort_by_key(|candidate| candidate.host_port != last.host_port);
        let both = order.get(1).is_some_and(|second| second == last);
        (order, both && last.transport == Transport::Tls)
    }

    fn failed(&self, error: DialError) -> ConnectError {
        let core = shown(&self.cores);
        match error {
            DialError::Resolve(reason) => ConnectError::Resolve { core, reason },
            DialError::Unreachable(reason) => ConnectError::Unreachable { core, reason },
            DialError::Untrusted(reason) => ConnectError::Untrusted { core, reason },
            DialError::Busy(reason) => ConnectError::Busy { core, reason },
        }
    }

    /// What the core has said about where it is reached. Replaces what it has said before.
    pub fn learn(&self, addresses: Vec<CoreAddress>) {
        self.state().learned = addresses;
    }

    /// To be awaited beside a connection over TLS: returns when QUIC gets through again, and the next [`Dialer::connect`] uses that
    /// connection. Never returns where no address may be used over QUIC. Cancel-safe.
    pub async fn quic_is_back(&self) {
        let mut pause = FIRST_PROBE;
        loop {
            tokio::time::sleep(pause).await;
            if self.probe_quic().await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PROBE);
        }
    }

    /// To be awaited beside a connection over QUIC: returns when the core is silent there and answers over TLS, as where a network has
    /// begun to let no UDP through; the next [`Dialer::connect`] uses the connection over TLS. Never returns where no address may be used
    /// over TLS. Cancel-safe.
    pub async fn tls_instead(&self, connection: &Connection) {
        let mut silence = connection.silence();
        loop {
            let silent = silence.wait_for(Option::is_some).await.map(|since| *since);
            let Ok(since) = silent else {
                // It is over, which others notice.
                return std::future::pending().await;
            };
            if let Some(dialled) = self.probe(Transport::Tls).await {
                tokio::time::sleep(LAST_WORD).await;
                if *silence.borrow() == since {
                    self.state().prepared = Some(dialled);
                    return;
                }
            }
            tokio::time::sleep(NEXT_TLS_PROBE).await;
        }
    }

    /// One look whether QUIC gets through; true = the next [`Dialer::connect`] uses the connection that was made.
    pub async fn probe_quic(&self) -> bool {
        let dialled = self.probe(Transport::Quic).await;
        let through = dialled.is_some();
        if through {
            self.state().prepared = dialled;
        }
        through
    }

    async fn probe(&self, transport: Transport) -> Option<Dialled> {
        let (mut order, _) = self.order();
        order.retain(|candidate| candidate.transport == transport);
        let signs = Signs::default();
        let race = race(&order, None, &self.tls, &self.timing, None, &signs);
        let limit = self.timing.handshake;
        tokio::time::timeout(limit, race).await.ok()?.ok()
    }

    /// Returns when this machine has another way to the core than at the call: a new address, or one at all. To be awaited beside
    /// the pause before an attempt. Cancel-safe.
    pub async fn network_changed(&self) {
        let remote = self.state().last_remote.unwrap_or(ELSEWHERE);
        let before = quic::local_address(remote).ok();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = quic::local_address(remote).ok();
            if now.is_some() && now != before {
                return;
            }
        }
    }
}
