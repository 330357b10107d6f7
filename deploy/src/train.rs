//! `ff2ctl train`: a run of `ff2-train` as a job, near its data.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use ff2_submit::{JobRequest, Warning, to_yaml};
use serde_json::json;

use crate::{cli::Surroundings, job::submit};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What to train, as `ff2-train run` reads it (docs/TRAINING.md).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Put a value in the place of one of the file's, as in optimizer.learning_rate=0.001.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Show the job as YAML and hand in nothing.
    #[arg(long)]
    dry_run: bool,
    /// Options of `ff2ctl job submit`, behind `--`: -N 2 --ntasks-per-node=8 --priority=high.
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let (request, warnings) = request(args)?;
    for warning in &warnings {
        eprintln!("ff2ctl: {warning}");
    }
    if args.dry_run {
        let yaml = to_yaml(&request);
        return around.output.print(&json!({ "job": null, "yaml": yaml }), || yaml.clone());
    }
    let job = submit::hand_in(around, &request).await?.first;
    let value = json!({ "job": job });
    around
        .output
        .print(&value, || format!("job {job}: `ff2ctl job logs {job} --follow` shows how it goes"))
}

fn request(args: &Args) -> Result<(JobRequest, Vec<Warning>)> {
    let path = fs::canonicalize(&args.config);
    let path = path.with_context(|| format!("find {}", args.config.display()))?;
    let mut words = args.options.clone();
    words.push("--".into());
    words.extend([program(), "run".into(), "--config".into(), path.display().to_string()]);
    for set in &args.set {
        ensure!(
            set.contains('='),
            "--set {set}: give KEY=VALUE, as in optimizer.learning_rate=0.001"
        );
        words.extend(["--set".into(), set.clone()]);
    }
    let (mut request, warnings) = submit::read(&words)?;
    if request.name.is_none() {
        request.name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    }
    if request.data.is_empty() {
        request.data.extend(data_folder(&path, &args.set)?);
    }
    request.check().map_err(|error| anyhow!("{error}"))?;
    Ok((request, warnings))
}

/// The one beside this program, if there is one; else whichever the nodes have.
fn program() -> String {
    let name = "ff2-train";
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let beside = beside.filter(|path| path.exists());
    beside.map_or_else(|| name.into(), |path| path.display().to_string())
}

/// Where the text lies that the run reads: nodes that have it in memory are taken first.
fn data_folder(config: &Path, set: &[String]) -> Result<Option<String>> {
    let text = fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let table: toml::Table =
        text.parse().with_context(|| format!("{} is no TOML", config.display()))?;
    let of_file = || Some(table.get("data")?.get("folder")?.as_str()?.to_owned());
    let of_set = set.iter().rev().find_map(|set| set.strip_prefix("data.folder="));
    let folder = of_set.map(|folder| folder.trim_matches('"').to_owned()).or_else(of_file);
    let Some(folder) = folder else { return Ok(None) };
    // The job runs where this was typed.
    let folder = env::current_dir().context("where this is")?.join(folder);
    Ok(Some(folder.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &Path, set: &[&str], options: &str) -> Args {
        Args {
            config: config.to_owned(),
            set: set.iter().map(|&set| set.into()).collect(),
            dry_run: true,
            options: options.split_whitespace().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn a_run_is_a_job_near_its_data() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("tiny.toml");
        fs::write(&config, "steps = 10\n[data]\nfolder = \"/corpus/tokens\"\n").unwrap();
        let args_ = args(&config, &["steps=20"], "-N 2 --gpus-per-node=8 --priority=high");
        let (request, _) = request(&args_).unwrap();
        assert_eq!(request.nodes.map(u32::from), Some(2));
        assert_eq!(request.name.as_deref(), Some("tiny"));
        assert_eq!(request.data, ["/corpus/tokens"]);
        let config = config.canonicalize().unwrap().display().to_string();
        assert!(request.command[0].ends_with("ff2-train"), "{:?}", request.command);
        assert_eq!(request.command[1..], ["run", "--config", &config, "--set", "steps=20"]);
    }

    #[test]
    fn what_was_said_goes_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("tiny.toml");
        fs::write(&config, "[data]\nfolder = \"/corpus/tokens\"\n").unwrap();
        let set = ["data.folder=/other"];
        assert_eq!(request(&args(&config, &set, "")).unwrap().0.data, ["/other"]);
        let said = args(&config, &set, "--data=/third -J mine");
        let (request, _) = request(&said).unwrap();
        assert_eq!((request.data, request.name.as_deref()), (vec!["/third".into()], Some("mine")));
    }

    #[test]
    fn mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("tiny.toml");
        let told = |set: &[&str]| format!("{:#}", request(&args(&config, set, "")).unwrap_err());
        assert!(told(&[]).contains("tiny.toml"), "{}", told(&[]));
        fs::write(&config, "[data\n").unwrap();
        assert!(told(&[]).contains("no TOML"), "{}", told(&[]));
        assert!(told(&["steps"]).contains("KEY=VALUE"), "{}", told(&["steps"]));
    }
}
