//! A client process that writes and reads chunks through the real [`ChainClient`], and remembers what
//! it was told. Several tasks share its connections, its buffers and its channels.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use ff2_fabric::{
    BufPool, Identity, Peers, PeersConfig, SharedBuf,
    chain::{ChainClient, ChunkUpdate, ReadSpan},
};
use ff2_proto::{ChainId, ChunkId, Code, InodeId, Status, limits, pb};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, sleep, timeout};

use super::{CHAINS, Process, World, cells};
use crate::{
    disk::CELL,
    history::{Action, Operation},
    rng::Rng,
};

/// Few, so that clients meet.
const CHUNKS: u32 = 4;
const CELLS: u32 = 2;
/// Some reads of many parts do not fit at once.
const POOL_BYTES: u64 = 16 << 10;
/// How long after its deadline an operation may still answer: timers count in milliseconds.
const SLACK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(25);

/// One cell of one chunk.
pub(super) type Register = (ChunkId, u32);

#[derive(Debug)]
pub(super) struct Session {
    process: Process,
    pub(super) peers: Arc<Peers>,
    pub(super) pool: Arc<BufPool>,
    client: Arc<ChainClient>,
    values: AtomicU64,
    history: Mutex<Vec<(Register, Operation)>>,
}

impl Session {
    pub(super) fn new(world: &World, process: Process, identity: Identity) -> Arc<Self> {
        let routing = world.cluster.join(process);
        let pool = BufPool::new(POOL_BYTES);
        let peers = Peers::new(PeersConfig {
            cluster_id: world.net.clone(),
            identity,
            pool: pool.clone(),
            routing: routing.clone(),
            tls: None,
            rdma: None,
            zone: String::new(),
        });
        let client = ChainClient::seeded(peers.clone(), routing, process.into());
        let (values, history) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { process, peers, pool, client, values, history })
    }

    /// One operation after the other, until the world stops.
    pub(super) async fn work(self: Arc<Self>, world: Arc<World>, mut rng: Rng) {
        while !world.is_stopping() {
            let limit = match rng.within(0..100) {
                0..4 => Duration::from_millis(rng.within(20..300)),
                4..12 => Duration::from_millis(rng.within(300..4_000)),
                _ => PATIENCE,
            };
            // The caller loses interest in the middle.
            let dropped_after = rng.chance(3).then(|| Duration::from_millis(rng.within(0..60)));
            let operation = async {
                match rng.chance(55) {
                    true => self.write(&world, random_register(&mut rng), limit).await,
                    false => self.read(&world, random_chunks(&mut rng), limit).await,
                }
            };
            match dropped_after {
                Some(after) => drop(timeout(after, operation).await),
                None => operation.await,
            }
            let idle = rng.chance(20);
            let pause = rng.within(if idle { 100..900 } else { 1..60 });
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Reads all there is, for the verdict.
    pub(super) async fn read_all(&self, world: &World) {
        for number in 0..CHUNKS {
            self.read(world, vec![chunk(number)], PATIENCE).await;
        }
    }

    /// Attempts that failed and were made again.
    pub(super) fn retries(&self) -> u64 {
        self.client.totals().retries
    }

    pub(super) fn history(&self) -> Vec<(Register, Operation)> {
        self.history.lock().clone()
    }

    async fn write(&self, world: &World, (chunk, cell): Register, limit: Duration) {
        // Unlike that of every other write of any client, and never 0.
        let value = u64::from(self.process) << 32 | (self.values.fetch_add(1, Relaxed) + 1);
        let record = self.call((chunk, cell), Action::Write { cell: 0, value }, world);
        let update = ChunkUpdate {
            chain: chain_of(chunk),
            chunk,
            kind: pb::UpdateKind::Write,
            offset: cell * CELL,
            payload: SharedBuf::from(cells::to_bytes(&[value])),
            chunk_size: limits::CHUNK_SIZE_MIN,
            grant: Bytes::new(),
        };
        let deadline = Instant::now() + limit;
        world.chronicle.note("write", &[self.process.into(), value, millis(limit)]);
        let outcome = self.client.update(&update, deadline.into_std()).await;
        match &outcome {
            Ok(updated) => {
                world.ledger.acknowledged(chunk, value, updated.version);
                self.returned(record, Action::Write { cell: 0, value }, world);
            }
            Err(status) => self.failed(world, "a write", status, deadline),
        }
        self.ended(world, outcome.err(), deadline);
    }

    async fn read(&self, world: &World, chunks: Vec<ChunkId>, limit: Duration) {
        let registers = chunks.iter().flat_map(|&chunk| (0..CELLS).map(move |cell| (chunk, cell)));
        let registers: Vec<Register> = registers.collect();
        let records: Vec<usize> = registers
            .iter()
            .map(|&register| self.call(register, Action::Read { cell: 0, value: 0 }, world))
            .collect();
        let length = CELLS * CELL;
        let span = |&chunk: &ChunkId| ReadSpan { chain: chain_of(chunk), chunk, offset: 0, length };
        let spans: Vec<ReadSpan> = chunks.iter().map(span).collect();
        let deadline = Instant::now() + limit;
        world.chronicle.note("read", &[self.process.into(), spans.len() as u64, millis(limit)]);
        let outcome = self.client.read(&spans, &Bytes::new(), deadline.into_std()).await;
        match &outcome {
            Ok(pieces) => {
                let found = pieces.iter().flat_map(|piece| cells::from_bytes(&piece.bytes));
                for (record, value) in records.into_iter().zip(found) {
                    self.returned(record, Action::Read { cell: 0, value }, world);
                }
            }
            Err(status) => self.failed(world, "a read", status, deadline),
        }
        self.ended(world, outcome.err(), deadline);
    }

    fn call(&self, register: Register, action: Action, world: &World) -> usize {
        let mut history = self.history.lock();
        let called = world.chronicle.now();
        history.push((register, Operation { action, called, returned: None }));
        history.len() - 1
    }

    fn returned(&self, record: usize, action: Action, world: &World) {
        let operation = &mut self.history.lock()[record].1;
        (operation.action, operation.returned) = (action, Some(world.chronicle.now()));
    }

    /// The one reason to fail is that the time is over: failures of servers are pauses.
    fn failed(&self, world: &World, what: &str, status: &Status, deadline: Instant) {
        let gave_up = status.detail.starts_with("gave up at the deadline")
            || status.code == Code::Busy && Instant::now() >= deadline;
        if !gave_up {
            world.chronicle.problem(format!("{what} of {} failed: {status}", self.process));
        }
    }

    fn ended(&self, world: &World, failure: Option<Status>, deadline: Instant) {
        let code = failure.map_or(0, |status| status.code as u64);
        world.chronicle.note("ended", &[self.process.into(), code]);
        let late = Instant::now().saturating_duration_since(deadline);
        if late > SLACK {
            let who = self.process;
            world
                .chronicle
                .problem(format!("an operation of {who} outlived its deadline by {late:?}"));
        }
    }
}

/// Every register of every client with its history.
pub(super) fn histories(sessions: &[Arc<Session>]) -> BTreeMap<Register, Vec<Operation>> {
    let mut registers: BTreeMap<Register, Vec<Operation>> = BTreeMap::new();
    for (register, operation) in sessions.iter().flat_map(|session| session.history()) {
        registers.entry(register).or_default().push(operation);
    }
    registers
}

fn chunk(number: u32) -> ChunkId {
    ChunkId::new(InodeId(100 + u64::from(number)), 0)
}

fn chain_of(chunk: ChunkId) -> ChainId {
    ChainId(chunk.inode.0 as u32 % CHAINS + 1)
}

fn random_register(rng: &mut Rng) -> Register {
    (chunk(rng.within(0..CHUNKS.into()) as u32), rng.within(0..CELLS.into()) as u32)
}

/// One, or several in one operation.
fn random_chunks(rng: &mut Rng) -> Vec<ChunkId> {
    let first = rng.within(0..CHUNKS.into()) as u32;
    let count = if rng.chance(70) { 1 } else { rng.within(2..u64::from(CHUNKS) + 1) as u32 };
    (0..count).map(|place| chunk((first + place) % CHUNKS)).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
