//! Notices early that the way to the core has changed or is gone, where a transport's own timers would take long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::client::Shared;
use crate::outcome::Lost;
use crate::quic::Client;
use crate::{congestion, quic};

/// How often it is looked, and how often while the core is silent: what is written before its first word is noticed counts as old in a
/// fresh-first lane. Nothing is sent by looking.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_IN_SILENCE: Duration = Duration::from_millis(50);
/// Silence, while an answer is owed, after which the core is asked again, and again. The timers of QUIC double with each loss: after a
/// minute without a link they would let another minute pass.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two questions in a silence over QUIC (or half a round trip, where that is more), until the connection's idle timeout: a link that
/// is back is found after this and a round trip. A question is one packet, of about 60 bytes or full of what waits to be sent.
const AGAIN: Duration = Duration::from_millis(200);
/// After so many questions the next one, and each so many later, comes from a new socket: what is between may keep the way of the old one
/// for a network that is gone. Not more often, since a socket hears only what is answered before the second question from another one:
/// with a new one each time, no link would be found whose round trip is longer than two questions take.
const QUESTIONS_A_SOCKET: u32 = 10;
const QUESTIONS_OF_THE_FIRST: u32 = 4;
/// Silence, while an answer is owed and was asked for, after which a TLS connection is given up. TCP has timers that double as well,
/// and no way to hurry them.
const TLS_SILENCE: Duration = Duration::from_secs(10);

/// Runs until the connection is over. `keep_alive`: so long after the last word of the core a sign of life is sent, which it answers.
pub(crate) async fn watch(shared: Arc<Shared>, client: Option<Arc<Client>>, keep_alive: Duration) {
    let over = {
        let carrier = shared.carrier.clone();
        async move { carrier.closed().await }
    };
    tokio::select! {
        _ = over => {}
        () = look(&shared, client.as_deref(), keep_alive) => {}
    }
}

async fn look(shared: &Shared, client: Option<&Client>, keep_alive: Duration) {
    let remote = shared.carrier.remote();
    let mut local = quic::local_address(remote).ok();
    let mut heard = shared.carrier.heard();
    let mut heard_at = Instant::now();
    let mut since = heard_at;
    let mut asked = heard_at;
    let mut questions = 0;
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
        if count != heard {
            (heard, heard_at) = (count, now);
        }
        // By then a sign of life is on its way.
        let is_owed = shared.waits_for_core() || now - heard_at >= keep_alive;
        if heard_at == now || !is_owed {
            (since, asked) = (now, now);
            questions = 0;
        }
        let rtt = shared.carrier.rtt().unwrap_or_default();
        let patience = SILENCE.max(rtt * 3);
        let known = (now - since >= patience).then_some(since);
        shared
            .silent
            .send_if_modified(|silent| std::mem::replace(silent, known) != known);
        pause = known.map_or(LOOK, |_| LOOK_IN_SILENCE);
        let again = match client {
            Some(_) if questions > 0 => AGAIN.max(rtt / 2),
            _ => patience,
        };
        let silent = now - asked >= again;
        match (&shared.carrier, client) {
            (Carrier::Quic(connection), Some(client)) if moved || silent => {
                if moved {
                    tracing::info!("the network has changed: the connection moves to it");
                }
                congestion::let_pass(connection);
                let next = questions % QUESTIONS_A_SOCKET == QUESTIONS_OF_THE_FIRST;
                let done = if moved || next {
                    client.ask_from_new_socket(remote)
                } else {
                    client.ask()
                };
                if let Err(error) = done {
                    tracing::debug!(%error, "no new socket");
                }
                questions += 1;
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
