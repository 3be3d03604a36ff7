//! Notices early that the way to the core has changed or is gone, where a transport's own timers would take long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::carrier::Carrier;
use crate::client::Shared;
use crate::outcome::Lost;
use crate::quic;

/// How often it is looked. Nothing is sent by looking.
const LOOK: Duration = Duration::from_millis(500);
/// Silence, while an answer is owed, after which the core is asked again, and again. The timers of QUIC double with each loss: after a
/// minute without a link they would let another minute pass.
const SILENCE: Duration = Duration::from_secs(1);
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
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        let here = quic::local_address(remote).ok();
        let moved = here.is_some() && here != local;
        if here.is_some() {
            local = here;
        }
        let count = shared.carrier.heard();
        if count != heard || !shared.waits_for_core() {
            (heard, since, asked) = (count, now, now);
        }
        let patience = SILENCE.max(shared.carrier.rtt().unwrap_or_default() * 3);
        let known = (now - since >= patience).then_some(since);
        shared
            .silent
            .send_if_modified(|silent| std::mem::replace(silent, known) != known);
        let silent = now - asked >= patience;
        match (&shared.carrier, endpoint) {
            (Carrier::Quic(_), Some(endpoint)) if moved || silent => {
                if moved {
                    tracing::info!("the network has changed: the connection moves to it");
                }
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
