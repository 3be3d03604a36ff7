//! Figures as a table for people, as JSON, and as Markdown.

use std::fmt::Write;

use serde::Serialize;

use crate::figure::{Figure, number};
use crate::machine::Machine;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub figures: Vec<Figure>,
}

const HEAD: [&str; 6] = ["what", "figure", "the machine", "ratio", "goal", ""];

/// Header of the lines that `line` makes.
fn cells(figure: &Figure) -> [String; 6] {
    let value = format!("{} {}", number(figure.value), figure.unit);
    let raw = figure.raw.as_ref().map(|raw| number(raw.value));
    let ratio = figure.ratio.map(|ratio| {
        if ratio < 10.0 {
            format!("{ratio:.2}")
        } else {
            number(ratio)
        }
    });
    let met = match figure.met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    };
    [
        figure.what.clone(),
        value,
        raw.unwrap_or_default(),
        ratio.unwrap_or_default(),
        figure
            .goal
            .map(crate::figure::Goal::text)
            .unwrap_or_default(),
        met.to_owned(),
    ]
}

/// What stands below a line: the distribution, what it is compared with, the remark.
fn remarks(figure: &Figure) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(latency) = &figure.latency {
        remarks.push(format!(
            "p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0} µs of {}",
            latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us, latency.count
        ));
    }
    if let Some(raw) = &figure.raw {
        remarks.push(format!("against {}", raw.what));
    }
    remarks.extend(figure.note.clone());
    remarks
}

/// The lines of one measurement, aligned.
pub fn table(figures: &[Figure]) -> String {
    let rows: Vec<_> = figures.iter().map(cells).collect();
    let mut widths = HEAD.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths[0] = widths[0].min(78);
    let mut text = String::new();
    for (figure, row) in figures.iter().zip(&rows) {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
            // Numbers stand to the right.
            let (before, after) = if (1..4).contains(&index) {
                (fill.as_str(), "")
            } else {
                ("", fill.as_str())
            };
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
        for remark in remarks(figure) {
            let _ = writeln!(text, "    {remark}");
        }
    }
    text
}

/// A table for a page.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("Taken {}.\n\n", report.machine.text());
    let _ = writeln!(text, "| {} |", HEAD.join(" | "));
    let _ = writeln!(text, "|---|---:|---:|---:|---|---|");
    for figure in &report.figures {
        let [what, value, raw, ratio, goal, met] = cells(figure);
        let remarks = remarks(figure).join("; ");
        let what = if remarks.is_empty() {
            what
        } else {
            format!("{what}<br><sub>{remarks}</sub>")
        };
        let met = if met == "MISSED" { "**missed**" } else { &met };
        let _ = writeln!(
            text,
            "| {what} | {value} | {raw} | {ratio} | {goal} | {met} |"
        );
    }
    text
}
