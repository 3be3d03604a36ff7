//! `EnrolRequest`: a token for a certificate.

use sync_quic::EnrolHandshake;

use crate::frontend::Sync;

pub(crate) async fn handle(sync: &Sync, handshake: EnrolHandshake) {
    match sync.registry.enrol(&handshake.request).await {
        Ok(grant) => {
            sync.metrics.enrolled.inc();
            handshake.grant(grant).await;
        }
        Err((code, reason)) => {
            tracing::warn!(
                remote = %handshake.remote, edge = %handshake.request.name, token = %handshake.request.token_id, %code,
                "enrolment refused"
            );
            handshake.refuse(code, &reason).await;
        }
    }
}
