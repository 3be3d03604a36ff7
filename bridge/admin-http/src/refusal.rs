use admin_api::{ApiError, codes};
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Any reply that is not a success.
pub struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    pub fn new(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Refusal {
        Refusal {
            status,
            error: ApiError::new(code, message, hint),
        }
    }

    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, codes::INVALID, message, hint)
    }

    pub fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, codes::NOT_FOUND, message, hint)
    }

    pub fn unavailable(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            codes::UNAVAILABLE,
            message,
            hint,
        )
    }

    /// The log did not take it.
    pub fn not_written(error: impl ToString) -> Refusal {
        Refusal::unavailable(
            error.to_string(),
            "the log on stderr says more; nothing was changed",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Refusal {
        Refusal::new(
            rejection.status(),
            codes::INVALID,
            rejection.body_text(),
            "the body is JSON, see the admin API",
        )
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Refusal {
        Refusal::invalid(rejection.body_text(), "")
    }
}
