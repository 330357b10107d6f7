//! How fast a group is on this machine: three replicas in one process, real folders, real syncs.

mod bare;

use std::{path::Path, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;
use ff2_meta_core::{Kv, KvRead, StateMachine};
use ff2_proto::{GroupId, Status, pb};
use rustix::time::{ClockId, clock_gettime};

use crate::{Group, GroupConfig, GroupError, format_group, loopback::Loopback};

/// Command: key length (u8), key, value. Answer: empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutMachine;

impl StateMachine for PutMachine {
    type View = ();

    fn restore(&mut self, _kv: &dyn KvRead) {}

    fn apply(&mut self, _index: u64, command: &[u8], kv: &mut dyn Kv) -> Bytes {
        if let Some((&length, rest)) = command.split_first()
            && let Some((key, value)) = rest.split_at_checked(usize::from(length))
        {
            kv.put(key, Bytes::copy_from_slice(value));
        }
        Bytes::new()
    }

    fn view(&self) {}
}

/// A put for [`PutMachine`].
pub fn put(key: &[u8], value: &[u8]) -> Bytes {
    let length = u8::try_from(key.len()).expect("keys of the probe are short");
    let mut command = Vec::with_capacity(1 + key.len() + value.len());
    command.push(length);
    command.extend_from_slice(key);
    command.extend_from_slice(value);
    command.into()
}

/// What a run found.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub clients: usize,
    pub puts: u64,
    pub puts_per_s: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// CPU of the whole process: three replicas and the clients.
    pub cpu_us_per_put: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:5} clients: {:8.0} puts/s, p50 {:6.2} ms, p99 {:6.2} ms, {:5.1} us CPU per put",
            self.clients,
            self.puts_per_s,
            self.p50.as_secs_f64() * 1e3,
            self.p99.as_secs_f64() * 1e3,
            self.cpu_us_per_put
        )
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("open the probe's group")]
    Open(#[from] GroupError),
    #[error("no leader within {0:?}")]
    NoLeader(Duration),
    #[error("put")]
    Put(#[source] Status),
    #[error("the bare loop: {0}")]
    Bare(String),
}

/// Three replicas in folders below `data_dir`, and the leader's place.
#[derive(Debug)]
pub struct Probe<S: StateMachine> {
    groups: Vec<Group<S>>,
    leader: usize,
}

impl<S: StateMachine> Probe<S> {
    /// With a machine each.
    pub async fn start(data_dir: &Path, machine: impl Fn() -> S) -> Result<Self, ProbeError> {
        let wires = Loopback::default();
        let group = GroupId(1);
        let member = |node: u32| pb::Member {
            raft_id: u64::from(node),
            node,
            address: format!("probe-{node}:1"),
            incarnation: 0,
        };
        let members: Vec<_> = (1..=3).map(member).collect();
        let mut groups = Vec::new();
        for member in &members {
            let folder = data_dir.join(format!("node-{}", member.node));
            format_group(&folder, group, member.node, &members)?;
            let config = GroupConfig::new(group, member.node, &member.address, folder);
            let opened = Group::open(config, machine(), wires.link(&member.address))?;
            wires.register(&member.address, &opened);
            groups.push(opened);
        }
        let leader = Self::await_leader(&groups).await?;
        Ok(Self { groups, leader })
    }

    async fn await_leader(groups: &[Group<S>]) -> Result<usize, ProbeError> {
        let patience = Duration::from_secs(20);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            let leads = |group: &Group<S>| group.leadership().borrow().is_leader;
            if let Some(leader) = groups.iter().position(leads) {
                return Ok(leader);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(ProbeError::NoLeader(patience))
    }

    /// The replica that leads.
    pub fn leader(&self) -> &Group<S> {
        &self.groups[self.leader]
    }

    /// Stops the replicas. The caller removes the folders.
    pub async fn stop(self) {
        for group in &self.groups {
            group.shutdown_now().await;
        }
    }
}

impl Probe<PutMachine> {
    /// `clients` tasks that put 64-byte values one after the other, `puts` in all.
    pub async fn run(&self, clients: usize, puts: u64) -> Result<Figures, ProbeError> {
        let group = self.leader().clone();
        measure(clients, puts, move |command| {
            let group = group.clone();
            async move { group.propose(command).await.map(drop).map_err(ProbeError::Put) }
        })
        .await
    }
}

/// `clients` tasks that put 64-byte values one after the other, `puts` in all.
async fn measure<Put, Done>(clients: usize, puts: u64, one: Put) -> Result<Figures, ProbeError>
where
    Put: Fn(Bytes) -> Done + Clone + Send + 'static,
    Done: Future<Output = Result<(), ProbeError>> + Send + 'static,
{
    let each = puts.div_ceil(clients as u64);
    let (begun, cpu_begun) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = (0..clients as u64)
        .map(|client| tokio::spawn(put_all(one.clone(), client, each)))
        .collect();
    let mut times = Vec::with_capacity(puts as usize);
    for task in tasks {
        times.extend(task.await.map_err(|_| ProbeError::Put(pb::Code::Internal.into()))??);
    }
    let (took, cpu) = (begun.elapsed(), cpu_time().saturating_sub(cpu_begun));
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(Figures {
        clients,
        puts: times.len() as u64,
        puts_per_s: times.len() as f64 / took.as_secs_f64(),
        p50: at(0.50),
        p99: at(0.99),
        cpu_us_per_put: cpu.as_secs_f64() * 1e6 / times.len() as f64,
    })
}

async fn put_all<Put, Done>(one: Put, client: u64, puts: u64) -> Result<Vec<Duration>, ProbeError>
where
    Put: Fn(Bytes) -> Done,
    Done: Future<Output = Result<(), ProbeError>>,
{
    let value = [7; 64];
    let mut times = Vec::with_capacity(puts as usize);
    for number in 0..puts {
        let key = [client.to_be_bytes(), number.to_be_bytes()].concat();
        let begun = Instant::now();
        one(put(&key, &value)).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// What a line of a report is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Group,
    /// raft-rs and RocksDB without all that makes a group of them.
    BareLoop,
}

/// Clients of the runs that are held against the bare loop, in turns.
pub const COMPARED_CLIENTS: usize = 256;
const COMPARED_PUTS: u64 = 50_000;
const TURNS: usize = 3;

/// The loop of `ff2ctl bench raft`: one line for each number of clients, and of each turn against the
/// bare loop.
pub async fn report(
    data_dir: &Path,
    mut line: impl FnMut(Subject, Figures),
) -> Result<(), ProbeError> {
    let probe = Arc::new(Probe::start(data_dir, || PutMachine).await?);
    for (clients, puts) in [(1, 1_000), (32, 20_000), (1_024, 100_000)] {
        line(Subject::Group, probe.run(clients, puts).await?);
    }
    let bare = bare::Bare::start(data_dir)?;
    let client = bare.client();
    let put_bare = move |command| {
        let client = client.clone();
        async move { client.put(command).await.ok_or_else(|| ProbeError::Bare("it ended".into())) }
    };
    // The first waits for a leader.
    put_bare(put(b"first", b"")).await?;
    let (clients, puts) = (COMPARED_CLIENTS, COMPARED_PUTS);
    for _ in 0..TURNS {
        line(Subject::Group, probe.run(clients, puts).await?);
        line(Subject::BareLoop, measure(clients, puts, put_bare.clone()).await?);
    }
    bare.stop();
    if let Some(probe) = Arc::into_inner(probe) {
        probe.stop().await;
    }
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
