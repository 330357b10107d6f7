//! Names of files that differ from job to job.

use std::{fmt, str::FromStr};

use crate::{limits::PATH_BYTES_MAX, problem::Malformed, text::as_text};

/// Where output goes: a path in which `%` and a letter stand for something of the job, as in Slurm.
///
/// | mark | becomes |
/// |---|---|
/// | `%j`, `%J` | the job's number; of a member of an array its own |
/// | `%A` | the number of the array's first job; without an array the job's |
/// | `%a` | the index in the array; without an array 0 |
/// | `%x` | the job's name |
/// | `%N` | the node's name, up to its first dot |
/// | `%n` | the node's number in the job, from 0 |
/// | `%t` | the rank, from 0 |
/// | `%u` | the user's name |
/// | `%s` | `batch`: there are no steps |
/// | `%%` | `%` |
///
/// Digits between (`%4t`) fill a number with zeros to so many places, at most 10. In a path with a backslash
/// nothing is replaced, and backslashes are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePattern(String);

/// What the marks of a pattern become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    pub job: u64,
    /// The array's first job, and the index in it.
    pub array: Option<(u64, u32)>,
    pub name: &'a str,
    pub user: &'a str,
    pub node: &'a str,
    /// In the job, from 0.
    pub node_index: u32,
    pub rank: u32,
}

/// What a pattern consists of.
enum Part<'a> {
    Text(&'a str),
    Mark { letter: char, width: usize },
}

/// Most places that a number is filled to.
const WIDTH_MAX: usize = 10;

impl FilePattern {
    /// Where output goes of which nothing was said.
    pub fn default_of(is_array: bool) -> Self {
        Self(if is_array { "ff2-%A_%a.out" } else { "ff2-%j.out" }.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for one job, node and rank. What would lead elsewhere in names (`/`, `..`) becomes `_`.
    pub fn expand(&self, names: &Names<'_>) -> String {
        if self.0.contains('\\') {
            return self.0.replace('\\', "");
        }
        let mut path = String::new();
        for part in parts(&self.0) {
            match part {
                Ok(Part::Text(text)) => path.push_str(text),
                Ok(Part::Mark { letter, width }) => path.push_str(&names.of(letter, width)),
                // There is none: the pattern was read.
                Err(()) => {}
            }
        }
        path
    }
}

impl Names<'_> {
    fn of(&self, letter: char, width: usize) -> String {
        let number = match letter {
            'j' | 'J' => self.job,
            'A' => self.array.map_or(self.job, |(first, _)| first),
            'a' => u64::from(self.array.map_or(0, |(_, index)| index)),
            'n' => u64::from(self.node_index),
            't' => u64::from(self.rank),
            'x' => return plain(self.name),
            'u' => return plain(self.user),
            'N' => return plain(self.node.split('.').next().unwrap_or_default()),
            's' => return "batch".to_owned(),
            other => return other.to_string(),
        };
        format!("{number:0width$}")
    }
}

/// A name as a part of a path.
fn plain(name: &str) -> String {
    let is_folder = matches!(name, "." | "..");
    let leads_on = |c: char| c == '/' || c.is_control() || (is_folder && c == '.');
    name.replace(leads_on, "_")
}

fn parts(pattern: &str) -> impl Iterator<Item = Result<Part<'_>, ()>> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        let Some(marked) = rest.strip_prefix('%') else {
            let end = rest.find('%').unwrap_or(rest.len());
            let (text, after) = rest.split_at(end);
            rest = after;
            return (!text.is_empty()).then_some(Ok(Part::Text(text)));
        };
        let letter_at = marked.find(|c: char| !c.is_ascii_digit()).unwrap_or(marked.len());
        let (width, after) = marked.split_at(letter_at);
        let width = match width {
            "" => 0,
            width => width.parse().map_or(WIDTH_MAX, |width: usize| width.min(WIDTH_MAX)),
        };
        let mut after = after.chars();
        let letter = after.next();
        rest = after.as_str();
        Some(match letter {
            Some('%') => Ok(Part::Text("%")),
            Some(letter) if "jJAaxNntus".contains(letter) => Ok(Part::Mark { letter, width }),
            _ => Err(()),
        })
    })
}

impl FromStr for FilePattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let is_path =
            !text.is_empty() && text.len() <= PATH_BYTES_MAX && !text.contains(char::is_control);
        let has_marks = !text.contains('\\');
        if !is_path || has_marks && parts(text).any(|part| part.is_err()) {
            let forms = "a path in which %j, %A, %a, %x, %N, %n, %t, %u and %% stand for something";
            return Err(Malformed::new(text, "file pattern", forms));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(FilePattern);

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names {
        job: 812,
        array: Some((800, 12)),
        name: "train/llama",
        user: "ada",
        node: "gpu017.zone1",
        node_index: 3,
        rank: 27,
    };

    #[test]
    fn marks_become_what_they_stand_for() {
        let table = [
            ("log/%x-%j.out", "log/train_llama-812.out"),
            ("%A_%a.err", "800_12.err"),
            ("%N-%n-%t", "gpu017-3-27"),
            ("%4t.%8A", "0027.00000800"),
            ("/home/%u/100%%", "/home/ada/100%"),
            ("plain", "plain"),
            ("%J.%s.%99a", "812.batch.0000000012"),
            ("\\%j%q", "%j%q"),
        ];
        for (text, path) in table {
            let pattern: FilePattern = text.parse().unwrap();
            assert_eq!(pattern.expand(&NAMES), path, "{text}");
        }
        let alone = Names { array: None, ..NAMES };
        let up = Names { name: "..", user: "a\nb", ..NAMES };
        assert_eq!("%x/%u".parse::<FilePattern>().unwrap().expand(&up), "__/a_b");
        assert_eq!("%A_%a".parse::<FilePattern>().unwrap().expand(&alone), "812_0");
        assert_eq!(FilePattern::default_of(false).expand(&alone), "ff2-812.out");
        assert_eq!(FilePattern::default_of(true).expand(&NAMES), "ff2-800_12.out");
        for text in ["", "%", "a%q", "a\nb", "%é", "a%5"] {
            assert!(text.parse::<FilePattern>().is_err(), "{text}");
        }
    }
}
