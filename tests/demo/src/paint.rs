//! Colour, where it is wanted.

use std::{env, io::IsTerminal};

use clap::ValueEnum;

/// The value of `--color`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ColorChoice {
    /// When standard output is a terminal
    #[default]
    Auto,
    /// Even into a file
    Always,
    /// Not at all
    Never,
}

/// The few inks that there are, from the sixteen colours that a user's terminal theme defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    Bold,
    Dim,
    /// Of the pod with this number.
    Pod(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    pub(crate) fn new(choice: ColorChoice) -> Self {
        let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE") && env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let on = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => forced || !set("NO_COLOR") && std::io::stdout().is_terminal(),
        };
        Self { on }
    }

    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Self { on: false }
    }

    pub(crate) fn ink(self, ink: Ink, text: &str) -> String {
        const PODS: [&str; 6] = ["1;32", "1;36", "1;35", "1;33", "1;34", "1;31"];
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Pod(number) => PODS.get(number % PODS.len()).copied().unwrap_or("1"),
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
