use std::sync::Arc;
use std::time::Duration;

use admin_api::{CreateToken, Token};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use cloud_sync::{RegistryError, TokenOptions};

use super::Admin;
use super::edges::sync;
use admin_http::Refusal;

/// Where the request says nothing.
const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);

pub async fn create(
    State(admin): State<Arc<Admin>>,
    body: Result<Json<CreateToken>, JsonRejection>,
) -> Result<(StatusCode, Json<Token>), Refusal> {
    let Json(request) = body?;
    let ttl = request.ttl_seconds.map_or(DEFAULT_TTL, Duration::from_secs);
    if ttl.is_zero() {
        return Err(Refusal::invalid(
            "a token with a lifetime of 0 could never be used",
            "give --ttl 1h or so",
        ));
    }
    let options = TokenOptions {
        ttl,
        labels: request.labels,
        single_use: false,
    };
    let created = sync(&admin)?
        .create_token(options)
        .await
        .map_err(|error| match error {
            RegistryError::Ttl | RegistryError::Labels => Refusal::invalid(error.to_string(), ""),
            error => Refusal::not_written(error),
        })?;
    let reply = Token {
        id: created.token.id.clone(),
        token: created.token.to_string(),
        expires_ms: created.expires_ms,
    };
    Ok((StatusCode::CREATED, Json(reply)))
}
