//! How often a job saves, and how much.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    limits::{CHECKPOINT_SECONDS, STEP_SECONDS},
    memory::Memory,
    problem::Malformed,
    text::{as_text, digits},
    time::{TimeLimit, seconds},
};

/// What a job tells of its checkpoints, so that the scheduler can have jobs write one after the other.
///
/// Read from and written as `INTERVAL[,SIZE][,STEPs]`: the interval as a time limit, the size on each node as an amount
/// of memory, and how many seconds a step takes at most, such as `5,40G,12s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    interval: TimeLimit,
    mib_of_node: Option<u32>,
    step_seconds: Option<u16>,
}

impl Checkpoint {
    /// From one to the next.
    pub fn interval(self) -> Duration {
        self.interval.duration()
    }

    /// On each node.
    pub fn bytes_of_node(self) -> Option<u64> {
        Some(u64::from(self.mib_of_node?) << 20)
    }

    /// The longest time from a moment until the job can begin to save.
    pub fn step(self) -> Option<Duration> {
        Some(Duration::from_secs(self.step_seconds?.into()))
    }
}

impl FromStr for Checkpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            let forms = "INTERVAL,SIZE,STEPs such as 5,40G,12s, the last two if they are known: minutes or HH:MM:SS \
                         from 1 minute to a day, what each node saves, and the seconds of a step, from 1 to 3600";
            Malformed::new(text, "way to save", forms)
        };
        let mut parts = text.split(',').peekable();
        let interval = parts.next().and_then(seconds).filter(|s| CHECKPOINT_SECONDS.contains(s));
        let interval = interval.and_then(TimeLimit::from_seconds).ok_or_else(malformed)?;
        let is_step = |part: &str| part.ends_with('s');
        let size = match parts.next_if(|part| !is_step(part)).map(str::parse) {
            None => None,
            Some(Ok(Memory::Mib(mib))) => Some(mib),
            Some(Ok(Memory::All) | Err(_)) => return Err(malformed()),
        };
        let step = match parts.next().map(|part| part.strip_suffix('s').and_then(digits)) {
            None => None,
            Some(Some(step)) if STEP_SECONDS.contains(&step) => Some(step),
            Some(_) => return Err(malformed()),
        };
        match parts.next() {
            None => Ok(Self { interval, mib_of_node: size, step_seconds: step }),
            Some(_) => Err(malformed()),
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.interval)?;
        if let Some(mib) = self.mib_of_node {
            write!(f, ",{}", Memory::Mib(mib))?;
        }
        match self.step_seconds {
            Some(step) => write!(f, ",{step}s"),
            None => Ok(()),
        }
    }
}

as_text!(Checkpoint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_read_and_written() {
        let table = [
            ("5", "00:05:00", 300, None, None),
            ("5,40G", "00:05:00,40G", 300, Some(40 << 30), None),
            ("1:30,512", "00:01:30,512M", 90, Some(512 << 20), None),
            ("1:00:00,12s", "01:00:00,12s", 3_600, None, Some(12)),
            ("1-0,2T,3600s", "1-00:00:00,2T,3600s", 86_400, Some(2 << 40), Some(3_600)),
        ];
        for (text, shown, interval, bytes, step) in table {
            let checkpoint: Checkpoint = text.parse().unwrap();
            assert_eq!(checkpoint.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(checkpoint));
            assert_eq!(checkpoint.interval(), Duration::from_secs(interval));
            assert_eq!(checkpoint.bytes_of_node(), bytes, "{text}");
            assert_eq!(checkpoint.step(), step.map(Duration::from_secs), "{text}");
        }
        let wrong = [
            "",
            "0",
            "0:59",
            "2-0",
            "5,",
            ",40G",
            "5,all",
            "5,0",
            "5,40X",
            "5,12s,40G",
            "5,0s",
            "5,3601s",
            "5,40G,12",
            "5,40G,12s,",
            "5,s",
            "5 ,40G",
            "5m",
            "12s",
        ];
        for text in wrong {
            assert!(text.parse::<Checkpoint>().is_err(), "{text}");
        }
    }
}
