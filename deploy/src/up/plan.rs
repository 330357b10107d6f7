//! Decides what `up` has to do: pure functions from what is wanted, what `cluster.json` says and what
//! runs, to a list of steps.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result, ensure};
use ff2_daemon::config::Transport;

use super::ports::Ports;
use crate::{
    bytes::ByteSize,
    cluster::{ClusterFile, Folder, Name, Process, Role},
    mount, process,
};

/// What the command line asks for; `None` is "as it is", or the default of a new cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) metads: Option<u32>,
    pub(super) storageds: Option<u32>,
    pub(super) disks: Option<u32>,
    pub(super) disk_size: Option<ByteSize>,
    pub(super) replicas: Option<u32>,
    pub(super) tcp: bool,
    pub(super) transport: Option<Transport>,
    pub(super) encrypt_all: bool,
    pub(super) agents: Option<u32>,
    pub(super) fake_gpus: Option<u32>,
    pub(super) base_port: Option<u16>,
}

const METADS: u32 = 3;
const STORAGEDS: u32 = 4;
const DISKS: u32 = 2;
const DISK_SIZE: ByteSize = ByteSize(8 << 30);
const REPLICAS: u32 = 3;
const SCHEDDS: u32 = 3;

/// The cluster as it shall be: the known one, with what is wanted in addition.
pub(super) fn resolve(
    wanted: &Wanted,
    known: Option<&ClusterFile>,
    ports: &impl Ports,
) -> Result<ClusterFile> {
    match known {
        Some(known) => grown(wanted, known, ports),
        None => new(wanted, ports),
    }
}

fn new(wanted: &Wanted, ports: &impl Ports) -> Result<ClusterFile> {
    let metads = wanted.metads.unwrap_or(METADS);
    let storageds = wanted.storageds.unwrap_or(STORAGEDS);
    let replicas = wanted.replicas.unwrap_or(REPLICAS.min(storageds.max(1)));
    ensure!(
        storageds == 0 || replicas <= storageds,
        "{replicas} replicas need as many storage servers: say --storaged {replicas} or --replicas {storageds}"
    );
    let disk_size = wanted.disk_size.unwrap_or(DISK_SIZE);
    let mut file = ClusterFile::new(ports.cluster_id()?, replicas, disk_size);
    file.tcp = wanted.tcp;
    file.transport = wanted.transport.unwrap_or_default();
    file.encrypt_all = wanted.encrypt_all;
    let agents = wanted.agents.unwrap_or(0);
    let count = metads * 3 + storageds * 2 + ports_of_agents(agents, true);
    let mut free = ports.free(count, wanted.base_port)?.into_iter();
    let mut next = || free.next().context("as many ports as were asked for");
    for index in 0..metads {
        let (port, admin_port, http_port) = (next()?, next()?, next()?);
        let metad = Process::new(Role::Metad, index);
        file.processes.push(Process { port, admin_port, http_port, ..metad });
    }
    for index in 0..storageds {
        let (port, http_port) = (next()?, next()?);
        file.processes.push(storaged(index, port, http_port, wanted.disks.unwrap_or(DISKS)));
    }
    file.fake_gpus = wanted.fake_gpus;
    add_agents(&mut file, agents, &mut next)?;
    Ok(file)
}

/// With the scheduler, if it is not there yet.
fn ports_of_agents(agents: u32, with_scheduler: bool) -> u32 {
    if agents == 0 { 0 } else { agents + if with_scheduler { SCHEDDS * 3 } else { 0 } }
}

/// So many more agents, and the scheduler before the first.
fn add_agents(
    file: &mut ClusterFile,
    more: u32,
    next: &mut impl FnMut() -> Result<u16>,
) -> Result<()> {
    if more > 0 && file.of(Role::Schedd).next().is_none() {
        for index in 0..SCHEDDS {
            let (port, admin_port, http_port) = (next()?, next()?, next()?);
            let schedd = Process::new(Role::Schedd, index);
            file.processes.push(Process { port, admin_port, http_port, ..schedd });
        }
    }
    let first = u32::try_from(file.of(Role::Agentd).count()).unwrap_or(u32::MAX);
    for index in first..first + more {
        let agent = Process::new(Role::Agentd, index);
        file.processes.push(Process { http_port: next()?, ..agent });
    }
    Ok(())
}

fn storaged(index: u32, port: u16, http_port: u16, disks: u32) -> Process {
    Process { port, http_port, disks, ..Process::new(Role::Storaged, index) }
}

/// A cluster can get more storage servers and agents; everything else of it is fixed.
fn grown(wanted: &Wanted, known: &ClusterFile, ports: &impl Ports) -> Result<ClusterFile> {
    let count = |role| u32::try_from(known.of(role).count()).unwrap_or(u32::MAX);
    let (metads, storageds) = (count(Role::Metad), count(Role::Storaged));
    fixed("--metad", wanted.metads, metads)?;
    fixed("--replicas", wanted.replicas, known.replicas)?;
    fixed("--disk-size", wanted.disk_size, known.disk_size)?;
    fixed("--tcp", wanted.tcp.then_some(true), known.tcp)?;
    fixed("--transport", wanted.transport, known.transport)?;
    fixed("--encrypt-all", wanted.encrypt_all.then_some(true), known.encrypt_all)?;
    let disks = known.of(Role::Storaged).next().map(|process| process.disks);
    if let Some(disks) = disks {
        fixed("--disks", wanted.disks, disks)?;
    }
    let more = wanted.storageds.unwrap_or(storageds).checked_sub(storageds).with_context(|| {
        format!(
            "this cluster has {storageds} storage servers, and `up` takes none away: leave --storaged \
             out; `ff2ctl kill storaged/N` shows how the cluster bears the loss of one, and another \
             --dir makes a smaller cluster"
        )
    })?;
    let agents = count(Role::Agentd);
    let more_agents = wanted.agents.unwrap_or(agents).checked_sub(agents).with_context(|| {
        format!("this cluster has {agents} agents, and `up` takes none away: leave --agents out")
    })?;
    let mut file = known.clone();
    if agents > 0 {
        fixed("--fake-gpus", wanted.fake_gpus, known.fake_gpus.unwrap_or(0))?;
    } else {
        file.fake_gpus = wanted.fake_gpus;
    }
    let ports_wanted = more * 2 + ports_of_agents(more_agents, agents == 0);
    if ports_wanted > 0 {
        let mut free = ports.free(ports_wanted, wanted.base_port)?.into_iter();
        let mut next = || free.next().context("as many ports as were asked for");
        for index in storageds..storageds + more {
            let (port, http_port) = (next()?, next()?);
            let disks = wanted.disks.or(disks).unwrap_or(DISKS);
            file.processes.push(storaged(index, port, http_port, disks));
        }
        add_agents(&mut file, more_agents, &mut next)?;
    }
    Ok(file)
}

fn fixed<T: PartialEq + std::fmt::Display>(option: &str, wanted: Option<T>, is: T) -> Result<()> {
    ensure!(
        wanted.as_ref().is_none_or(|wanted| *wanted == is),
        "this cluster was made with {option} {is}, which cannot be changed: leave {option} out, or \
         make another cluster with another --dir"
    );
    Ok(())
}

/// What is so now, as far as `up` has to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) has_keys: bool,
    pub(crate) processes: BTreeMap<Name, Facts>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) configured: bool,
    pub(crate) formatted: bool,
    pub(crate) runs: bool,
    /// A mount whose process is gone is still in the kernel's table, and answers nothing.
    pub(crate) stale_mount: bool,
}

impl World {
    pub(crate) fn look(folder: &Folder, file: &ClusterFile) -> Self {
        let facts = |process: &Process| {
            let name = process.name();
            let runs = process::running(folder, name).is_some();
            let dead = process.mount_point.as_deref().is_some_and(mount::is_dead);
            Facts {
                configured: folder.config(name).exists(),
                formatted: folder.formatted(name).exists(),
                runs,
                stale_mount: dead && !runs,
            }
        };
        let processes = file.processes.iter().map(|p| (p.name(), facts(p))).collect();
        Self { has_keys: folder.root_token().exists(), processes }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    SaveClusterFile,
    MakeKeys,
    WriteConfig(Name),
    Format(Name),
    ClearMount(PathBuf),
    /// Where jobs have their folders.
    MakeJobsDir(PathBuf),
    Start(Vec<Name>),
    /// Also of those that ran already: they may be on their way.
    WaitReady(Vec<Name>),
    /// A user, and where there are disks a chain table and a volume, as far as the cluster lacks them.
    Provide {
        replicas: u32,
    },
    WaitServing,
    /// For resyncs too.
    WaitWhole,
}

impl Step {
    /// Whether it brings something up that was down.
    pub(super) fn starts(&self) -> bool {
        match self {
            Self::Start(names) => !names.is_empty(),
            Self::MakeKeys | Self::WriteConfig(_) | Self::Format(_) | Self::ClearMount(_) => true,
            Self::SaveClusterFile
            | Self::MakeJobsDir(_)
            | Self::WaitReady(_)
            | Self::Provide { .. }
            | Self::WaitServing
            | Self::WaitWhole => false,
        }
    }
}

pub(super) fn plan(file: &ClusterFile, known: Option<&ClusterFile>, world: &World) -> Vec<Step> {
    let facts = |name: &Name| world.processes.get(name).copied().unwrap_or_default();
    let names = |role| file.of(role).map(Process::name).collect::<Vec<_>>();
    let mut steps = Vec::new();
    // First of all: what this command makes must be found again if it is interrupted.
    if known != Some(file) {
        steps.push(Step::SaveClusterFile);
    }
    if !world.has_keys {
        steps.push(Step::MakeKeys);
    }
    for name in file.processes.iter().map(Process::name) {
        if !facts(&name).configured {
            steps.push(Step::WriteConfig(name));
        }
        if name.role.is_formatted() && !facts(&name).formatted {
            steps.push(Step::Format(name));
        }
    }
    let storageds = names(Role::Storaged);
    let start = |role, steps: &mut Vec<Step>| {
        let down = names(role).into_iter().filter(|name| !facts(name).runs).collect::<Vec<_>>();
        if !down.is_empty() {
            steps.push(Step::Start(down));
        }
    };
    start(Role::Metad, &mut steps);
    start(Role::Storaged, &mut steps);
    // The storage servers join while the metads elect: they are waited for together.
    steps.push(Step::WaitReady([names(Role::Metad), storageds.clone()].concat()));
    steps.push(Step::Provide { replicas: file.replicas });
    if !storageds.is_empty() {
        steps.push(Step::WaitServing);
    }
    for mount in file.of(Role::Fuse) {
        if facts(&mount.name()).stale_mount
            && let Some(path) = &mount.mount_point
        {
            steps.push(Step::ClearMount(path.clone()));
        }
    }
    start(Role::Schedd, &mut steps);
    start(Role::Fuse, &mut steps);
    let waited = [names(Role::Schedd), names(Role::Fuse)].concat();
    if !waited.is_empty() {
        steps.push(Step::WaitReady(waited));
    }
    let agents = names(Role::Agentd);
    if !agents.is_empty() {
        // On the mount, if there is one.
        steps.extend(file.jobs_dir.clone().map(Step::MakeJobsDir));
        start(Role::Agentd, &mut steps);
        steps.push(Step::WaitReady(agents));
    }
    // After the mounts, which need no more than chains that serve.
    steps.push(Step::WaitWhole);
    steps
}

#[cfg(test)]
mod tests;
