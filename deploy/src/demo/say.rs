//! What the demo prints. A reader that goes away (`ff2ctl demo | head`) must not end it in the middle.

use std::io::{self, IsTerminal, Write};

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    quiet: bool,
    styled: bool,
}

impl Say {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, styled: io::stdout().is_terminal() }
    }

    pub(super) fn is_quiet(self) -> bool {
        self.quiet
    }

    pub(super) fn heading(self, text: &str) {
        let (bold, plain) = if self.styled { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("\n{bold}== {text}{plain}"));
    }

    /// A command, before it runs.
    pub(super) fn command(self, text: &str) {
        let (dim, plain) = if self.styled { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("{dim}$ {text}{plain}"));
    }

    pub(super) fn line(self, text: &str) {
        if !self.quiet {
            print(text);
        }
    }
}

/// Prints also where the rest is quiet.
pub(super) fn print(text: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A problem that does not end the demo.
pub(super) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "ff2ctl demo: {text}");
}
