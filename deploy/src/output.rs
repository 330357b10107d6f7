//! What commands print: JSON for programs, tables and sentences for people.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Tables that go to a file or a pipe are not cut to any width.
const WIDTH_OF_PIPES: u16 = 10_000;

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `value` as JSON, or what `people` makes of it.
    pub(crate) fn print(self, value: &Value, people: impl FnOnce() -> String) -> Result<()> {
        let mut text = if self.json { serde_json::to_string_pretty(value)? } else { people() };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        match io::stdout().write_all(text.as_bytes()) {
            // `ff2ctl ... | head` is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// What standard error says of a failed command.
    pub(crate) fn failure(self, error: &anyhow::Error) -> String {
        match self.json {
            true => json!({ "error": format!("{error:#}") }).to_string(),
            false => format!("ff2ctl: {error:#}"),
        }
    }

    /// Says on standard error what a long command is doing.
    pub(crate) fn progress(self) -> Progress {
        Progress::new(io::stderr().is_terminal() && !self.json, self.json)
    }
}

/// A table that fits the terminal.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width());
    table.set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    // The style pads cells on both sides; the first column needs none.
    let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.map(|line| line.to_owned() + "\n").collect()
}

fn width() -> u16 {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return WIDTH_OF_PIPES;
    }
    let size = rustix::termios::tcgetwinsize(&stdout);
    size.map_or(80, |size| size.ws_col.max(40))
}

/// A line that tells what happens; lines without a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    quiet: bool,
}

impl Progress {
    fn new(terminal: bool, quiet: bool) -> Self {
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} [{elapsed}] {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, plain: !terminal && !quiet, quiet }
    }

    /// The step that is being done; it may change many times a second.
    pub(crate) fn now(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// A step that is done and stays on the screen.
    pub(crate) fn done(&self, what: &str) {
        if self.plain {
            eprintln!("{what}");
        } else if !self.quiet {
            self.bar.println(what);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_for_people_or_for_programs() {
        let error = anyhow::anyhow!("no \"x\"").context("look");
        assert_eq!(Output::new(false).failure(&error), "ff2ctl: look: no \"x\"");
        let value: Value = serde_json::from_str(&Output::new(true).failure(&error)).unwrap();
        assert_eq!(value["error"], "look: no \"x\"");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text =
            table(&["a", "bb"], [vec!["1".into(), "2".into()], vec!["333".into(), String::new()]]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text:?}");
    }
}
