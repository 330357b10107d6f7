//! Options as sbatch has them: in `#SBATCH` and `#FF2` lines, and on the command line.

mod known;
mod others;
mod read;

pub(crate) use read::{Source, read};

use crate::{problem::Malformed, request::JobRequest};

/// One option.
struct Known {
    long: &'static str,
    short: Option<char>,
    takes: Takes,
    means: Means,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// Only with `=` between, or directly behind the letter.
    Maybe,
}

/// Says one thing of a job. The value is empty where none was given.
type Set = fn(&mut JobRequest, &str) -> Result<(), Malformed>;

#[derive(Clone, Copy)]
enum Means {
    Slurm(Set),
    /// Not one of Slurm's.
    Ours(Set),
    /// Slurm has it; without it the same runs. Why that is so.
    NoMatter(&'static str),
    /// Slurm has it, and without it something else would run. What to do instead.
    Missing(&'static str),
}

fn all() -> impl Iterator<Item = &'static Known> {
    known::OPTIONS.iter().chain(others::OPTIONS.iter())
}

fn by_long(name: &str) -> Option<&'static Known> {
    all().find(|option| option.long == name)
}

fn by_short(letter: char) -> Option<&'static Known> {
    all().find(|option| option.short == Some(letter))
}

/// The name that somebody may have meant. Abbreviations come first.
fn nearest(name: &str) -> Option<&'static str> {
    /// Longest name that is compared; no option is nearly as long.
    const COMPARED_BYTES: usize = 40;
    if name.is_empty() || name.len() > COMPARED_BYTES {
        return None;
    }
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let names = || known::OPTIONS.iter().map(|option| option.long);
    let abbreviated = names().filter(|long| long.starts_with(&lower)).min_by_key(|long| long.len());
    abbreviated.or_else(|| {
        let (distance, long) =
            names().map(|long| (strsim::osa_distance(&lower, long), long)).min()?;
        (distance <= 1 + lower.len() / 4).then_some(long)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_there_once() {
        let longs: BTreeSet<&str> = all().map(|option| option.long).collect();
        assert_eq!(longs.len(), all().count());
        let shorts: Vec<char> = all().filter_map(|option| option.short).collect();
        assert_eq!(shorts.iter().collect::<BTreeSet<_>>().len(), shorts.len());
    }

    #[test]
    fn who_mistypes_is_told_the_nearest() {
        let table = [
            ("tim", Some("time")),
            ("jobname", Some("job-name")),
            ("ntask", Some("ntasks")),
            ("ntasks-per-nodes", Some("ntasks-per-node")),
            ("job_name", Some("job-name")),
            ("parition", Some("partition")),
            ("gpu", Some("gpus")),
            ("colour", None),
            ("", None),
        ];
        for (name, meant) in table {
            assert_eq!(nearest(name), meant, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20)), None);
    }
}
