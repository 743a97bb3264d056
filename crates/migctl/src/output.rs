//! The only place that writes: answers to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::error::ContextKind;
use serde::Serialize;

use crate::args::{Color, Format, Options};
use crate::failure::{Exit, Failure};

/// Where and how a verb answers.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    format: Format,
    /// Whether stderr is coloured.
    colored: bool,
}

#[derive(Serialize)]
struct ErrorLine<'f> {
    error: ErrorBody<'f>,
}

#[derive(Serialize)]
struct ErrorBody<'f> {
    kind: &'f str,
    message: &'f str,
    hints: &'f [String],
    exit: u8,
}

impl Output {
    pub(crate) fn new(options: &Options) -> Self {
        let colored = is_colored(options.color, io::stderr().is_terminal());
        Self { format: options.output, colored }
    }

    /// The verb's answer: a value for machines, and how it looks to people.
    pub(crate) fn answer<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        self.drawing(value, |value| printable(&text(value)))
    }

    /// The same where people see a drawing, which has colours of our own: `draw` makes names [`printable`].
    pub(crate) fn drawing<T: Serialize>(&self, value: &T, draw: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let broken = |error: String| Failure::failed("Output", format!("unable to write the answer: {error}"));
        let answer = match self.format {
            Format::Table => draw(value),
            Format::Json => {
                let mut json = serde_json::to_string_pretty(value).map_err(|error| broken(error.to_string()))?;
                json.push('\n');
                json
            }
            Format::Yaml => serde_saphyr::to_string(value).map_err(|error| broken(error.to_string()))?,
        };
        self.raw(answer.as_bytes())
    }

    /// Whether people read the answer, rather than programs.
    pub(crate) fn is_for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Bytes as they are: scripts, pages, files.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
    }

    /// What is going on, a line.
    pub(crate) fn note(&self, text: &str) {
        // Nobody to tell is no reason to stop half way.
        let _ = writeln!(io::stderr(), "{}", printable(text));
    }

    /// Something the user should know, though the verb goes on.
    pub(crate) fn warn(&self, text: &str) {
        self.labelled("warning", AnsiColor::Yellow, text);
    }

    /// Tells why a verb failed, and gives its exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> ExitCode {
        if failure.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        self.error(failure);
        ExitCode::from(failure.exit as u8)
    }

    /// One failure of several, or the only one.
    pub(crate) fn error(&self, failure: &Failure) {
        if self.format == Format::Json {
            let Failure { exit, kind, message, hints } = failure;
            let line = ErrorLine { error: ErrorBody { kind, message, hints, exit: *exit as u8 } };
            let _ = writeln!(io::stderr(), "{}", serde_json::to_string(&line).unwrap_or_default());
            return;
        }
        self.labelled("error", AnsiColor::Red, &failure.message);
        for hint in &failure.hints {
            self.labelled("hint", AnsiColor::Cyan, hint);
        }
    }

    fn labelled(&self, label: &str, color: AnsiColor, text: &str) {
        let style = if self.colored { Style::new().bold().fg_color(Some(color.into())) } else { Style::new() };
        let _ = writeln!(io::stderr(), "{style}{label}{style:#}: {}", printable(text));
    }
}

/// What clap has to say: help and version to stdout, errors to stderr.
pub(crate) fn usage(mut error: clap::Error) -> ExitCode {
    // It repeats every option that a variable has set.
    error.remove(ContextKind::Usage);
    match error.print() {
        Err(broken) if broken.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: unable to write the answer: {broken}");
            ExitCode::from(Exit::Failed as u8)
        }
        _ if error.use_stderr() => ExitCode::from(Exit::Usage as u8),
        _ => ExitCode::SUCCESS,
    }
}

/// Whether to colour what goes to a stream.
pub(crate) fn is_colored(color: Color, is_terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

/// Names of processes, pods and GPUs come from others: nothing in them may steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{9b}"), "a\\u{1b}[2Jb\\r\nc\\u{9b}");
    }
}
