use std::fmt;

use serde::{Deserialize, Serialize};

/// The body of every reply that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// One of [`codes`]: stable, for scripts.
    pub code: String,
    /// What failed, on what, and why.
    pub message: String,
    /// What to do about it; empty when there is nothing to say.
    #[serde(default)]
    pub hint: String,
}

impl ApiError {
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError {
            code: code.to_owned(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        if !self.hint.is_empty() {
            write!(f, "\n  {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

/// Values of [`ApiError::code`], each with the HTTP status it comes with.
pub mod codes {
    /// 401
    pub const UNAUTHORIZED: &str = "unauthorized";
    /// 404
    pub const NOT_FOUND: &str = "not_found";
    /// 409
    pub const ALREADY_EXISTS: &str = "already_exists";
    /// 400
    pub const INVALID: &str = "invalid";
    /// 405
    pub const METHOD_NOT_ALLOWED: &str = "method_not_allowed";
    /// 503: switched off in the configuration, or shutting down
    pub const UNAVAILABLE: &str = "unavailable";
    /// 500
    pub const INTERNAL: &str = "internal";
}
