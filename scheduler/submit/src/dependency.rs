//! Which jobs have to come before.

use std::{fmt, str::FromStr};

use crate::{
    limits::DEPENDENCIES_MAX,
    problem::Malformed,
    text::{as_text, digits},
};

/// A job of the queue, or one of an array: `12`, or `12_3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobRef {
    pub job: u64,
    pub index: Option<u32>,
}

/// What has to become of another job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// It started (or was cancelled), and so many minutes passed.
    After { job: JobRef, minutes: u32 },
    /// It ended, however.
    AfterAny(JobRef),
    /// It failed.
    AfterNotOk(JobRef),
    /// It succeeded.
    AfterOk(JobRef),
    /// All earlier jobs of the same user and name ended.
    Singleton,
}

/// As Slurm writes them: `afterok:12:13,afterany:14`, with `?` instead of `,` if one of them is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// At least one.
    of: Vec<Dependency>,
    any: bool,
}

impl Dependencies {
    pub fn list(&self) -> &[Dependency] {
        &self.of
    }

    /// Whether one of them is enough.
    pub fn any(&self) -> bool {
        self.any
    }
}

const FORMS: &str = "after, afterany, afternotok or afterok with :JOB for each job, or singleton, \
    all of them parted by , or all by ?";

fn parse_job(text: &str) -> Option<JobRef> {
    match text.split_once('_') {
        Some((job, index)) => Some(JobRef { job: digits(job)?, index: Some(digits(index)?) }),
        None => Some(JobRef { job: digits(text)?, index: None }),
    }
}

/// One kind with its jobs.
fn parse_kind(text: &str, to: &mut Vec<Dependency>) -> Option<()> {
    let Some((kind, jobs)) = text.split_once(':') else {
        // A bare number is Slurm's older notation.
        to.push(match text {
            "singleton" => Dependency::Singleton,
            job => Dependency::AfterAny(parse_job(job)?),
        });
        return Some(());
    };
    for job in jobs.split(':') {
        to.push(match kind {
            "after" => {
                let (job, minutes) = job.split_once('+').unwrap_or((job, "0"));
                Dependency::After { job: parse_job(job)?, minutes: digits(minutes)? }
            }
            "afterany" => Dependency::AfterAny(parse_job(job)?),
            "afternotok" => Dependency::AfterNotOk(parse_job(job)?),
            "afterok" => Dependency::AfterOk(parse_job(job)?),
            _ => return None,
        });
    }
    Some(())
}

impl FromStr for Dependencies {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let any = text.contains('?');
        let mut of = Vec::new();
        for part in text.split(if any { '?' } else { ',' }) {
            parse_kind(part, &mut of).ok_or_else(|| Malformed::new(text, "dependency", FORMS))?;
            if of.len() > DEPENDENCIES_MAX {
                let most = format!("at most {DEPENDENCIES_MAX} jobs");
                return Err(Malformed::new(text, "dependency", most));
            }
        }
        // One alone is both; it is written without a mark.
        Ok(Self { any: any && of.len() > 1, of })
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}_{index}", self.job),
            None => write!(f, "{}", self.job),
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After { job, minutes: 0 } => write!(f, "after:{job}"),
            Self::After { job, minutes } => write!(f, "after:{job}+{minutes}"),
            Self::AfterAny(job) => write!(f, "afterany:{job}"),
            Self::AfterNotOk(job) => write!(f, "afternotok:{job}"),
            Self::AfterOk(job) => write!(f, "afterok:{job}"),
            Self::Singleton => write!(f, "singleton"),
        }
    }
}

impl fmt::Display for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, dependency) in self.of.iter().enumerate() {
            let mark = match (place, self.any) {
                (0, _) => "",
                (_, true) => "?",
                (_, false) => ",",
            };
            write!(f, "{mark}{dependency}")?;
        }
        Ok(())
    }
}

as_text!(Dependencies);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_as_slurm_does() {
        let table = [
            ("afterok:12", "afterok:12", false),
            ("afterok:12:13_4", "afterok:12,afterok:13_4", false),
            ("afterany:1,afternotok:2", "afterany:1,afternotok:2", false),
            ("afterok:1?afternotok:2:3", "afterok:1?afternotok:2?afternotok:3", true),
            ("after:7+90:8", "after:7+90,after:8", false),
            ("singleton", "singleton", false),
            ("singleton,afterok:3", "singleton,afterok:3", false),
            ("123", "afterany:123", false),
        ];
        for (text, shown, any) in table {
            let dependencies: Dependencies = text.parse().unwrap();
            assert_eq!(dependencies.to_string(), shown, "{text}");
            assert_eq!(dependencies.any(), any, "{text}");
            assert_eq!(shown.parse(), Ok(dependencies));
        }
        for text in [
            "",
            "afterok",
            "afterok:",
            "afterok:x",
            "ok:1",
            "afterok:1,",
            "afterok:1+5",
            "afterok:1,after:2?after:3",
        ] {
            assert!(text.parse::<Dependencies>().is_err(), "{text}");
        }
    }
}
