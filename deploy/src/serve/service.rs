//! Services as the scheduler knows them: a job that routes names the folder, and the folder the rest.

use std::path::PathBuf;

use anyhow::Result;
use ff2_proto::pb;
use ff2_submit::from_yaml;

use super::folder::ServiceFolder;
use crate::{cli::Surroundings, connect::Sched};

/// What the job of a service's router is called behind the service's name.
pub(super) const ROUTER: &str = "-router";

/// A service that has a router.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) user: String,
    /// The first of its routers' jobs, which stands for all.
    pub(super) router: u64,
    /// Of one of them.
    pub(super) state: String,
    pub(super) folder: ServiceFolder,
}

/// All that run or wait.
pub(super) async fn all(sched: &Sched) -> Result<Vec<Service>> {
    let jobs = sched.list_jobs(pb::ListJobsRequest::default()).await?.jobs;
    let mut found: Vec<Service> = Vec::new();
    for job in jobs {
        let Some(name) = job.name.strip_suffix(ROUTER).map(str::to_owned) else { continue };
        let router = if job.array_first == 0 { job.job } else { job.array_first };
        if found.iter().any(|service| service.router == router) {
            continue;
        }
        let shown = sched.show_job(pb::ShowJobRequest { job: job.job }).await?;
        if let Some(folder) = folder(&shown.request) {
            let folder = ServiceFolder::at(folder);
            found.push(Service { name, user: job.user, router, state: job.state, folder });
        }
    }
    Ok(found)
}

pub(super) async fn named(around: &Surroundings, name: &str) -> Result<Option<Service>> {
    let sched = around.access.connect_sched()?;
    Ok(all(&sched).await?.into_iter().find(|service| service.name == name))
}

/// From the command of its job: `ff2-serve route FOLDER ...`.
fn folder(request: &str) -> Option<PathBuf> {
    let command = from_yaml(request).ok()?.command;
    let [program, verb, folder, ..] = command.as_slice() else { return None };
    (program.ends_with("ff2-serve") && verb == "route").then(|| PathBuf::from(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_known_by_its_command() {
        let of = |command: &str| folder(&format!("command: [{command}]\n"));
        assert_eq!(of("/bin/ff2-serve, route, /m/s, --port, '1'"), Some("/m/s".into()));
        assert_eq!(of("/bin/ff2-serve, run, /m/s"), None);
        assert_eq!(of("'true'"), None);
        assert_eq!(folder(""), None);
    }
}
