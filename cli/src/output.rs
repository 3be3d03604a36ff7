//! `-o table|wide|json|yaml`: one way to print a list for all commands.

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

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

fn render<T: Row>(rows: &[T], output: Output) -> Result<String> {
    Ok(match output {
        Output::Json => serde_json::to_string_pretty(rows)? + "\n",
        Output::Yaml => serde_yaml_ng::to_string(rows)?,
        Output::Table => table(T::COLUMNS.to_vec(), rows),
        Output::Wide => table([T::COLUMNS, T::WIDE].concat(), rows),
    })
}

fn table<T: Row>(columns: Vec<&str>, rows: &[T]) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|c| (*c).to_owned()).collect()];
    for row in rows {
        let mut cells = row.cells();
        cells.truncate(columns.len());
        lines.push(cells);
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
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
    fn nothing_is_a_table_with_a_head_and_an_empty_list() {
        assert_eq!(render::<Thing>(&[], Output::Table).unwrap(), "NAME\n");
        assert_eq!(render::<Thing>(&[], Output::Json).unwrap(), "[]\n");
    }
}
