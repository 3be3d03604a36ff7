//! The log of a daemon and the two settings that shape it. Logs go to stderr; stdout has the ready line and nothing else.

use std::io::IsTerminal;

use crate::Value;
use tracing::level_filters::LevelFilter;

#[derive(Clone, Copy, Debug)]
pub struct LogLevel(pub LevelFilter);

impl Value for LogLevel {
    fn parse(text: &str) -> Result<LogLevel, String> {
        let wrong = |_| "expected off, error, warn, info, debug or trace".to_owned();
        text.parse().map(LogLevel).map_err(wrong)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

/// To be called once.
pub fn start(level: LogLevel, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_max_level(level.0)
        .with_writer(std::io::stderr)
        // A log that can not be written (a full disk) must not stop the daemon: the default is to panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
