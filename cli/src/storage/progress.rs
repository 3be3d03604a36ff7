//! A line that says how far something is: a bar that refreshes in place on a terminal, a line every ten per cent elsewhere.

use std::time::{Duration, Instant};

use crate::output::size;
use crate::screen::Screen;

/// How often a bar is drawn.
const EVERY: Duration = Duration::from_millis(100);

pub struct Progress {
    screen: Screen,
    began: Instant,
    drawn: Option<Instant>,
    tenth: u64,
    /// Nothing is shown.
    quiet: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        Progress {
            screen: Screen::new(),
            began: Instant::now(),
            drawn: None,
            tenth: 0,
            quiet,
        }
    }

    /// Shows that `done` of `total` bytes are behind, and what comes now.
    pub fn show(&mut self, done: u64, total: u64, now: &str) {
        // Before anything is known there is nothing to show.
        if self.quiet || total == 0 {
            return;
        }
        let per_cent = (done.min(total) * 100).checked_div(total).unwrap_or(100);
        if self.screen.is_terminal() {
            if self.drawn.is_none_or(|drawn| drawn.elapsed() >= EVERY) {
                self.drawn = Some(Instant::now());
                let line = bar(
                    done,
                    total,
                    self.began.elapsed(),
                    now,
                    self.screen.columns(),
                );
                self.screen.draw(&[line]);
            }
        } else if per_cent / 10 > self.tenth {
            self.tenth = per_cent / 10;
            println!("{per_cent} % ({} of {})", size(done), size(total));
        }
    }

    /// Prints a line above the bar.
    pub fn say(&mut self, line: &str) {
        if !self.quiet {
            self.screen.clear();
            println!("{line}");
            self.drawn = None;
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        if !self.quiet {
            self.screen.clear();
        }
    }
}

fn bar(done: u64, total: u64, passed: Duration, now: &str, columns: usize) -> String {
    const WIDTH: u64 = 30;
    let done = done.min(total);
    let filled = (done * WIDTH).checked_div(total).unwrap_or(WIDTH) as usize;
    let per_cent = (done * 100).checked_div(total).unwrap_or(100);
    let rate = done as f64 / passed.as_secs_f64().max(0.001);
    let line = format!(
        "[{}{}] {per_cent:>3} %  {} of {}  {}/s  {now}",
        "#".repeat(filled),
        "-".repeat(WIDTH as usize - filled),
        size(done),
        size(total),
        size(rate as u64),
    );
    // A line that wraps can not be drawn over.
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_never_wraps() {
        let line = bar(512, 1024, Duration::from_secs(1), "wal/1.wal", 200);
        assert!(
            line.starts_with("[###############---------------]  50 %  512 B of 1.0 KiB"),
            "{line}"
        );
        assert!(line.ends_with("wal/1.wal"), "{line}");
        assert_eq!(bar(2, 1, Duration::ZERO, "x", 40).chars().count(), 39);
        assert!(bar(0, 0, Duration::ZERO, "", 200).contains("100 %"));
    }
}
