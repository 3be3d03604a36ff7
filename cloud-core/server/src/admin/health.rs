use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::TextEncoder;

use super::Admin;
use admin_http::Refusal;

/// 200 as long as this process can do its work.
pub async fn healthz(State(admin): State<Arc<Admin>>) -> Result<&'static str, Refusal> {
    match admin.ctx.kernel.stats().failed {
        None => Ok("ok\n"),
        Some(reason) => Err(Refusal::unavailable(
            format!("the log failed: {reason}"),
            "look after the disk, then start again",
        )),
    }
}

/// 200 when clients may be sent here. This listener opens after the log has recovered and all front ends have started.
pub async fn readyz(state: State<Arc<Admin>>) -> Result<&'static str, Refusal> {
    if state.ctx.shutdown.is_cancelled() {
        return Err(Refusal::unavailable("shutting down", ""));
    }
    healthz(state).await
}

/// Prometheus' text format.
pub async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.ctx.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
