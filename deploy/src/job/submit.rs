//! `ff2ctl job submit`.

use std::{collections::BTreeMap, env, fs, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use ff2_proto::pb;
use ff2_submit::{Inherit, JobRequest, Warning, apply_arguments, from_script, from_yaml, to_yaml};
use serde_json::json;

use crate::cli::Surroundings;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Options of sbatch, then a script or YAML file and its own arguments, or `--` and a command.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "[OPTIONS] FILE"
    )]
    words: Vec<String>,
}

pub(super) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let (request, warnings) = read(&args.words)?;
    for warning in &warnings {
        eprintln!("ff2ctl: {warning}");
    }
    let reply = hand_in(around, &request).await?;
    let value = json!({ "job": reply.first, "jobs": reply.count });
    around.output.print(&value, || match reply.count {
        1 => format!("job {}", reply.first),
        count => format!("jobs {} to {}", reply.first, reply.first + u64::from(count) - 1),
    })
}

/// A submission whose answer was lost is sent again, and is the same one.
pub(crate) async fn hand_in(
    around: &Surroundings,
    request: &JobRequest,
) -> Result<pb::SubmitJobReply> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| anyhow!("no random numbers: {error}"))?;
    let submission = pb::SubmitJobRequest {
        key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        request: to_yaml(request),
        environment: inherited(request.inherit.as_ref(), env::vars()),
    };
    around.access.connect_sched()?.submit_job(submission).await
}

/// What the words of a command line ask for.
pub(crate) fn read(words: &[String]) -> Result<(JobRequest, Vec<Warning>)> {
    let mut options = JobRequest::default();
    let (count, _) = apply_arguments(&mut options, words).map_err(|error| anyhow!("{error}"))?;
    let rest = &words[count..];
    let is_command = count > 0 && words[count - 1] == "--";
    let (mut request, mut warnings) = match rest.first() {
        None => bail!("name a script or a YAML file, or a command behind `--`"),
        Some(_) if is_command => {
            (JobRequest { command: rest.to_vec(), ..JobRequest::default() }, Vec::new())
        }
        Some(path) => from_file(Path::new(path))?,
    };
    let of_file = if is_command { 0 } else { 1 };
    if rest.len() > of_file && !is_command {
        request.arguments.extend(rest[1..].iter().cloned());
    }
    let (_, of_options) =
        apply_arguments(&mut request, &words[..count]).map_err(|error| anyhow!("{error}"))?;
    warnings.extend(of_options);
    if request.work_dir.is_none() {
        let here = env::current_dir().context("where this is")?;
        request.work_dir = Some(here.to_string_lossy().into_owned());
    }
    if request.name.is_none() && !is_command {
        let name = Path::new(&rest[0]).file_name().map(|name| name.to_string_lossy().into_owned());
        request.name = name;
    }
    request.check().map_err(|error| anyhow!("{error}"))?;
    Ok((request, warnings))
}

fn from_file(path: &Path) -> Result<(JobRequest, Vec<Warning>)> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let shown = |error: &dyn std::fmt::Display| anyhow!("{}:\n{error}", path.display());
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => {
            from_yaml(&text).map(|request| (request, Vec::new())).map_err(|error| shown(&error))
        }
        _ => from_script(&text).map_err(|error| shown(&error)),
    }
}

/// As sbatch has it: all, if nothing is said.
fn inherited(
    what: Option<&Inherit>,
    of: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    // What ff2ctl goes by is of no use on a node, and a token is nobody else's business.
    let own = |name: &str| name.starts_with("FF2_");
    match what {
        None | Some(Inherit::All) => of.filter(|(name, _)| !own(name)).collect(),
        Some(Inherit::None) => BTreeMap::new(),
        Some(Inherit::Named(names)) => of.filter(|(name, _)| names.contains(name)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_go_over_the_script_and_words_behind_it_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("train.sh");
        fs::write(&script, "#!/bin/sh\n#SBATCH -N 2 --time=10\ntrue\n").unwrap();
        let (request, _) = read(&words(&format!("-N 3 {} --lr 1", script.display()))).unwrap();
        assert_eq!(request.nodes.map(u32::from), Some(3));
        assert_eq!(request.arguments, ["--lr", "1"]);
        assert_eq!(request.name.as_deref(), Some("train.sh"));
        assert!(request.work_dir.is_some() && request.script.is_some());
        let (request, _) = read(&words("-n 2 -J x -- echo -n hello")).unwrap();
        assert_eq!(request.command, ["echo", "-n", "hello"]);
        assert_eq!(request.name.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("bad.sh");
        fs::write(&script, "#!/bin/sh\n#SBATCH --nodse=2\n").unwrap();
        let error = read(&words(&script.display().to_string())).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("--nodes"), "{error}");
        let yaml = dir.path().join("bad.yaml");
        fs::write(&yaml, "nodes: 2\ncommand: [true]\ngpuz: 1\n").unwrap();
        let error = read(&words(&yaml.display().to_string())).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("gpuz"), "{error}");
        assert!(read(&words("-N 2")).unwrap_err().to_string().contains("script"));
        assert!(read(&words("no-such.sh")).unwrap_err().to_string().contains("no-such.sh"));
    }

    #[test]
    fn a_job_has_what_was_asked_for_of_the_environment() {
        let all = || ["HOME", "FF2_TOKEN_FILE", "LANG"].map(|name| (name.into(), "x".into()));
        let names = |what| inherited(what, all().into_iter()).into_keys().collect::<Vec<_>>();
        assert_eq!(names(None), ["HOME", "LANG"]);
        assert_eq!(names(Some(&Inherit::None)), Vec::<String>::new());
        assert_eq!(names(Some(&Inherit::Named(vec!["LANG".into()]))), ["LANG"]);
    }
}
