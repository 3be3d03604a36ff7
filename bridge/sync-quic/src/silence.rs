//! Notices early that the way to the core has changed or is gone, where a transport's own timers would take long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::client::Shared;
use crate::outcome::Lost;
use crate::{congestion, quic};

/// How often it is looked, and how often while the core is silent: what is written before its first word is noticed counts as old in a
/// fresh-first lane. Nothing is sent by looking.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_IN_SILENCE: Duration = Duration::from_millis(50);
/// Silence, while an answer is owed, after which the core is asked again, and again. The timers of QUIC double with each loss: after a
/// minute without a link they would let another minute pass.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two questions in a silence over QUIC, so that a link that is back is found soon. An answer reaches the socket of the question
/// or the one after it: twice this is the longest round trip of a link that is found. It ends with the connection's idle timeout.
const AGAIN: Duration = Duration::from_millis(300);
/// From here on the pause is [`SILENCE`] again, in which an answer may take longer.
const HURRY: Duration = Duration::from_secs(30);
/// Packets that a question may take.
const QUESTION_PACKETS: u64 = 2;
/// Silence, while an answer is owed and was asked for, after which a TLS connection is given up. TCP has timers that double as well,
/// and no way to hurry them.
const TLS_SILENCE: Duration = Duration::from_secs(10);

/// Runs until the connection is over.
pub(crate) async fn watch(shared: Arc<Shared>, endpoint: Option<quinn::Endpoint>) {
    let over = {
        let carrier = shared.carrier.clone();
        async move { carrier.closed().await }
    };
    tokio::select! {
        _ = over => {}
        () = look(&shared, endpoint.as_ref()) => {}
    }
}

async fn look(shared: &Shared, endpoint: Option<&quinn::Endpoint>) {
    let remote = shared.carrier.remote();
    let mut local = quic::local_address(remote).ok();
    let mut heard = shared.carrier.heard();
    let mut since = Instant::now();
    let mut asked = since;
    let mut pause = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        let now = Instant::now();
        let here = quic::local_address(remote).ok();
        let moved = here.is_some() && here != local;
        if here.is_some() {
            local = here;
        }
        let count = shared.carrier.heard();
        if count != heard || !shared.waits_for_core() {
            if asked != since {
                let_questions_pass(shared, 0);
            }
            (heard, since, asked) = (count, now, now);
        }
        let rtt = shared.carrier.rtt().unwrap_or_default();
        let patience = SILENCE.max(rtt * 3);
        let known = (now - since >= patience).then_some(since);
        shared
            .silent
            .send_if_modified(|silent| std::mem::replace(silent, known) != known);
        pause = known.map_or(LOOK, |_| LOOK_IN_SILENCE);
        let again = match endpoint {
            Some(_) if asked != since && now - since < HURRY => AGAIN.max(rtt * 3 / 2),
            _ => patience,
        };
        let silent = now - asked >= again;
        match (&shared.carrier, endpoint) {
            (Carrier::Quic(_), Some(endpoint)) if moved || silent => {
                if moved {
                    tracing::info!("the network has changed: the connection moves to it");
                }
                let_questions_pass(shared, QUESTION_PACKETS);
                if let Err(error) = quic::rebind(endpoint, remote) {
                    tracing::debug!(%error, "no new socket");
                }
                asked = now;
            }
            (Carrier::Tls(_), _) if moved => {
                return shared.end(Lost::Link("the network has changed".to_owned()));
            }
            (Carrier::Tls(mux), _) if silent => {
                if now - since >= TLS_SILENCE {
                    return shared.end(Lost::Link(format!("no answer for {TLS_SILENCE:?}")));
                }
                mux.ping();
                asked = now;
            }
            _ => {}
        }
    }
}

/// Lets so many packets more be on their way than the congestion control would, since all that is on its way may be lost, and the
/// question would wait for it.
fn let_questions_pass(shared: &Shared, packets: u64) {
    if let Carrier::Quic(connection) = &shared.carrier {
        congestion::let_pass(connection, packets);
    }
}
