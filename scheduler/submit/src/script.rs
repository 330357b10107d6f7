//! Jobs from batch scripts.

use crate::{
    limits::SCRIPT_BYTES_MAX,
    options::{Source, read},
    problem::{Findings, Place, Problems, Warning, shown},
    request::JobRequest,
    words,
};

/// Reads a batch script: its `#SBATCH` and `#FF2` lines up to the first command, among comments and blank
/// lines. The script itself is what runs.
///
/// Lines of both kinds take all options of sbatch that we have; ours alone (`--data`, `--min-replicas`,
/// `--max-replicas`, `--grace`) stand in `#FF2` lines, which Slurm takes for comments. Of an option that is
/// given twice the later one counts, but that `--data` adds up.
///
/// Nothing is checked that flags may still change: see [`JobRequest::check`].
///
/// # Errors
/// All that is wrong with the script's options, and if it is no script.
pub fn from_script(text: &str) -> Result<(JobRequest, Vec<Warning>), Problems> {
    if text.len() > SCRIPT_BYTES_MAX {
        let problem = format!(
            "{} bytes are no batch script: expected at most {SCRIPT_BYTES_MAX}",
            text.len()
        );
        return Err(Problems::one(Place::Whole, problem));
    }
    let mut findings = Findings::default();
    is_script(text, &mut findings);
    let mut job = JobRequest::default();
    // The line of the first command, from 1.
    let mut command = None;
    for (index, line) in text.lines().enumerate().skip(1) {
        match (Line::of(line), command) {
            (Line::Options { .. }, Some(command)) => {
                let warning = format!(
                    "{:?} is not read: the first command stands before, in line {command}",
                    shown(line)
                );
                findings.warn(Place::line(index + 1, 1), warning);
            }
            (Line::Options { source, from }, None) => {
                options(line, index, source, from, &mut job, &mut findings)
            }
            (Line::NearlyOptions, None) => {
                let warning = format!(
                    "{:?} is a comment: options stand behind #SBATCH or #FF2 at the beginning of a line",
                    shown(line)
                );
                findings.warn(Place::line(index + 1, 1), warning);
            }
            (Line::OfPbs, None) => {
                let warning =
                    format!("{:?} is not read: options stand behind #SBATCH or #FF2", shown(line));
                findings.warn(Place::line(index + 1, 1), warning);
            }
            (Line::Command, None) => command = Some(index + 1),
            (Line::Comment, _) | (_, Some(_)) => {}
        }
    }
    job.script = Some(text.to_owned());
    Ok((job, findings.end()?))
}

/// What the kernel needs to run it, and what Slurm refuses.
fn is_script(text: &str, findings: &mut Findings) {
    let first = text.lines().next().unwrap_or_default();
    if first.strip_prefix("#!").is_none_or(|program| program.trim().is_empty()) {
        let problem = format!(
            "{:?} is no beginning of a script: expected #! and a program, such as #!/bin/bash",
            shown(first)
        );
        findings.problem(Place::line(1, 1), problem);
    }
    for (index, line) in text.split('\n').enumerate() {
        if let Some(line) = line.strip_suffix('\r') {
            let column = line.chars().count() + 1;
            findings.problem(
                Place::line(index + 1, column),
                "\"\\r\" is no end of a line for a shell: expected \\n alone (dos2unix changes all)",
            );
            break;
        }
    }
    if let Some((index, line)) = text.split('\n').enumerate().find(|(_, line)| line.contains('\0'))
    {
        let column = line.chars().take_while(|c| *c != '\0').count() + 1;
        findings.problem(Place::line(index + 1, column), "\"\\0\" is no text: expected a script");
    }
}

/// What a line of a script is for us.
enum Line {
    /// With where its words begin, in characters from 0.
    Options {
        source: Source,
        from: usize,
    },
    /// A comment that its author may take for options.
    NearlyOptions,
    OfPbs,
    Comment,
    Command,
}

impl Line {
    fn of(line: &str) -> Self {
        let begins = |mark: &str| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '-']))
        };
        if begins("#SBATCH") {
            return Self::Options { source: Source::Sbatch, from: "#SBATCH".len() };
        }
        if begins("#FF2") {
            return Self::Options { source: Source::Ff2, from: "#FF2".len() };
        }
        if begins("#PBS") {
            return Self::OfPbs;
        }
        let Some(comment) = line.trim_start().strip_prefix('#') else {
            return if line.trim().is_empty() { Self::Comment } else { Self::Command };
        };
        let word = comment.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let has_options = comment.contains(" -");
        if has_options && matches!(word.as_str(), "SBATCH" | "SBATCH:" | "FF2" | "FF2:") {
            return Self::NearlyOptions;
        }
        Self::Comment
    }
}

fn options(
    line: &str,
    index: usize,
    source: Source,
    from: usize,
    job: &mut JobRequest,
    findings: &mut Findings,
) {
    let words = words::split(line, index, from, findings);
    if let [word] = &words[..]
        && matches!(word.text.as_str(), "hetjob" | "packjob")
    {
        let problem =
            format!("{:?} parts a job of Slurm: expected one job for each script", word.text);
        return findings.problem(word.place(0), problem);
    }
    read(&words, source, job, findings);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAIN: &str = include_str!("../tests/scripts/train.sbatch");
    const ARRAY: &str = include_str!("../tests/scripts/array.sbatch");
    const SERVICE: &str = include_str!("../tests/scripts/service.sbatch");
    const VALUES: &str = include_str!("../tests/scripts/values.sbatch");
    const ENDS: &str = include_str!("../tests/scripts/ends.sbatch");

    #[test]
    fn problems_are_bounded() {
        let text = format!("#!/bin/sh\n{}", "#SBATCH -t x\n".repeat(250));
        let problems = from_script(&text).unwrap_err();
        assert_eq!(problems.list().len(), crate::limits::PROBLEMS_MAX);
        assert!(problems.to_string().ends_with("\nand 150 more"), "{problems}");
        let long = format!("#!/bin/sh\n#{}\n", "x".repeat(SCRIPT_BYTES_MAX));
        assert_eq!(
            from_script(&long).unwrap_err().to_string(),
            "in all: 4194316 bytes are no batch script: expected at most 4194304"
        );
    }

    #[test]
    fn damaged_scripts() {
        let seeds = [TRAIN, ARRAY, SERVICE, VALUES, ENDS].map(|text| text.as_bytes().to_vec());
        ff2_fuzz::target!(seeds.to_vec(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match ff2_fuzz::bounded(bytes, || from_script(&text)) {
                Ok((job, _)) => {
                    assert_eq!(crate::from_yaml(&crate::to_yaml(&job)), Ok(job.clone()));
                    let _ = job.layout(8);
                    // At most 100,000 indexes, however few bytes asked for them.
                    let _ = job.array.map(|array| array.expand());
                }
                Err(problems) => assert!(!problems.list().is_empty()),
            }
        });
    }
}
