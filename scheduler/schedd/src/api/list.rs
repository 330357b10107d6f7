//! What people look at.

use std::{cmp::Reverse, collections::BTreeMap};

use ff2_proto::pb;
use ff2_sched_core::{Job, JobId, State as Of};
use ff2_sched_machine::{Port, State};
use ff2_submit::to_yaml;

use super::Api;
use crate::{
    chart::Chart,
    leader::Lead,
    limits,
    partition::PARTITION,
    show::{self, Explain},
};

/// Of so many jobs that wait a listing says why: it costs more than all the rest.
const EXPLAINED: usize = 100;

impl Api {
    /// What runs before what waits, then by number.
    pub(crate) fn list(&self, request: &pb::ListJobsRequest) -> pb::ListJobsReply {
        let most = if request.most == 0 { limits::LISTED } else { request.most } as usize;
        self.sched.look(|state| {
            let is_asked = |job: &Job| request.user.is_empty() || job.spec.user == request.user;
            let open: Vec<&Job> = state.scheduler().jobs().filter(|job| is_asked(job)).collect();
            let (has_nodes, waits): (Vec<&Job>, Vec<&Job>) =
                open.iter().partition(|job| job.placement().is_some());
            let running = has_nodes.iter().map(|job| self.running(state, job, Explain::Why));
            let waiting = waits.iter().enumerate().map(|(place, job)| {
                let explain = if place < EXPLAINED { Explain::Why } else { Explain::Nothing };
                show::job(state, job, explain)
            });
            let ended: Vec<pb::JobInfo> = match request.ended {
                true => {
                    let ended = state.history().ended().filter(|ended| is_asked(&ended.last));
                    ended.map(|ended| show::ended(state, ended)).collect()
                }
                false => Vec::new(),
            };
            let all = open.len() + ended.len();
            let jobs = running.chain(waiting).chain(ended).take(most).collect();
            pb::ListJobsReply { jobs, left_out: all.saturating_sub(most) as u64 }
        })
    }

    /// With what it says of itself, which the leader hears.
    fn running(&self, state: &State, job: &Job, explain: Explain) -> pb::JobInfo {
        let mut shown = show::job(state, job, explain);
        if shown.why.is_empty() && matches!(job.state, Of::Running { .. }) {
            let lead = self.sched.leading().ok();
            let says = lead.and_then(|lead| lead.watch.lock().says(job).map(str::to_owned));
            shown.why = says.unwrap_or_default();
        }
        shown
    }

    /// The charts that running jobs give of themselves.
    pub(crate) fn charts(&self, lead: &Lead) -> BTreeMap<u64, Chart> {
        let watch = lead.watch.lock();
        self.sched.look(|state| {
            let running = state.scheduler().jobs().filter(|job| job.placement().is_some());
            let charts =
                running.filter_map(|job| Some((job.id.0, Chart::parse(watch.chart(job)?)?)));
            charts.collect()
        })
    }

    pub(super) fn show(&self, number: u64) -> Result<pb::ShowJobReply, tonic::Status> {
        let id = JobId(number);
        let first = |job: &Job| job.member.map_or(job.id, |member| member.first);
        let found = self.sched.look(|state| {
            let job = match state.scheduler().job(id) {
                Some(job) => (self.running(state, job, Explain::When), first(job)),
                None => {
                    let ended = state.history().ended().find(|ended| ended.last.id == id)?;
                    (show::ended(state, ended), first(&ended.last))
                }
            };
            let runs = state.history().runs_of(id).map(|run| show::run(state, run));
            Some((job, runs.collect::<Vec<_>>()))
        });
        let Some(((job, first), runs)) = found else {
            return Err(tonic::Status::not_found(format!(
                "there is no job {number}, or it ended long ago"
            )));
        };
        let order = self.sched.order_of(first);
        let data = order.iter().flat_map(|order| &order.request.data);
        let data = data.map(|path| self.data(path)).collect();
        let request = order.map(|order| to_yaml(&order.request));
        Ok(pb::ShowJobReply {
            job: Some(job),
            request: request.unwrap_or_default(),
            runs,
            folder: format!("{}/{number}", self.jobs_dir()),
            data,
        })
    }

    fn data(&self, path: &str) -> pb::JobData {
        let nodes = self.sched.look(|state| {
            let cached = state.scheduler().cached(path).into_iter().flatten();
            cached.map(|node| state.name(*node).to_owned()).collect()
        });
        pb::JobData { path: path.to_owned(), nodes }
    }

    /// `lead`: who was heard when is told too.
    pub(crate) fn nodes(&self, lead: Option<&Lead>, runs: bool) -> pb::ListComputeNodesReply {
        let status = self.sched.group.status();
        self.sched.look(|state| {
            let scheduler = state.scheduler();
            let nodes = state.topology().nodes().filter_map(|(id, _)| node(state, lead, id));
            let told = state.history().runs().take(limits::RUNS_LISTED);
            let waits = |job: &&Job| matches!(job.state, Of::Held | Of::Pending | Of::Claiming);
            pb::ListComputeNodesReply {
                nodes: nodes.collect(),
                runs: match runs {
                    true => told.map(|run| show::run(state, run)).collect(),
                    false => Vec::new(),
                },
                leader: status.leader_node,
                term: status.term,
                now_ms: crate::leader::wall_ms(),
                waiting: scheduler.jobs().filter(waits).count() as u64,
            }
        })
    }

    /// The ports of all nodes: the broken first, then the busiest.
    pub(crate) fn links(&self, lead: &Lead) -> pb::ListLinksReply {
        let now_ms = lead.term.now_ms();
        let links = lead.links.lock();
        let mut told: Vec<pb::ComputeLink> = self.sched.look(|state| {
            let of_jobs = links.ports().map(|(node, port)| {
                let (zone, leaf) = state.place(node);
                link(now_ms, state.name(node), zone, leaf, port)
            });
            let watched = links.watched();
            let watched =
                watched.map(|(of, port)| link(now_ms, &of.name, &of.zone, &of.leaf, port));
            of_jobs.chain(watched).collect()
        });
        let rank = |link: &pb::ComputeLink| {
            let busier = link.received_per_s.max(link.sent_per_s);
            Reverse((link.flapping, !link.up, link.hot, link.use_permille, busier))
        };
        told.sort_by_cached_key(|link| (rank(link), link.node.clone(), link.name.clone()));
        pb::ListLinksReply { links: told }
    }

    pub(super) fn quotas(&self) -> pb::ListJobQuotasReply {
        let quotas = self.sched.look(|state| state.scheduler().quotas());
        let one =
            |(key, has): (ff2_sched_core::QuotaKey, ff2_sched_core::Allowance)| pb::JobQuota {
                user: key.user.unwrap_or_default(),
                priority: key.priority.map(show::word).unwrap_or_default(),
                group: key.group.unwrap_or_default(),
                gpus: has.limit,
                used: has.used,
            };
        pb::ListJobQuotasReply {
            quotas: quotas.into_iter().map(one).collect(),
            partitions: self.partitions(),
        }
    }

    /// Those of the configuration first, then those that operators made by tags.
    fn partitions(&self) -> Vec<pb::JobPartition> {
        let configured = &self.config.partitions;
        self.sched.look(|state| {
            let scheduler = state.scheduler();
            let has = |id, tag: &str| scheduler.tags_of(id).iter().any(|has| has == tag);
            let nodes = |name: &str| {
                let tag = format!("{PARTITION}{name}");
                let ids = state.topology().nodes().map(|(id, _)| id);
                u32::try_from(ids.filter(|id| has(*id, &tag)).count()).unwrap_or(u32::MAX)
            };
            let said = configured.iter().map(|of| pb::JobPartition {
                name: of.name.clone(),
                leaves: of.leaves.clone(),
                nodes: nodes(&of.name),
                time_default_s: of.time_default_s,
                time_max_s: of.time_max_s,
                nodes_max: of.nodes_max,
            });
            let made = scheduler.tags().iter().filter_map(|tag| tag.strip_prefix(PARTITION));
            let made = made.filter(|name| configured.iter().all(|of| of.name != *name));
            let made = made.map(|name| pb::JobPartition {
                name: name.to_owned(),
                nodes: nodes(name),
                ..Default::default()
            });
            said.chain(made.filter(|partition| partition.nodes > 0)).collect()
        })
    }

    pub(super) fn groups(&self) -> pb::ListJobGroupsReply {
        self.sched.look(|state| {
            let scheduler = state.scheduler();
            let weight = |group: &str| scheduler.weight_of(group);
            let of = |(group, users): (&String, &std::collections::BTreeMap<String, _>)| {
                let weight = weight(group);
                let group = group.clone();
                users
                    .iter()
                    .map(move |(user, account): (&String, &ff2_sched_core::Account)| pb::JobGroup {
                        group: group.clone(),
                        weight,
                        user: user.clone(),
                        gpu_ms: account.gpu_ms,
                        cost_milli: account.cost_milli,
                        jobs_ended: account.jobs_ended,
                        preemptions: account.preemptions,
                    })
                    .collect::<Vec<_>>()
            };
            pb::ListJobGroupsReply { groups: scheduler.accounts().iter().flat_map(of).collect() }
        })
    }
}

fn link(now_ms: u64, node: &str, zone: &str, leaf: &str, port: &Port) -> pb::ComputeLink {
    let (reading, (downs, errors)) = (port.reading(), port.faults(now_ms));
    pb::ComputeLink {
        node: node.into(),
        zone: zone.into(),
        leaf: leaf.into(),
        name: reading.name.clone(),
        kind: reading.kind.clone(),
        up: reading.up,
        bits_per_s: reading.bits_per_s,
        received_per_s: port.received_per_s,
        sent_per_s: port.sent_per_s,
        use_permille: port.use_permille(),
        hot: port.is_hot(now_ms),
        flapping: port.flaps(now_ms),
        downs,
        errors,
    }
}

fn node(state: &State, lead: Option<&Lead>, id: ff2_topology::NodeId) -> Option<pb::ComputeNode> {
    let scheduler = state.scheduler();
    let is = scheduler.node_state(id)?;
    let (size, used) = scheduler.size_of(id);
    let (zone, leaf) = state.place(id);
    let mut node = pb::ComputeNode {
        name: state.name(id).to_owned(),
        zone: zone.to_owned(),
        leaf: leaf.to_owned(),
        state: show::word(is),
        gpus: size.gpus,
        gpus_used: used.gpus,
        cpus: size.cpus,
        cpus_used: used.cpus,
        memory_mib: size.memory,
        memory_used_mib: used.memory,
        spare: scheduler.is_spare(id),
        jobs: scheduler.jobs_on(id).iter().map(|job| job.0).collect(),
        host: state.host(id).to_owned(),
        why: state.why_node(id).to_owned(),
        tags: scheduler.tags_of(id),
        ..Default::default()
    };
    if let Some(lead) = lead {
        let watch = lead.watch.lock();
        if let Some((said, ago)) = watch.said(lead.term.now_ms(), id) {
            node.heard_ms = ago;
            node.confinement.clone_from(&said.confinement);
            node.release.clone_from(&said.release);
        }
        if let Some((number, found)) = watch.validation(id) {
            (node.validated, node.validation) = (number, found.to_owned());
        }
    }
    Some(node)
}
