//! `-o table|wide|json|yaml`: one way to print a list for all commands.

use std::marker::PhantomData;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use settings::terminal::steers;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// Everything, for scripts.
    Json,
    /// Everything, for scripts and people.
    Yaml,
}

/// A thing that has a row in a table.
pub trait Row: Serialize {
    /// The columns of `table`.
    const COLUMNS: &'static [&'static str];
    /// The columns that `wide` adds.
    const WIDE: &'static [&'static str];
    /// One cell for each of `COLUMNS` and then of `WIDE`.
    fn cells(&self) -> Vec<String>;
}

/// Prints a list in the wanted form to standard output.
pub fn print<T: Row>(rows: &[T], output: Output) -> Result<()> {
    print!("{}", render(rows, output)?);
    Ok(())
}

/// A list in the wanted form.
pub fn render<T: Row>(rows: &[T], output: Output) -> Result<String> {
    let mut pages = Pages::new(output);
    Ok(pages.add(rows)? + &pages.end())
}

/// A list that comes in pages, of which one at a time is in memory.
pub struct Pages<T> {
    output: Output,
    /// Of the columns of a table so far. Empty: nothing was printed yet.
    widths: Vec<usize>,
    begun: bool,
    rows: PhantomData<T>,
}

impl<T: Row> Pages<T> {
    pub fn new(output: Output) -> Pages<T> {
        Pages {
            output,
            widths: Vec::new(),
            begun: false,
            rows: PhantomData,
        }
    }

    /// The text of the next page.
    pub fn add(&mut self, rows: &[T]) -> Result<String> {
        if rows.is_empty() {
            return Ok(String::new());
        }
        let is_first = !std::mem::replace(&mut self.begun, true);
        Ok(match self.output {
            Output::Json => {
                // Without the end of the list, which may go on.
                let list = plain_json(rows)?;
                let list = list.trim_end_matches(']').trim_end();
                match is_first {
                    true => list.to_owned(),
                    false => format!(",{}", list.trim_start_matches('[')),
                }
            }
            Output::Yaml => serde_yaml_ng::to_string(rows)?,
            Output::Table | Output::Wide => self.lines(rows, is_first),
        })
    }

    /// What follows the last page.
    pub fn end(mut self) -> String {
        match (self.output, self.begun) {
            (Output::Json, true) => "\n]\n".to_owned(),
            (Output::Json | Output::Yaml, false) => "[]\n".to_owned(),
            (Output::Table | Output::Wide, false) => self.lines(&[], true),
            (_, true) => String::new(),
        }
    }

    /// Columns are as wide as they are on this page, and not narrower than on the one before.
    fn lines(&mut self, rows: &[T], head: bool) -> String {
        let columns = match self.output {
            Output::Wide => [T::COLUMNS, T::WIDE].concat(),
            _ => T::COLUMNS.to_vec(),
        };
        let mut lines: Vec<Vec<String>> = Vec::new();
        if head {
            lines.push(columns.iter().map(|c| (*c).to_owned()).collect());
        }
        lines.extend(
            rows.iter()
                .map(|row| row.cells().iter().map(|cell| plain(cell)).collect()),
        );
        self.widths.resize(columns.len(), 0);
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for line in lines {
            let padded = line.iter().zip(&self.widths);
            let padded: Vec<String> = padded
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Clients, topics and edges are called what others called them: that must not steer the terminal of whoever looks.
pub fn plain(text: &str) -> String {
    let shown = |c| if steers(c) { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// What is known of one thing, a line each.
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let lines = fields.into_iter();
    lines
        .map(|(what, value)| format!("{:<22}{}\n", format!("{what}:"), plain(&value)))
        .collect()
}

/// JSON for scripts and terminals: what a terminal would not show is written as a number, and means the same.
pub fn plain_json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    Ok(escaped(&serde_json::to_string_pretty(value)?))
}

/// The same on one line.
pub fn plain_json_line(value: &impl Serialize) -> Result<String> {
    Ok(escaped(&serde_json::to_string(value)?))
}

fn escaped(json: &str) -> String {
    let mut plain = String::new();
    for c in json.chars() {
        // Outside of strings there are no such characters but the ends of lines.
        if c != '\n' && steers(c) {
            // All of them are below U+10000.
            plain += &format!("\\u{:04x}", u32::from(c));
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Milliseconds since 1970 as "12s ago", or "-".
pub fn ago(then_ms: Option<i64>) -> String {
    let Some(then) = then_ms else {
        return "-".to_owned();
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64);
    let seconds = (now - then).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86400),
    }
}

/// Milliseconds since 1970 as `2026-11-21T07:00:00.123Z`, or "-" for a time before that (which stands for none).
pub fn utc(ms: i64) -> String {
    if ms < 0 {
        return "-".to_owned();
    }
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days to civil date in the Gregorian calendar, with years that begin in March (so that the leap day is the last one).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1000 % 60,
        of_day % 1000
    )
}

/// `1 frame`, `2 frames`, `2 batches`.
pub fn plural(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ if what.ends_with("ch") => format!("{count} {what}es"),
        _ => format!("{count} {what}s"),
    }
}

/// Bytes for people: `512 B`, `1.5 KiB`, `64.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `site=berlin,stage=test`, or "-".
pub fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    if pairs.is_empty() {
        "-".to_owned()
    } else {
        pairs.join(",")
    }
}

/// A value that may be absent, as a cell.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Thing {
        name: &'static str,
        size: u32,
    }

    impl Row for Thing {
        const COLUMNS: &'static [&'static str] = &["NAME"];
        const WIDE: &'static [&'static str] = &["SIZE"];
        fn cells(&self) -> Vec<String> {
            vec![self.name.to_owned(), self.size.to_string()]
        }
    }

    #[test]
    fn each_form() {
        let things = [
            Thing { name: "a", size: 1 },
            Thing {
                name: "longer",
                size: 22,
            },
        ];
        assert_eq!(render(&things, Output::Table).unwrap(), "NAME\na\nlonger\n");
        assert_eq!(
            render(&things, Output::Wide).unwrap(),
            "NAME    SIZE\na       1\nlonger  22\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&render(&things, Output::Json).unwrap()).unwrap();
        assert_eq!(json[1]["size"], 22);
        assert_eq!(
            render(&things[..1], Output::Yaml).unwrap(),
            "- name: a\n  size: 1\n"
        );
    }

    #[test]
    fn no_name_steers_a_terminal() {
        let name = "a\n\u{1b}[2J\u{7f}\u{9b}\u{2028}\u{202e}\u{e9}";
        let things = [Thing { name, size: 1 }];
        assert_eq!(
            render(&things, Output::Table).unwrap(),
            "NAME\na\u{fffd}\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{e9}\n"
        );
        for output in [Output::Json, Output::Yaml] {
            let text = render(&things, output).unwrap();
            let read: Vec<serde_yaml_ng::Value> = serde_yaml_ng::from_str(&text).unwrap();
            assert_eq!(read[0]["name"], name, "{text}");
            // YAML has no other word for what turns the direction of writing.
            let turns = |c: char| output == Output::Yaml && c == '\u{202e}';
            let steering = text
                .chars()
                .filter(|c| *c != '\n' && steers(*c) && !turns(*c));
            assert_eq!(steering.count(), 0, "{text}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&render(&things, Output::Json).unwrap()).unwrap();
        assert_eq!(json[0]["name"], name);
        let line = plain_json_line(&things[0]).unwrap();
        assert!(!line.chars().any(steers), "{line}");
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["name"], name);
    }

    #[test]
    fn a_list_in_pages_is_the_list() {
        let thing = |name, size| Thing { name, size };
        let all = [thing("]", 1), thing("longer", 22), thing("c", 3)];
        for output in [Output::Table, Output::Wide, Output::Json, Output::Yaml] {
            let mut pages = Pages::new(output);
            let mut text = pages.add(&[]).unwrap();
            for page in [&all[..2], &[], &all[2..]] {
                text += &pages.add(page).unwrap();
            }
            assert_eq!(text + &pages.end(), render(&all, output).unwrap());
        }
    }

    #[test]
    fn times_and_sizes_read_as_people_write_them() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_795_244_400_123, "2026-11-21T07:00:00.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "-"),
        ] {
            assert_eq!(utc(ms), text);
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(plural(2, "batch"), "2 batches");
    }

    #[test]
    fn nothing_is_a_table_with_a_head_and_an_empty_list() {
        assert_eq!(render::<Thing>(&[], Output::Table).unwrap(), "NAME\n");
        assert_eq!(render::<Thing>(&[], Output::Json).unwrap(), "[]\n");
    }
}
