//! Exceptions (clause 2.2.4 and 4.10): what a peer did wrong, and whether its channel or its connection ends for it.

use crate::{frame::FrameError, wire::WireError};

/// Reply codes of the specification (clause 1.1, constants).
pub mod code {
    pub const NO_ROUTE: u16 = 312;
    pub const CONNECTION_FORCED: u16 = 320;
    pub const ACCESS_REFUSED: u16 = 403;
    pub const NOT_FOUND: u16 = 404;
    pub const RESOURCE_LOCKED: u16 = 405;
    pub const PRECONDITION_FAILED: u16 = 406;
    pub const CONTENT_TOO_LARGE: u16 = 311;
    pub const FRAME_ERROR: u16 = 501;
    pub const SYNTAX_ERROR: u16 = 502;
    pub const COMMAND_INVALID: u16 = 503;
    pub const CHANNEL_ERROR: u16 = 504;
    pub const UNEXPECTED_FRAME: u16 = 505;
    pub const RESOURCE_ERROR: u16 = 506;
    pub const NOT_ALLOWED: u16 = 530;
    pub const NOT_IMPLEMENTED: u16 = 540;
    pub const INTERNAL_ERROR: u16 = 541;

    /// The name a client prints and tests look for at the start of the text.
    pub fn name(code: u16) -> &'static str {
        match code {
            CONTENT_TOO_LARGE => "CONTENT_TOO_LARGE",
            CONNECTION_FORCED => "CONNECTION_FORCED",
            ACCESS_REFUSED => "ACCESS_REFUSED",
            NOT_FOUND => "NOT_FOUND",
            RESOURCE_LOCKED => "RESOURCE_LOCKED",
            PRECONDITION_FAILED => "PRECONDITION_FAILED",
            FRAME_ERROR => "FRAME_ERROR",
            SYNTAX_ERROR => "SYNTAX_ERROR",
            COMMAND_INVALID => "COMMAND_INVALID",
            CHANNEL_ERROR => "CHANNEL_ERROR",
            UNEXPECTED_FRAME => "UNEXPECTED_FRAME",
            RESOURCE_ERROR => "RESOURCE_ERROR",
            NOT_ALLOWED => "NOT_ALLOWED",
            NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
            _ => "INTERNAL_ERROR",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Channel,
    Connection,
}

/// Ends a channel or a connection with a code and a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {text}")]
pub struct Exception {
    pub scope: Scope,
    pub code: u16,
    pub text: String,
}

impl Exception {
    pub fn channel(code: u16, text: impl std::fmt::Display) -> Self {
        Self {
            scope: Scope::Channel,
            code,
            text: format!("{} - {text}", code::name(code)),
        }
    }

    pub fn connection(code: u16, text: impl std::fmt::Display) -> Self {
        Self {
            scope: Scope::Connection,
            code,
            text: format!("{} - {text}", code::name(code)),
        }
    }

    pub fn not_found(what: &str, name: &str, vhost: &str) -> Self {
        Self::channel(
            code::NOT_FOUND,
            format_args!("no {what} '{name}' in vhost '{vhost}'"),
        )
    }

    /// The kernel could not do it: the reason is ours, not the peer's.
    pub fn internal(what: &str, why: impl std::fmt::Display) -> Self {
        Self::connection(code::INTERNAL_ERROR, format_args!("{what}: {why}"))
    }
}

impl From<WireError> for Exception {
    fn from(error: WireError) -> Self {
        Self::connection(code::SYNTAX_ERROR, error)
    }
}

impl From<FrameError> for Exception {
    fn from(error: FrameError) -> Self {
        Self::connection(code::FRAME_ERROR, error)
    }
}
