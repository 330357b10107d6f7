//! Words that become what is said of a job.

use crate::{
    options::{Known, Means, Takes, by_long, by_short, nearest},
    problem::{Findings, shown},
    request::JobRequest,
    words::Word,
};

/// Where options come from: it decides which are read and what a word that is none means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A line that Slurm reads as well.
    Sbatch,
    /// A line of our own.
    Ff2,
    Arguments,
}

/// Reads options, and adds to the findings what is wrong. Returns how many words were options: on a command
/// line the next one is the script or program.
pub(crate) fn read(
    words: &[Word],
    source: Source,
    job: &mut JobRequest,
    findings: &mut Findings,
) -> usize {
    let mut reader = Reader { words, next: 0, source, job, findings };
    while let Some(word) = words.get(reader.next) {
        if word.text == "--" && source == Source::Arguments {
            return reader.next + 1;
        }
        if let Some(long) = word.text.strip_prefix("--").filter(|long| !long.is_empty()) {
            reader.next += 1;
            reader.long(word, long);
        } else if word.text.len() > 1 && !word.text.starts_with("--") && word.text.starts_with('-')
        {
            reader.next += 1;
            reader.short(word);
        } else if source == Source::Arguments {
            return reader.next;
        } else {
            reader.next += 1;
            let problem =
                format!("{:?} is no option: expected - or -- in front", shown(&word.text));
            reader.findings.problem(word.place(0), problem);
        }
    }
    reader.next
}

struct Reader<'a> {
    words: &'a [Word],
    /// The next word that was not read.
    next: usize,
    source: Source,
    job: &'a mut JobRequest,
    findings: &'a mut Findings,
}

impl<'a> Reader<'a> {
    /// `--long`, `--long=value` or `--long value`.
    fn long(&mut self, word: &'a Word, long: &str) {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let Some(option) = by_long(name) else {
            let hint = match nearest(name) {
                Some(nearest) => format!("did you mean --{nearest}?"),
                None => "expected one of sbatch's or ours".to_owned(),
            };
            let problem = format!("{:?} is no option: {hint}", shown(&format!("--{name}")));
            self.findings.problem(word.place(0), problem);
            return self.skip_value();
        };
        let value_at = 2 + name.len() + 1;
        match (option.takes, value) {
            (Takes::Nothing, Some(value)) => {
                let problem =
                    format!("--{name}: {:?} is too much: expected no value", shown(value));
                self.findings.problem(word.place(value_at), problem);
            }
            (Takes::Value, None) => self.with_next(option, word),
            (_, value) => self.apply(option, word, value_at, value.unwrap_or_default()),
        }
    }

    /// `-s`, `-svalue`, `-s value`, or several letters of which only the last has a value.
    fn short(&mut self, word: &'a Word) {
        for (at, letter) in word.text.char_indices().skip(1) {
            let Some(option) = by_short(letter) else {
                let problem =
                    format!("{:?} is no option: expected one of sbatch's", format!("-{letter}"));
                self.findings.problem(word.place(at), problem);
                return self.skip_value();
            };
            let value_at = at + letter.len_utf8();
            let value = &word.text[value_at..];
            match option.takes {
                Takes::Nothing => self.apply(option, word, 0, ""),
                Takes::Value if value.is_empty() => return self.with_next(option, word),
                Takes::Value | Takes::Maybe => {
                    return self.apply(option, word, value_at, value);
                }
            }
        }
    }

    /// What stands behind an unknown option is likely its value: that is no problem of its own. On a command
    /// line it may as well be the script.
    fn skip_value(&mut self) {
        let is_value = |word: &Word| !word.text.starts_with('-');
        if self.source != Source::Arguments && self.words.get(self.next).is_some_and(is_value) {
            self.next += 1;
        }
    }

    /// An option whose value is the next word.
    fn with_next(&mut self, option: &Known, word: &'a Word) {
        match self.words.get(self.next).filter(|next| !next.text.starts_with("--")) {
            Some(value) => {
                self.next += 1;
                self.apply(option, value, 0, &value.text);
            }
            None => {
                let problem =
                    format!("{:?} has no value: expected one behind it", shown(&word.text));
                self.findings.problem(word.place(0), problem);
            }
        }
    }

    /// Does what an option means; its value begins at a byte of a word.
    fn apply(&mut self, option: &Known, word: &Word, value_at: usize, value: &str) {
        let long = option.long;
        let set = match option.means {
            Means::Missing(instead) => {
                let problem =
                    format!("--{long} is one of Slurm's options that we do not have: {instead}");
                return self.findings.problem(word.place(0), problem);
            }
            Means::NoMatter(why) => {
                let warning = format!("--{long} changes nothing here: {why}");
                return self.findings.warn(word.place(0), warning);
            }
            Means::Ours(_) if self.source == Source::Sbatch => {
                let problem =
                    format!("--{long} is not one of Slurm's options: expected it in an #FF2 line");
                return self.findings.problem(word.place(0), problem);
            }
            Means::Slurm(set) | Means::Ours(set) => set,
        };
        // An empty value that was said is not the same as none.
        let said_empty = option.takes == Takes::Maybe && word.text.ends_with('=');
        let result = if said_empty {
            Err(format!("--{long} has an empty value: expected one, or no ="))
        } else {
            set(self.job, value).map_err(|malformed| format!("--{long}: {malformed}"))
        };
        if let Err(problem) = result {
            self.findings.problem(word.place(value_at), problem);
        }
    }
}
