use admin_api::codes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::{Refusal, SecretHash};

/// Who is let in.
#[derive(Clone)]
pub struct Guard {
    pub secret: SecretHash,
    /// Whose secret it is, in words: `core` or `edge`.
    pub of: &'static str,
}

/// Lets pass who has the administrator's secret. A middleware, with the guard as its state.
pub async fn require_secret(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Guard { secret, of } = guard;
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    match given.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(given) if secret.matches(given.trim()) => next.run(request).await,
        _ => {
            let message = match given {
                Some(_) => format!("the secret is not this {of}'s"),
                None => "a secret is needed: Authorization: Bearer SECRET".to_owned(),
            };
            let hint = format!(
                "it is in the file admin.credentials in the {of}'s data directory: towline --credentials FILE"
            );
            Refusal::new(StatusCode::UNAUTHORIZED, codes::UNAUTHORIZED, message, hint)
                .into_response()
        }
    }
}
