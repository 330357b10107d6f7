//! The class of a job.

use std::{fmt, str::FromStr};

use crate::{problem::Malformed, text::as_text};

/// The classes of the scheduler; jobs of a higher one go first and may preempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Takes what nobody else wants.
    Idle,
    UnderNormal,
    Normal,
    AboveNormal,
    High,
    VeryHigh,
    Extreme,
}

const NAMES: [(Priority, &str); 7] = [
    (Priority::Idle, "idle"),
    (Priority::UnderNormal, "under-normal"),
    (Priority::Normal, "normal"),
    (Priority::AboveNormal, "above-normal"),
    (Priority::High, "high"),
    (Priority::VeryHigh, "very-high"),
    (Priority::Extreme, "extreme"),
];

impl FromStr for Priority {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let plain = text.to_ascii_lowercase().replace('_', "-");
        let found = NAMES.iter().find(|(_, name)| *name == plain);
        found.map(|(priority, _)| *priority).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
            Malformed::new(text, "priority", names.join(", "))
        })
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(priority, _)| priority == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

as_text!(Priority);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_names() {
        for (priority, name) in NAMES {
            assert_eq!(name.parse(), Ok(priority));
            assert_eq!(priority.to_string(), name);
        }
        assert_eq!("Above_Normal".parse(), Ok(Priority::AboveNormal));
        let problem = "50".parse::<Priority>().unwrap_err();
        assert_eq!(
            problem.to_string(),
            "\"50\" is no priority: expected idle, under-normal, normal, above-normal, high, very-high, extreme"
        );
    }
}
