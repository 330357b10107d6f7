//! The options that say something of a job.

use crate::{
    gpus::Gpus,
    inherit::{Inherit, is_name},
    options::{
        Known,
        Means::{Ours, Slurm},
        Takes,
    },
    priority::Priority,
    problem::Malformed,
    request::JobRequest,
    text::{count, digits},
};

const fn value(long: &'static str, short: Option<char>, set: super::Set) -> Known {
    Known { long, short, takes: Takes::Value, means: Slurm(set) }
}

const fn plain(long: &'static str, set: super::Set) -> Known {
    Known { long, short: None, takes: Takes::Nothing, means: Slurm(set) }
}

const fn ours(long: &'static str, set: super::Set) -> Known {
    Known { long, short: None, takes: Takes::Value, means: Ours(set) }
}

/// Sets a field to what the text says.
macro_rules! parsed {
    ($field:ident) => {
        |job, text| {
            job.$field = Some(text.parse()?);
            Ok(())
        }
    };
}

macro_rules! counted {
    ($field:ident, $what:literal) => {
        |job, text| {
            job.$field = Some(count::parse(text, $what)?);
            Ok(())
        }
    };
}

macro_rules! worded {
    ($field:ident, $what:literal) => {
        |job, text| {
            job.$field = Some(line(text, $what)?);
            Ok(())
        }
    };
}

macro_rules! said {
    ($field:ident, $value:literal) => {
        |job, _| {
            job.$field = Some($value);
            Ok(())
        }
    };
}

pub(super) static OPTIONS: [Known; 35] = [
    value("account", Some('A'), worded!(group, "account")),
    value("array", Some('a'), parsed!(array)),
    value("chdir", Some('D'), worded!(work_dir, "folder")),
    value("constraint", Some('C'), constraint),
    value("comment", None, worded!(comment, "comment")),
    value("cpus-per-task", Some('c'), counted!(cpus_per_rank, "number of cores")),
    value("dependency", Some('d'), parsed!(dependency)),
    value("error", Some('e'), parsed!(error)),
    Known { long: "exclusive", short: None, takes: Takes::Maybe, means: Slurm(exclusive) },
    value("export", None, export),
    value("gpus", Some('G'), parsed!(gpus)),
    value("gpus-per-node", None, parsed!(gpus_per_node)),
    value("gpus-per-task", None, parsed!(gpus_per_rank)),
    value("gres", None, |job, text| {
        job.gpus_per_node = Some(Gpus::from_gres(text)?);
        Ok(())
    }),
    value("job-name", Some('J'), worded!(name, "name")),
    value("mem", None, parsed!(memory_per_node)),
    Known { long: "nice", short: None, takes: Takes::Maybe, means: Slurm(nice) },
    plain("no-requeue", said!(requeue, false)),
    value("nodes", Some('N'), nodes),
    value("ntasks", Some('n'), counted!(ranks, "number of tasks")),
    value("ntasks-per-node", None, counted!(ranks_per_node, "number of tasks")),
    value("output", Some('o'), parsed!(output)),
    value("partition", Some('p'), partition),
    value("priority", None, parsed!(priority)),
    value("qos", Some('q'), parsed!(priority)),
    plain("requeue", said!(requeue, true)),
    value("signal", None, parsed!(signal)),
    value("time", Some('t'), time),
    // The older names of some.
    value("workdir", None, worded!(work_dir, "folder")),
    value("tasks-per-node", None, counted!(ranks_per_node, "number of tasks")),
    ours("checkpoint", parsed!(checkpoint)),
    ours("data", data),
    ours("grace", parsed!(grace)),
    ours("max-replicas", counted!(max_replicas, "number of replicas")),
    ours("min-replicas", counted!(min_replicas, "number of replicas")),
];

fn line(text: &str, what: &'static str) -> Result<String, Malformed> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        return Err(Malformed::new(text, what, "one line of text"));
    }
    Ok(text.to_owned())
}

fn nodes(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    let number = match text.split_once('-') {
        Some((least, most)) if least == most => least,
        _ => text,
    };
    let nodes = digits(number).ok_or_else(|| {
        Malformed::new(text, "number of nodes", "a number, more than 0, and no range")
    })?;
    job.nodes = Some(nodes);
    Ok(())
}

fn partition(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    if text.contains(',') {
        return Err(Malformed::new(text, "partition", "the name of one"));
    }
    job.queue = Some(line(text, "partition")?);
    Ok(())
}

/// All of them: tags parted by `&`, or by commas as in older scripts.
fn constraint(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    let is_tag = |tag: &str| {
        !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
    };
    let tags: Vec<String> = text.split(['&', ',']).map(str::to_owned).collect();
    if !tags.iter().all(|tag| is_tag(tag)) {
        let expected = "tags of nodes, parted by &: no counts, and none of | ! ( )";
        return Err(Malformed::new(text, "constraint", expected));
    }
    job.tags = tags;
    Ok(())
}

/// No limit is what nothing said means, too.
fn time(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    let endless = matches!(text.to_ascii_uppercase().as_str(), "UNLIMITED" | "INFINITE")
        || crate::time::seconds(text) == Some(0);
    job.time_limit = if endless { None } else { Some(text.parse()?) };
    Ok(())
}

/// The scheduler has classes where Slurm has numbers: who is nice is below the others.
fn nice(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    let by = if text.is_empty() { Some(100) } else { digits::<u32>(text) };
    let by = by.ok_or_else(|| {
        Malformed::new(text, "niceness", "a number from 0 on; --priority=high goes before others")
    })?;
    job.priority = Some(if by == 0 { Priority::Normal } else { Priority::UnderNormal });
    Ok(())
}

fn exclusive(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    if !text.is_empty() {
        return Err(Malformed::new(text, "way to be exclusive", "--exclusive without a value"));
    }
    job.exclusive = Some(true);
    Ok(())
}

/// `ALL`, `NONE` and names choose from the submitter's variables; `NAME=VALUE` sets one. As in Slurm, who
/// only sets some gets no others.
fn export(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    let malformed = || {
        Malformed::new(
            text,
            "choice of variables",
            "ALL, NONE, NAME or NAME=VALUE, parted by commas",
        )
    };
    let mut named = Vec::new();
    let mut inherit = Inherit::None;
    let mut environment = std::collections::BTreeMap::new();
    for part in text.split(',') {
        match (part.split_once('='), part) {
            (Some((name, value)), _) if is_name(name) && !value.contains('\0') => {
                environment.insert(name.to_owned(), value.to_owned());
            }
            (None, "ALL" | "all") => inherit = Inherit::All,
            (None, "NONE" | "none" | "NIL") => {}
            (None, name) if is_name(name) => named.push(name.to_owned()),
            _ => return Err(malformed()),
        }
    }
    job.inherit = Some(match inherit {
        Inherit::None if !named.is_empty() => Inherit::Named(named),
        inherit => inherit,
    });
    job.environment = environment;
    Ok(())
}

/// Each adds to what was said before.
fn data(job: &mut JobRequest, text: &str) -> Result<(), Malformed> {
    for path in text.split(',') {
        job.data.push(line(path, "path")?);
    }
    Ok(())
}
