//! What a job is told when it has to stop, and how long before.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    limits::GRACE_SECONDS,
    problem::Malformed,
    text::{as_text, digits},
};

/// How long a job has to save what it needs, 5 to 300 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace {
    seconds: u16,
}

impl Grace {
    /// None if it is too short or too long.
    pub fn from_seconds(seconds: u16) -> Option<Self> {
        GRACE_SECONDS.contains(&seconds).then_some(Self { seconds })
    }

    pub fn seconds(self) -> u16 {
        self.seconds
    }
}

impl FromStr for Grace {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (least, most) = (GRACE_SECONDS.start(), GRACE_SECONDS.end());
        digits(text)
            .and_then(Self::from_seconds)
            .ok_or_else(|| Malformed::new(text, "grace", format!("{least} to {most} seconds")))
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seconds)
    }
}

impl Serialize for Grace {
    /// As a number: text would be put in quotes.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(self.seconds)
    }
}

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Signals by their names, without `SIG`, and their numbers on Linux.
const NAMES: [(&str, u8); 12] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("ALRM", 14),
    ("TERM", 15),
    ("CONT", 18),
    ("STOP", 19),
    ("URG", 23),
];

/// `[B:]NAME[@SECONDS]`, as Slurm writes it; a number may stand for the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Linux's number, 1 to 64.
    number: u8,
    /// Only the script's own shell gets it, not what it started.
    script_only: bool,
    grace: Option<Grace>,
}

impl Signal {
    pub fn number(self) -> u8 {
        self.number
    }

    pub fn script_only(self) -> bool {
        self.script_only
    }

    /// What stood behind the `@`.
    pub fn grace(self) -> Option<Grace> {
        self.grace
    }
}

fn parse_number(text: &str) -> Option<u8> {
    if let Some(number) = digits::<u8>(text) {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

impl FromStr for Signal {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (signal, grace) = match text.split_once('@') {
            Some((signal, grace)) => (signal, Some(grace.parse()?)),
            None => (text, None),
        };
        let (script_only, name) = match signal.strip_prefix("B:") {
            Some(name) => (true, name),
            None => (false, signal),
        };
        let number = parse_number(name).ok_or_else(|| {
            let forms = "NAME, B:NAME or NAME@SECONDS, the name such as USR1, TERM or 10";
            Malformed::new(text, "signal", forms)
        })?;
        Ok(Self { number, script_only, grace })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.script_only {
            write!(f, "B:")?;
        }
        match NAMES.iter().find(|(_, number)| *number == self.number) {
            Some((name, _)) => write!(f, "{name}")?,
            None => write!(f, "{}", self.number)?,
        }
        match self.grace {
            Some(grace) => write!(f, "@{grace}"),
            None => Ok(()),
        }
    }
}

as_text!(Signal);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_slurm_does() {
        let table = [
            ("USR1", "USR1", 10, false, None),
            ("SIGUSR2@120", "USR2@120", 12, false, Some(120)),
            ("B:term@5", "B:TERM@5", 15, true, Some(5)),
            ("34@300", "34@300", 34, false, Some(300)),
        ];
        for (text, shown, number, script_only, grace) in table {
            let signal: Signal = text.parse().unwrap();
            assert_eq!(signal.to_string(), shown);
            assert_eq!(shown.parse(), Ok(signal));
            assert_eq!((signal.number(), signal.script_only()), (number, script_only));
            assert_eq!(signal.grace().map(Grace::seconds), grace);
        }
        for text in
            ["", "B:", "USR3", "0", "65", "USR1@", "USR1@4", "USR1@301", "R:USR1", "B:B:USR1"]
        {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        let problem = "USR1@600".parse::<Signal>().unwrap_err();
        assert_eq!(problem.to_string(), "\"600\" is no grace: expected 5 to 300 seconds");
    }
}
