//! What is drawn on: how wide it is, which characters it knows, whether it is coloured. Nothing drawn needs colour to be
//! understood.

use std::io::{self, IsTerminal as _};

use anstyle::{AnsiColor, Style};

use crate::context::Context;
use crate::output::{is_colored, printable};

/// Narrower than the narrowest, lines run over; wider than the widest, they are hard to follow.
const NARROWEST: usize = 60;
const USUAL: usize = 80;
const WIDEST: usize = 120;

/// Words on both sides of it stay on one line.
pub(crate) const NO_BREAK: char = '\u{a0}';

/// The terminal or file that an answer goes to.
#[derive(Debug, Clone)]
pub(crate) struct Paper {
    pub(crate) width: usize,
    pub(crate) lines: &'static Lines,
    colored: bool,
}

/// Characters to draw with.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) across: char,
    pub(crate) down: char,
    /// Left end, joint and right end of a line across, above and below a row of cells.
    pub(crate) above: [char; 3],
    pub(crate) below: [char; 3],
    /// Stands for what was cut off.
    pub(crate) more: char,
}

const UNICODE: Lines =
    Lines { across: '─', down: '│', above: ['┌', '┬', '┐'], below: ['└', '┴', '┘'], more: '…' };
const ASCII: Lines = Lines { across: '-', down: '|', above: ['+'; 3], below: ['+'; 3], more: '~' };

/// What a piece of text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Heading,
    Used,
    Faint,
    Good,
    Warning,
    Problem,
}

impl Paper {
    /// Stdout, as the environment describes it.
    pub(crate) fn new(context: &Context, ascii: bool) -> Self {
        let stdout = io::stdout();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let terminal = || rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = columns.or_else(terminal).filter(|width| *width > 0).unwrap_or(USUAL);
        let lines = if ascii || !speaks_unicode(|name| std::env::var(name).ok()) { &ASCII } else { &UNICODE };
        let colored = is_colored(context.options.color, stdout.is_terminal());
        Self { width: width.clamp(NARROWEST, WIDEST), lines, colored }
    }

    /// The text in its colour, if there are any.
    pub(crate) fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colored || text.is_empty() {
            return text.to_owned();
        }
        let style = match ink {
            Ink::Heading => Style::new().bold(),
            Ink::Used => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
            Ink::Faint => Style::new().dimmed(),
            Ink::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
            Ink::Warning => Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())),
            Ink::Problem => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        };
        format!("{style}{text}{style:#}")
    }

    /// Somebody else's text, on one line, in characters that this paper knows.
    pub(crate) fn own(&self, text: &str) -> String {
        let line = printable(&text.replace(['\n', NO_BREAK], " "));
        if self.lines.across.is_ascii() { line.replace(|c: char| !c.is_ascii(), "?") } else { line }
    }

    /// At most so many characters of a text. Of what is wider than one column nobody knows by how much: it is left out.
    pub(crate) fn cropped(&self, text: &str, width: usize) -> String {
        let narrow = self.own(text).replace(|c: char| !c.is_ascii(), "?");
        if narrow.len() <= width {
            return narrow;
        }
        let Some(kept) = width.checked_sub(1) else { return String::new() };
        narrow.chars().take(kept).chain([self.lines.more]).collect()
    }

    /// Words in lines: the first begins with `first`, the others are indented as far as that. A word that is longer than
    /// a line stays whole, as do words around a no-break space.
    pub(crate) fn wrapped(&self, first: &str, text: &str) -> String {
        let indent = first.chars().count();
        let mut wrapped = first.to_owned();
        let mut column = indent;
        for word in text.split(' ').map(|word| self.own(word)).filter(|word| !word.is_empty()) {
            let length = word.chars().count();
            if column > indent && column + 1 + length > self.width {
                wrapped.push('\n');
                wrapped.push_str(&" ".repeat(indent));
                column = indent;
            } else if column > indent {
                wrapped.push(' ');
                column += 1;
            }
            wrapped.push_str(&word);
            column += length;
        }
        wrapped.push('\n');
        wrapped
    }
}

/// As POSIX has it: the first of the three that is set decides.
fn speaks_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paper(width: usize, lines: &'static Lines) -> Paper {
        Paper { width, lines, colored: false }
    }

    #[test]
    fn the_locale_decides_on_characters() {
        let locale = |pairs: &'static [(&str, &str)]| {
            speaks_unicode(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(locale(&[("LANG", "C.UTF-8")]));
        assert!(locale(&[("LC_ALL", ""), ("LC_CTYPE", "de_DE.utf8"), ("LANG", "C")]));
        assert!(!locale(&[("LC_ALL", "POSIX"), ("LANG", "C.UTF-8")]));
        assert!(!locale(&[]));
    }

    #[test]
    fn nothing_of_others_breaks_a_line() {
        let unicode = paper(60, &UNICODE);
        assert_eq!(unicode.own("a\nb\u{1b}[2J ü"), "a b\\u{1b}[2J ü");
        assert_eq!(unicode.cropped("train-7f9c8", 8), "train-7…");
        assert_eq!(unicode.cropped("列車", 8), "??");
        assert_eq!(unicode.cropped("train", 0), "");
        let ascii = paper(60, &ASCII);
        assert_eq!(ascii.own("ü"), "?");
        assert_eq!(ascii.cropped("train-7f9c8", 8), "train-7~");
    }

    #[test]
    fn words_are_wrapped_and_kept_whole() {
        let narrow = paper(12, &ASCII);
        assert_eq!(narrow.wrapped("- ", "one two three"), "- one two\n  three\n");
        assert_eq!(narrow.wrapped("- ", "one wordthatislong two"), "- one\n  wordthatislong\n  two\n");
        assert_eq!(narrow.wrapped("- ", "one two\u{a0}three four"), "- one\n  two three\n  four\n");
        assert_eq!(narrow.wrapped("- ", ""), "- \n");
    }
}
