//! The indexes of an array of jobs.

use std::{collections::BTreeSet, fmt, num::NonZeroU32, str::FromStr};

use crate::{
    limits::ARRAY_JOBS_MAX,
    problem::Malformed,
    text::{as_text, digits},
};

/// Jobs that differ by an index alone: `1-10`, `0-15:4`, `1,3,5-7`, each with `%4` if so many may run at once.
///
/// One that there is has at least one index and at most [`ARRAY_JOBS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    runs: Vec<Run>,
    at_once: Option<NonZeroU32>,
}

/// `first`, `first + step` and so on up to `last`, which may lie between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    step: NonZeroU32,
}

impl Run {
    fn count(self) -> u64 {
        u64::from((self.last - self.first) / self.step) + 1
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, step) = match text.split_once(':') {
            Some((range, step)) => (range, Some(digits::<NonZeroU32>(step)?)),
            None => (text, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (digits(first)?, digits(last)?),
            // A step without an end says nothing.
            None if step.is_some() => return None,
            None => (digits(range)?, digits(range)?),
        };
        (first <= last).then_some(Self { first, last, step: step.unwrap_or(NonZeroU32::MIN) })
    }
}

impl Array {
    /// All indexes, each once, from the lowest.
    pub fn expand(&self) -> Vec<u32> {
        let of = |run: &Run| (run.first..=run.last).step_by(run.step.get() as usize);
        let indexes: BTreeSet<u32> = self.runs.iter().flat_map(of).collect();
        indexes.into_iter().collect()
    }

    /// How many of them may run at the same time; any number if nothing was said.
    pub fn at_once(&self) -> Option<NonZeroU32> {
        self.at_once
    }
}

impl FromStr for Array {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            let forms = "1-10, 0-15:4 or 1,3,5-7, with %4 behind it if four may run at once";
            Malformed::new(text, "array", forms)
        };
        let (indexes, at_once) = match text.split_once('%') {
            Some((indexes, at_once)) => (indexes, Some(digits(at_once).ok_or_else(malformed)?)),
            None => (text, None),
        };
        let mut runs = Vec::new();
        // Indexes that are named twice count twice: what a text costs is bounded before it is expanded.
        let mut count = 0;
        for part in indexes.split(',') {
            let run = Run::parse(part).ok_or_else(malformed)?;
            count += run.count();
            if count > u64::from(ARRAY_JOBS_MAX) {
                return Err(Malformed::new(
                    text,
                    "array",
                    format!("at most {ARRAY_JOBS_MAX} indexes"),
                ));
            }
            runs.push(run);
        }
        Ok(Self { runs, at_once })
    }
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, run) in self.runs.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}", run.first)?;
            if run.last != run.first {
                write!(f, "-{}", run.last)?;
            }
            if run.last != run.first && run.step.get() != 1 {
                write!(f, ":{}", run.step)?;
            }
        }
        match self.at_once {
            Some(at_once) => write!(f, "%{at_once}"),
            None => Ok(()),
        }
    }
}

as_text!(Array);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_expand() {
        let table: [(&str, &[u32], Option<u32>); 6] = [
            ("1-4", &[1, 2, 3, 4], None),
            ("0-15:4", &[0, 4, 8, 12], None),
            ("1,3,5-7", &[1, 3, 5, 6, 7], None),
            ("5-7,6,1", &[1, 5, 6, 7], None),
            ("7", &[7], None),
            ("1-10:9%4", &[1, 10], Some(4)),
        ];
        for (text, indexes, at_once) in table {
            let array: Array = text.parse().unwrap();
            assert_eq!(array.expand(), indexes, "{text}");
            assert_eq!(array.at_once().map(NonZeroU32::get), at_once, "{text}");
            assert_eq!(array.to_string(), text);
        }
        for text in [
            "", ",", "1-", "-1", "4-1", "1-4:0", "1:2", "1-4%", "1-4%0", "1-4%2%3", "a", "1;2",
            "1 2",
        ] {
            assert!(text.parse::<Array>().is_err(), "{text}");
        }
    }

    #[test]
    fn arrays_are_bounded() {
        assert_eq!("1-100000".parse::<Array>().unwrap().expand().len(), 100_000);
        assert_eq!("0-4294967295:42950".parse::<Array>().unwrap().expand().len(), 100_000);
        for text in ["0-100000", "0-4294967295", "1-60000,1-60000"] {
            let problem = text.parse::<Array>().unwrap_err();
            assert_eq!(problem.expected, "at most 100000 indexes", "{text}");
        }
    }
}
