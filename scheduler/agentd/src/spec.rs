//! From an order of the scheduler to what is to run on this node.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use ff2_daemon::config::{ClassConfig, RanksConfig};
use ff2_proto::pb::RunOrder;
use ff2_submit::{FilePattern, Names, Order};
use ff2_task::{JobFolder, Notice, RunSpec, User};

/// What the node adds.
#[derive(Clone, Debug)]
pub(crate) struct Here<'a> {
    pub(crate) name: &'a str,
    pub(crate) jobs_dir: &'a Path,
    pub(crate) ranks: &'a RanksConfig,
    pub(crate) gpus: Vec<u32>,
    pub(crate) until_boot_ms: u64,
    /// Whether this process may run jobs of others.
    pub(crate) is_root: bool,
    pub(crate) own_uid: u32,
}

/// # Errors
/// The order cannot be read, or is somebody's whose jobs this process may not run.
pub(crate) fn run_spec(order: &RunOrder, here: Here<'_>) -> io::Result<RunSpec> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let of: Order = serde_json::from_str(&order.order)
        .map_err(|error| wrong(format!("the order cannot be read: {error}")))?;
    let who = &of.submitter;
    // Who is root elsewhere is nobody more than this user here.
    if !here.is_root && who.uid != here.own_uid && who.uid != 0 {
        return Err(wrong(format!(
            "the agent is not root, so it runs no jobs of user {} ({})",
            who.name, who.uid
        )));
    }
    let request = &of.request;
    let path = here.jobs_dir.join(order.job.to_string());
    let folder = JobFolder::new(&path, order.attempt);
    let command = match &request.script {
        None => request.command.clone(),
        Some(_) => {
            let script = folder.script().to_string_lossy().into_owned();
            [script].into_iter().chain(request.arguments.iter().cloned()).collect()
        }
    };
    let work_dir = request.work_dir.as_ref().map_or_else(|| path.clone(), PathBuf::from);
    let first_rank = order.first_task * of.ranks_per_task;
    let ranks = (order.tasks * of.ranks_per_task).min(of.ranks.saturating_sub(first_rank));
    let index = of.indexes.get(order.array_index as usize).copied();
    let logs = |pattern: &Option<FilePattern>| -> Option<Vec<PathBuf>> {
        let pattern = pattern.as_ref()?;
        let of_rank = |rank| {
            let names = Names {
                job: order.job,
                array: index.map(|index| (order.array_first, index)),
                name: request.name.as_deref().unwrap_or("job"),
                user: &who.name,
                node: here.name,
                node_index: order.node_rank,
                rank,
            };
            work_dir.join(pattern.expand(&names))
        };
        Some((first_rank..first_rank + ranks).map(of_rank).collect())
    };
    Ok(RunSpec {
        job: order.job,
        name: request.name.clone().unwrap_or_else(|| "job".into()),
        attempt: order.attempt,
        command,
        env: environment(order, &of, index, here.ranks),
        ranks,
        first_rank,
        world_size: of.ranks,
        node_rank: order.node_rank,
        nodes: order.nodes,
        master_addr: order.master_host.clone(),
        master_port: u16::try_from(order.master_port).unwrap_or(0),
        gpus: here.gpus,
        checkpoint: path.join("checkpoint"),
        folder: path,
        signal: request.signal.and_then(|signal| notice(signal.number())),
        grace_s: of.grace_s,
        user: here.is_root.then_some(User { uid: who.uid, gid: who.gid }),
        script: request.script.clone(),
        output: logs(&request.output),
        errors: logs(&request.error),
        until_boot_ms: Some(here.until_boot_ms),
        work_dir,
    })
}

fn environment(
    order: &RunOrder,
    of: &Order,
    index: Option<u32>,
    ranks: &RanksConfig,
) -> BTreeMap<String, String> {
    let mut env = of.environment.clone();
    env.extend(of.request.environment.clone());
    for (name, value) in network(ranks) {
        // The job knows better.
        env.entry(name.into()).or_insert(value);
    }
    env.insert("USER".into(), of.submitter.name.clone());
    env.insert("LOGNAME".into(), of.submitter.name.clone());
    env.insert("FF2_HOSTS".into(), order.hosts.join(","));
    if let Some(index) = index {
        env.insert("FF2_ARRAY_INDEX".into(), index.to_string());
        env.insert("FF2_ARRAY_JOB_ID".into(), order.array_first.to_string());
    }
    if of.request.replicas().is_some() {
        env.insert("FF2_SERVICE".into(), order.array_first.to_string());
        env.insert("FF2_REPLICA".into(), order.array_index.to_string());
    }
    env
}

/// By what the ranks reach each other, as `ff2-collectives` reads it.
fn network(ranks: &RanksConfig) -> Vec<(&'static str, String)> {
    let mut told = vec![("FF2_TRANSPORT", ranks.transport.to_string())];
    if !ranks.rdma_subnets.is_empty() {
        told.push(("FF2_RDMA_SUBNETS", ranks.rdma_subnets.join(",")));
    }
    let ClassConfig { service_level, traffic_class } = ranks.rdma_class;
    if ranks.rdma_class != ClassConfig::default() {
        told.push(("FF2_RDMA_CLASS", format!("{service_level}/{traffic_class}")));
    }
    told
}

/// Those that a job may be told by.
fn notice(number: u8) -> Option<Notice> {
    match number {
        1 => Some(Notice::Hup),
        2 => Some(Notice::Int),
        10 => Some(Notice::Usr1),
        12 => Some(Notice::Usr2),
        15 => Some(Notice::Term),
        18 => Some(Notice::Cont),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use ff2_daemon::config::Transport;
    use ff2_submit::{JobRequest, Submitter};

    use super::*;

    static BY_TCP: RanksConfig = RanksConfig {
        transport: Transport::Tcp,
        rdma_subnets: Vec::new(),
        rdma_class: ClassConfig { service_level: 0, traffic_class: 0 },
    };

    fn here(is_root: bool) -> Here<'static> {
        Here {
            name: "n1",
            jobs_dir: Path::new("/m/jobs"),
            ranks: &BY_TCP,
            gpus: vec![0, 1, 2, 3],
            until_boot_ms: 7,
            is_root,
            own_uid: 1_000,
        }
    }

    fn order(uid: u32, options: &str) -> RunOrder {
        let mut request = JobRequest { script: Some("#!/bin/sh\n".into()), ..Default::default() };
        let words: Vec<&str> = options.split_whitespace().collect();
        ff2_submit::apply_arguments(&mut request, &words).unwrap();
        let of = Order {
            request,
            submitter: Submitter { name: "ann".into(), uid, gid: 100 },
            environment: [("HOME".to_owned(), "/h".to_owned())].into(),
            ranks: 10,
            ranks_per_task: 4,
            grace_s: 30,
            indexes: vec![3, 6],
        };
        RunOrder {
            job: 9,
            attempt: 2,
            order: serde_json::to_string(&of).unwrap(),
            node_rank: 1,
            nodes: 2,
            first_task: 2,
            tasks: 1,
            array_first: 8,
            array_index: 1,
            master_host: "h".into(),
            master_port: 31_009,
            hosts: vec!["h".into(), "i".into()],
            ..Default::default()
        }
    }

    #[test]
    fn a_node_gets_its_part_of_the_ranks() {
        let spec =
            run_spec(&order(1_000, "-o out/%A_%a-%t.log --signal=USR1"), here(true)).unwrap();
        // The last task has what is left.
        assert_eq!((spec.first_rank, spec.ranks, spec.world_size), (8, 2, 10));
        assert_eq!(spec.command, ["/m/jobs/9/script"]);
        assert_eq!(spec.work_dir, Path::new("/m/jobs/9"));
        let logs = spec.output.clone().unwrap();
        assert_eq!(logs[1], Path::new("/m/jobs/9/out/8_6-9.log"));
        assert_eq!(spec.env["FF2_HOSTS"], "h,i");
        assert_eq!((spec.env["FF2_ARRAY_INDEX"].as_str(), spec.env["HOME"].as_str()), ("6", "/h"));
        assert_eq!(spec.signal, Some(Notice::Usr1));
        assert_eq!(spec.user, Some(User { uid: 1_000, gid: 100 }));
        assert_eq!(spec.check(), Ok(()));
    }

    #[test]
    fn a_replica_knows_its_place_in_the_service() {
        let env = run_spec(&order(1_000, "--min-replicas=2"), here(true)).unwrap().env;
        assert_eq!((env["FF2_SERVICE"].as_str(), env["FF2_REPLICA"].as_str()), ("8", "1"));
        assert!(!run_spec(&order(1_000, ""), here(true)).unwrap().env.contains_key("FF2_REPLICA"));
    }

    #[test]
    fn ranks_are_told_the_nodes_network_unless_the_job_says_another() {
        let env = run_spec(&order(1_000, ""), here(true)).unwrap().env;
        assert_eq!(env["FF2_TRANSPORT"], "tcp");
        assert!(!env.contains_key("FF2_RDMA_SUBNETS") && !env.contains_key("FF2_RDMA_CLASS"));

        let ranks = RanksConfig {
            transport: Transport::Auto,
            rdma_subnets: vec!["10.77.0.0/16".into(), "fd00::/8".into()],
            rdma_class: ClassConfig { service_level: 4, traffic_class: 104 },
        };
        let by_rdma = || Here { ranks: &ranks, ..here(true) };
        let env = run_spec(&order(1_000, ""), by_rdma()).unwrap().env;
        assert_eq!(env["FF2_TRANSPORT"], "auto");
        assert_eq!(env["FF2_RDMA_SUBNETS"], "10.77.0.0/16,fd00::/8");
        assert_eq!(env["FF2_RDMA_CLASS"], "4/104");

        let env =
            run_spec(&order(1_000, "--export=NONE,FF2_TRANSPORT=rdma"), by_rdma()).unwrap().env;
        assert_eq!(
            (env["FF2_TRANSPORT"].as_str(), env["FF2_RDMA_CLASS"].as_str()),
            ("rdma", "4/104")
        );
    }

    #[test]
    fn who_is_not_root_runs_no_jobs_of_others() {
        let other = run_spec(&order(5, ""), here(false)).unwrap_err().to_string();
        assert!(other.contains("not root"), "{other}");
        for own in [1_000, 0] {
            assert_eq!(run_spec(&order(own, ""), here(false)).unwrap().user, None);
        }
        let broken = RunOrder { order: "{".into(), ..order(0, "") };
        assert!(run_spec(&broken, here(true)).is_err());
    }
}
