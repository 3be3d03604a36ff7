//! Lines of the terminal that are written again and again in place.

use std::io::{IsTerminal, Write};

/// The part of the terminal below the cursor. Where nothing can refresh in place (a file, a log) every picture is a line of its own.
pub struct Screen {
    lines: u16,
    terminal: bool,
}

impl Screen {
    pub fn new() -> Screen {
        Screen {
            lines: 0,
            terminal: std::io::stdout().is_terminal(),
        }
    }

    /// Whether lines are drawn over.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns of the terminal; a guess where it does not know itself.
    pub fn columns(&self) -> usize {
        match crossterm::terminal::size() {
            Ok((columns, _)) if columns > 0 => usize::from(columns),
            _ => 80,
        }
    }

    /// Rows of the terminal that are left below so many; a large number where there is none.
    pub fn rows_below(&self, used: u16) -> usize {
        match crossterm::terminal::size() {
            Ok((_, rows)) if self.terminal && rows > used => usize::from(rows - used),
            _ => 500,
        }
    }

    /// Draws over what was drawn before. Without a terminal: one line with everything.
    pub fn draw(&mut self, lines: &[String]) {
        use crossterm::cursor::MoveToPreviousLine;
        use crossterm::queue;
        use crossterm::terminal::{Clear, ClearType};
        if !self.terminal {
            let words: Vec<String> = lines
                .iter()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            // Ends the program when nobody reads it any more.
            println!("{}", words.join("; "));
            return;
        }
        let mut out = std::io::stdout().lock();
        if self.lines > 0 {
            let _ = queue!(out, MoveToPreviousLine(self.lines));
        }
        for line in lines {
            let _ = queue!(out, Clear(ClearType::CurrentLine));
            let _ = writeln!(out, "{line}");
        }
        let _ = queue!(out, Clear(ClearType::FromCursorDown));
        let _ = out.flush();
        self.lines = lines.len() as u16;
    }

    /// Takes the picture away again, so that what is printed next stands in its place.
    pub fn clear(&mut self) {
        if self.terminal {
            self.draw(&[]);
        }
    }
}
