//! The log of a daemon and the two settings that shape it. Logs go to stderr; stdout has the ready line and nothing else.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use crate::Value;
use crate::terminal::steers;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

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
        LogFormat::Text => log.fmt_fields(fields()).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// One line an entry, whatever a client is called: names that clients chose (of themselves, of topics) stand in fields.
fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    debug_fn(field).delimited(" ")
}

fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => {}
        name if writer.has_ansi_escapes() => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(writer, "{name}=")?,
    }
    write!(Escaping(writer), "{value:?}")
}

/// Writes what would not be shown as `\n`, `\u{1b}` and so on.
struct Escaping<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match steers(c) {
                true => write!(self.0, "{}", c.escape_default())?,
                false => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool, client: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(ansi)
            .fmt_fields(fields())
            .finish();
        tracing::subscriber::with_default(log, || {
            tracing::warn!(%client, count = 2, said = ?client, "of {client}: it is banned");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_name_is_one_word_of_one_line() {
        let plain = logged(false, "caf\u{e9} 'x'");
        assert!(
            plain.ends_with(
                ": of caf\u{e9} 'x': it is banned client=caf\u{e9} 'x' count=2 said=\"caf\u{e9} 'x'\"\n"
            ),
            "{plain}"
        );
        for (hostile, shown) in [
            ("a\nWARN b", "client=a\\nWARN b "),
            ("a\r\tb", "client=a\\r\\tb "),
            ("\u{1b}[2J\u{9b}\u{7f}", "client=\\u{1b}[2J\\u{9b}\\u{7f} "),
            ("\u{202e}x\u{2028}", "client=\\u{202e}x\\u{2028} "),
        ] {
            let line = logged(false, hostile);
            assert!(line.contains(shown), "{line:?}");
            assert_eq!(line.chars().filter(|c| steers(*c)).count(), 1, "{line:?}");
        }
        assert!(logged(true, "c").contains("\u{1b}[3mclient\u{1b}[0m"));
    }
}
