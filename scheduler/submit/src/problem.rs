//! What is wrong with that which was handed in, and where.

use std::fmt;

use crate::limits::PROBLEMS_MAX;

/// Where something stands. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a script or a YAML file.
    Line { line: u32, column: u32 },
    /// On a command line: the number of the word, from 1.
    Argument(u32),
    /// Of the whole text.
    Whole,
}

impl Place {
    pub(crate) fn line(line: usize, column: usize) -> Self {
        Self::Line { line: number(line), column: number(column) }
    }

    pub(crate) fn argument(index: usize) -> Self {
        Self::Argument(number(index + 1))
    }
}

/// Texts are bounded far below what a `u32` counts.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, column } => write!(f, "line {line}, column {column}"),
            Self::Argument(index) => write!(f, "argument {index}"),
            Self::Whole => write!(f, "in all"),
        }
    }
}

/// A text that is no value of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}: expected {expected}")]
pub struct Malformed {
    pub found: String,
    /// The kind of value.
    pub what: &'static str,
    /// What such a value looks like.
    pub expected: String,
}

impl Malformed {
    pub(crate) fn new(found: &str, what: &'static str, expected: impl Into<String>) -> Self {
        Self { found: shown(found), what, expected: expected.into() }
    }
}

/// Something that keeps the text from being a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Problem {
    pub at: Place,
    /// What stands there, what it is not, and what was expected.
    pub what: String,
}

/// Something that is not as its author may think, and that changes nothing of what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub at: Place,
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// All that is wrong with a text, in the order of the text; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    /// How many more there were than [`PROBLEMS_MAX`].
    left_out: usize,
}

impl Problems {
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    pub(crate) fn one(at: Place, what: impl Into<String>) -> Self {
        Self { list: vec![Problem { at, what: what.into() }], left_out: 0 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        match self.left_out {
            0 => Ok(()),
            left_out => write!(f, "\nand {left_out} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// What was found while a text was read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    left_out: usize,
    warnings: Vec<Warning>,
}

impl Findings {
    pub(crate) fn problem(&mut self, at: Place, what: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { at, what: what.into() });
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn warn(&mut self, at: Place, what: impl Into<String>) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(Warning { at, what: what.into() });
        }
    }

    pub(crate) fn end(self) -> Result<Vec<Warning>, Problems> {
        if self.problems.is_empty() {
            return Ok(self.warnings);
        }
        Err(Problems { list: self.problems, left_out: self.left_out })
    }
}

/// The beginning of what stands somewhere: a message is no place for a page.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
