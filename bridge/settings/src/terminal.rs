//! What must not get onto a terminal, or into a log, as it came: names that others chose.

/// Does the character steer a terminal, end a line, or turn the text around it, instead of being shown?
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
