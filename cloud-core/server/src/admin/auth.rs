use std::sync::Arc;

use admin_api::codes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Admin;
use super::refusal::Refusal;

/// Lets pass who has the administrator's secret.
pub async fn require_secret(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(secret) if admin.secret.matches(secret.trim()) => next.run(request).await,
        given => {
            let message = match given {
                Some(_) => "the secret is not this core's",
                None => "a secret is needed: Authorization: Bearer SECRET",
            };
            let hint = "it is in the file admin.credentials in the core's data directory: towline --credentials FILE";
            Refusal::new(StatusCode::UNAUTHORIZED, codes::UNAUTHORIZED, message, hint)
                .into_response()
        }
    }
}
