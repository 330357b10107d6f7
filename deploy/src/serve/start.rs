//! `ff2ctl serve MODEL`: hands in what a service is made of, or another version of its replicas, and waits for it.

use std::{env, fs, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ff2_proto::pb;
use ff2_submit::JobRequest;
use serde_json::json;

use super::{
    Start,
    folder::{Plan, ServiceFolder, program},
    service::{self, ROUTER, Service},
    wait,
};
use crate::{cli::Surroundings, job::submit};

/// For what runs at a replica that is to make room: generating an answer takes a while. The grace is the most that jobs
/// have; what is behind the drain is for the last bytes to be taken.
const REPLICA_GRACE: &str = "--grace=300";
const REPLICA_DRAIN: &str = "270";
/// A router has as long as its own default and a margin.
const ROUTER_GRACE: &str = "--grace=90";

pub(super) async fn run(around: &Surroundings, args: &Start) -> Result<()> {
    let model = fs::canonicalize(&args.model);
    let model = model.with_context(|| format!("find {}", args.model.display()))?;
    let config = model.join("config.json");
    ensure!(config.exists(), "{} is no model: it has no config.json", model.display());
    let name = name(args, &model)?;
    let (min, max) = (args.replicas.get(), args.max_replicas.unwrap_or(args.replicas).get());
    ensure!(min <= max, "--max-replicas {max}: expected --replicas, {min}, or more");
    let running = service::named(around, &name).await?;
    match (&running, args.update) {
        (Some(service), false) => bail!(
            "{name} is served (job {}, of {}): --update replaces its replicas, `ff2ctl serve stop {name}` ends it",
            service.router,
            service.user
        ),
        (None, true) => bail!("no service is called {name}: `ff2ctl serve list` shows all"),
        _ => {}
    }
    let folder = folder(args, &model, &name, running.as_ref())?;
    let serve = program("ff2-serve");
    let key = if args.open { None } else { folder.first_key(&serve)? };
    let scheduler = folder.scheduler(&around.access, program("ff2ctl"))?;
    // Of an update there is one at first: the router replaces the others as it becomes ready.
    let first = if running.is_some() { 1 } else { min };
    let replicas = replicas(args, &model, &name, &folder, first, &serve)?;
    let routers = match args.routers {
        Some(routers) => routers.get(),
        None => usual_routers(around).await?,
    };
    let router = router(args, routers, &name, &folder, &serve)?;
    let before = folder.plan()?.filter(|_| running.is_some());
    let job = submit::hand_in(around, &replicas).await?.first;
    let mut jobs = before.map_or_else(Vec::new, |plan| plan.jobs);
    jobs.push(job);
    folder.set_plan(&Plan { min, max, jobs, scheduler })?;
    let router = match running {
        Some(service) => service.router,
        None => {
            folder.forget_report()?;
            submit::hand_in(around, &router).await?.first
        }
    };
    let waited = wait::Waited { name: &name, folder: &folder, router, job, replicas: min, routers };
    let report = wait::until_ready(around, &waited, args.wait).await?;
    let (url, urls) = report.map(|report| (report.url, report.urls)).unzip();
    let value = json!({
        "name": name, "url": url, "urls": urls, "key": key, "router": router, "job": job, "folder": folder.path(),
    });
    around.output.print(&value, || {
        let mut text = match &urls {
            Some(urls) => format!("{name} is served at {}\n", urls.join(" and ")),
            None => format!("{name} comes: `ff2ctl serve list` shows where\n"),
        };
        if let Some(key) = &key {
            text += &format!("its first API key, kept hashed and not shown again:\n{key}\n");
        }
        text
    })
}

fn name(args: &Start, model: &Path) -> Result<String> {
    let of_folder = || model.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(of_folder).context("name the service: --name")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    ensure!(
        !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain),
        "--name {name:?}: expected letters, digits, `.`, `_` and `-`"
    );
    Ok(name)
}

fn folder(
    args: &Start,
    model: &Path,
    name: &str,
    running: Option<&Service>,
) -> Result<ServiceFolder> {
    if let Some(service) = running {
        return Ok(service.folder.clone());
    }
    let path = match &args.folder {
        Some(folder) => env::current_dir().context("where this is")?.join(folder),
        None => {
            let parent = model.parent().context("a model's folder lies in another")?;
            parent.join("services").join(name)
        }
    };
    ServiceFolder::make(path)
}

fn replicas(
    args: &Start,
    model: &Path,
    name: &str,
    folder: &ServiceFolder,
    count: u32,
    serve: &str,
) -> Result<JobRequest> {
    let mut words = vec!["-J".into(), name.into(), REPLICA_GRACE.into()];
    words.extend(args.options.iter().cloned());
    words.extend([format!("--min-replicas={count}"), format!("--max-replicas={count}")]);
    words.extend(["--".into(), serve.into(), "run".into(), shown(model)]);
    words.extend(["--name".into(), name.into(), "--replica-of".into(), shown(folder.path())]);
    words.extend(["--drain-seconds".into(), REPLICA_DRAIN.into()]);
    words.extend(args.run_options.split_whitespace().map(str::to_owned));
    request(&words)
}

/// An address outlives its node only if there is another node.
async fn usual_routers(around: &Surroundings) -> Result<u32> {
    let sched = around.access.connect_sched()?;
    let nodes = sched.list_compute_nodes(pb::ListComputeNodesRequest::default()).await?.nodes;
    Ok(if nodes.len() > 1 { 2 } else { 1 })
}

fn router(
    args: &Start,
    count: u32,
    name: &str,
    folder: &ServiceFolder,
    serve: &str,
) -> Result<JobRequest> {
    let mut words = vec!["-J".into(), format!("{name}{ROUTER}"), ROUTER_GRACE.into()];
    words.extend(["--cpus-per-task=1".into(), format!("--min-replicas={count}")]);
    words.extend(["--".into(), serve.into(), "route".into(), shown(folder.path())]);
    words.extend(["--port".into(), args.port.to_string()]);
    if args.open {
        words.push("--open".into());
    }
    words.extend(args.route_options.split_whitespace().map(str::to_owned));
    request(&words)
}

fn request(words: &[String]) -> Result<JobRequest> {
    let (request, warnings) = submit::read(words)?;
    for warning in &warnings {
        eprintln!("ff2ctl: {warning}");
    }
    request.check().map_err(|error| anyhow!("{error}"))?;
    Ok(request)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: Start,
    }

    fn args(line: &str) -> Start {
        Line::parse_from(["serve"].into_iter().chain(line.split_whitespace())).start
    }

    #[test]
    fn replicas_and_router_are_jobs_that_share_a_folder() {
        let args = args(
            "/m/chat --replicas 2 --run-options=--kv-mib=64 --port 81 -- -G 8 --priority=high",
        );
        let folder = ServiceFolder::at("/m/services/chat".into());
        let of = replicas(&args, Path::new("/m/chat"), "chat", &folder, 2, "ff2-serve").unwrap();
        let (min, max) = of.replicas().unwrap();
        assert_eq!((min.get(), max.get(), of.name.as_deref()), (2, 2, Some("chat")));
        assert!(of.gpus.is_some() && of.priority.is_some());
        assert_eq!(of.command[..3], ["ff2-serve", "run", "/m/chat"]);
        let ends = of.command.join(" ");
        assert!(ends.contains("--replica-of /m/services/chat") && ends.ends_with("--kv-mib=64"));
        let of = router(&args, 2, "chat", &folder, "ff2-serve").unwrap();
        assert_eq!(of.name.as_deref(), Some("chat-router"));
        assert_eq!(of.command, ["ff2-serve", "route", "/m/services/chat", "--port", "81"]);
        assert_eq!(of.replicas().unwrap().1.get(), 2);
    }

    #[test]
    fn names_are_plain() {
        let of = |line: &str| name(&args(line), Path::new("/m/some model"));
        assert_eq!(of("/m/x --name chat-2.1").unwrap(), "chat-2.1");
        for line in ["/m/x", "/m/x --name ../x", "/m/x --name .x"] {
            assert!(of(line).unwrap_err().to_string().contains("--name"), "{line}");
        }
    }
}
