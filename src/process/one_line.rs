//! One event, one line: what could end a line or steer a terminal comes out escaped.

use std::fmt;
use std::io::{self, Write};

/// Takes one event a call, and writes one line.
pub(super) struct OneLine<W>(pub W);

// === impl OneLine ===

impl<W: Write> Write for OneLine<W> {
    /// Relies on the formatter, which writes each event in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = String::with_capacity(text.len());
        for c in text.strip_suffix('\n').unwrap_or(&text).chars() {
            push_escaped(&mut line, c);
        }
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The escapes are those of JSON, so that they stay valid there: what has to be escaped in a JSON
/// event stands within a string.
fn push_escaped(line: &mut String, c: char) {
    match c {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        c if c.is_control() || is_invisible(c) => {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(line, format_args!("\\u{:04x}", u32::from(c)));
        }
        c => line.push(c),
    }
}

/// Line and paragraph separators, and what turns the reading direction.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_line_is_escaped_and_the_rest_kept() {
        for (event, line) in [
            ("plain λ \\ \"\n", "plain λ \\ \"\n"),
            ("a\nb\n", "a\\nb\n"),
            ("no end", "no end\n"),
            (
                "\r\t\u{1b}[2J\u{9b}\u{7f}\n",
                "\\r\\t\\u001b[2J\\u009b\\u007f\n",
            ),
            ("\u{2028}\u{202e}\u{2066}\n", "\\u2028\\u202e\\u2066\n"),
        ] {
            let mut written = Vec::new();
            OneLine(&mut written).write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), line);
        }
    }
}

#[cfg(test)]
mod fuzz {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::{config, text};

    proptest! {
        #![proptest_config(config(2_000))]

        #[test]
        fn an_event_is_one_printable_line(event in text(), odd in any::<Vec<u8>>()) {
            for event in [event.as_bytes(), &odd] {
                let mut written = Vec::new();
                OneLine(&mut written).write_all(event).unwrap();
                let line = String::from_utf8(written).unwrap();
                let is_empty = event.is_empty();
                prop_assert!(is_empty || line.ends_with('\n'));
                prop_assert!(!line.trim_end_matches('\n').contains(|c: char| c.is_control() || is_invisible(c)));
                prop_assert!(is_empty || line.matches('\n').count() == 1);
            }
        }

        #[test]
        fn what_an_event_says_in_json_survives(said in text()) {
            let event = serde_json::json!({"said": said}).to_string();
            let mut written = Vec::new();
            OneLine(&mut written).write_all(event.as_bytes()).unwrap();
            let read: serde_json::Value = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(read["said"].as_str(), Some(said.as_str()));
        }
    }
}
