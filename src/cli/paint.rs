//! Colours, for a terminal that wants them. They only repeat what the words say.

use std::io::IsTerminal;

use super::{Failure, harmless, print_as_it_is};
use crate::config::Loaded;

/// What a text is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Soft,
    Good,
    Poor,
    Bad,
}

impl Tone {
    /// The terminal's command for it.
    fn command(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Soft => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Poor => "\x1b[33m",
            Self::Bad => "\x1b[1;31m",
        }
    }
}

/// One line, and how it is painted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tone: Tone,
    pub(super) text: String,
    /// A part of it that is painted otherwise: its first byte, its length, its tone.
    pub(super) part: Option<(usize, usize, Tone)>,
}

impl Line {
    pub(super) fn new(tone: Tone, text: impl Into<String>) -> Self {
        Self { tone, text: text.into(), part: None }
    }

    /// The same on lines of at most so many characters, broken at spaces where there are any. What is indented or named
    /// goes on indented; a row of a table is cut.
    pub(super) fn wrapped(&self, width: usize) -> Vec<Self> {
        if self.text.chars().count() <= width {
            return vec![self.clone()];
        }
        if self.text.starts_with(' ') && !self.text.starts_with("  ") {
            let text = self.text.chars().take(width).collect();
            return vec![Self { text, ..self.clone() }];
        }
        let (mut lines, mut line) = (Vec::new(), String::new());
        for word in self.text.split_inclusive(' ') {
            if line.chars().count() + word.trim_end().chars().count() > width && !line.trim().is_empty() {
                lines.push(std::mem::replace(&mut line, "    ".to_owned()));
            }
            line.push_str(word);
        }
        lines.push(line);
        let wrapped = lines.into_iter().map(|text| text.trim_end().chars().take(width).collect::<String>());
        let part = |nth: usize| self.part.filter(|_| nth == 0);
        wrapped.enumerate().map(|(nth, text)| Self { tone: self.tone, text, part: part(nth) }).collect()
    }
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    colours: bool,
}

impl Paint {
    /// On a terminal, unless `NO_COLOR` is set or the terminal is a dumb one.
    pub(super) fn for_output(loaded: &Loaded) -> Self {
        Self { colours: loaded.colours && std::io::stdout().is_terminal() }
    }

    /// Prints lines to standard output.
    pub(super) fn print(self, lines: &[Line]) -> Result<(), Failure> {
        print_as_it_is(&self.text(lines))
    }

    pub(super) fn text(self, lines: &[Line]) -> String {
        lines.iter().map(|line| self.line(line)).collect::<Vec<_>>().join("\n")
    }

    /// One line. What events and errors say commands no terminal.
    pub(super) fn line(self, line: &Line) -> String {
        let Some((at, length, tone)) = line.part else { return self.piece(line.tone, &line.text) };
        let Some((before, rest)) = line.text.split_at_checked(at) else {
            return self.piece(line.tone, &line.text);
        };
        let Some((part, after)) = rest.split_at_checked(length) else {
            return self.piece(line.tone, &line.text);
        };
        [self.piece(line.tone, before), self.piece(tone, part), self.piece(line.tone, after)].concat()
    }

    fn piece(self, tone: Tone, text: &str) -> String {
        let text = harmless(text);
        if self.colours && !text.is_empty() && tone != Tone::Plain {
            format!("{}{text}\x1b[0m", tone.command())
        } else {
            text.into_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Paint, Tone};

    #[test]
    fn colours_are_added_and_never_taken_from_a_text() {
        let line = Line { part: Some((0, 5, Tone::Bad)), ..Line::new(Tone::Plain, "fines: \u{1b}[31mred") };
        assert_eq!(Paint { colours: false }.line(&line), "fines: \\u{1b}[31mred");
        assert_eq!(Paint { colours: true }.line(&line), "\u{1b}[1;31mfines\u{1b}[0m: \\u{1b}[31mred");
        let beyond = Line { part: Some((90, 5, Tone::Bad)), ..Line::new(Tone::Plain, "é") };
        assert_eq!(Paint { colours: true }.line(&beyond), "é");
    }

    #[test]
    fn long_lines_go_on_indented_and_tables_are_cut() {
        let texts = |text: &str, width| {
            Line::new(Tone::Plain, text).wrapped(width).into_iter().map(|line| line.text).collect::<Vec<_>>()
        };
        assert_eq!(texts("fines: it failed for a reason", 16), ["fines: it failed", "    for a reason"]);
        assert_eq!(texts(" row of a table", 6), [" row o"]);
        assert_eq!(texts("short", 16), ["short"]);
        assert_eq!(texts("unbreakableunbreakable x", 8), ["unbreaka", "    x"]);
    }
}
