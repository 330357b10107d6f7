//! How long a job may run.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    problem::Malformed,
    text::{as_text, digits},
};

/// A time limit as Slurm writes it, at least one second.
///
/// Read from `MINUTES`, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`; written as `HH:MM:SS`,
/// with `D-` in front from one day on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeLimit {
    seconds: u64,
}

impl TimeLimit {
    /// None of less than a second.
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (seconds > 0).then_some(Self { seconds })
    }

    pub fn seconds(self) -> u64 {
        self.seconds
    }

    pub fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// The seconds that a text says, 0 among them.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(digits::<u32>(days)?), rest),
        None => (None, text),
    };
    let parts: Vec<u64> = rest
        .splitn(4, ':')
        .map(|part| digits::<u32>(part).map(u64::from))
        .collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (days, parts[..].as_ref()) {
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    // Each number is below 2^32, so the sum is far below 2^64.
    Some(((u64::from(days.unwrap_or(0)) * 24 + hours) * 60 + minutes) * 60 + seconds)
}

impl FromStr for TimeLimit {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const FORMS: &str = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, more than 0";
        seconds(text)
            .and_then(Self::from_seconds)
            .ok_or_else(|| Malformed::new(text, "time limit", FORMS))
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.seconds / 86_400, self.seconds % 86_400);
        if days > 0 {
            write!(f, "{days}-")?;
        }
        write!(f, "{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
    }
}

as_text!(TimeLimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_does() {
        let table = [
            ("90", "01:30:00"),
            ("1:30", "00:01:30"),
            ("12:00:00", "12:00:00"),
            ("48:00:00", "2-00:00:00"),
            ("2-12", "2-12:00:00"),
            ("2-12:30", "2-12:30:00"),
            ("2-12:30:59", "2-12:30:59"),
            ("00:00:01", "00:00:01"),
        ];
        for (text, shown) in table {
            let limit: TimeLimit = text.parse().unwrap();
            assert_eq!(limit.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(limit));
        }
        for text in
            ["", "0", "0:00", "-1", "1-", "-", "1:2:3:4", "1.5", "1h", "+3", "1-2-3", "99999999999"]
        {
            assert!(text.parse::<TimeLimit>().is_err(), "{text}");
        }
        assert_eq!(
            "1h".parse::<TimeLimit>().unwrap_err().to_string(),
            "\"1h\" is no time limit: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, more than 0"
        );
    }
}
