//! Three storage nodes with real engines in one process: writes, reads, a node that dies under load
//! and comes back, a whole chain that dies, and who may not come in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod metad;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use cluster::Cluster;
use ff2_fabric::{
    Call, Identity, StorageClient,
    buf::SharedBuf,
    chain::{ChainClient, ChunkUpdate, ReadSpan},
};
use ff2_proto::{
    ChainId, ChunkId, Code, InodeId, NodeId,
    pb::{self, PublicState, UpdateKind},
    routing::ChainExt,
    status::check,
};
use ff2_storage_core::format::crc32c;

const CHAIN: ChainId = ChainId(1);
const SIZE: u32 = 1 << 20;

fn chunk(index: u32) -> ChunkId {
    ChunkId::new(InodeId(7), index)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Bytes that say where they belong.
fn content(index: u32, round: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 16);
    let mut word = (u64::from(index) << 32) | round;
    while bytes.len() < length {
        word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

async fn update(client: &ChainClient, index: u32, kind: UpdateKind, offset: u32, bytes: Vec<u8>) {
    let update = ChunkUpdate {
        chain: CHAIN,
        chunk: chunk(index),
        kind,
        offset,
        payload: SharedBuf::from(bytes),
        chunk_size: SIZE,
        grant: Bytes::new(),
    };
    client.update(&update, soon()).await.unwrap();
}

async fn read(client: &ChainClient, index: u32, offset: u32, length: u32) -> Vec<u8> {
    let span = ReadSpan { chain: CHAIN, chunk: chunk(index), offset, length };
    let pieces = client.read(&[span], &Bytes::new(), soon()).await.unwrap();
    pieces[0].bytes.to_vec()
}

/// What the chunks of the file should be.
#[derive(Clone, Default)]
struct Model(BTreeMap<u32, Vec<u8>>);

impl Model {
    async fn write(&mut self, client: &ChainClient, index: u32, offset: usize, bytes: Vec<u8>) {
        let known = self.0.entry(index).or_default();
        if known.len() < offset + bytes.len() {
            known.resize(offset + bytes.len(), 0);
        }
        known[offset..offset + bytes.len()].copy_from_slice(&bytes);
        update(client, index, UpdateKind::Write, offset as u32, bytes).await;
    }

    async fn cut(&mut self, client: &ChainClient, index: u32, length: usize) {
        self.0.entry(index).or_default().resize(length, 0);
        update(client, index, UpdateKind::Truncate, length as u32, Vec::new()).await;
    }

    async fn remove(&mut self, client: &ChainClient, index: u32) {
        self.0.remove(&index);
        update(client, index, UpdateKind::Remove, 0, Vec::new()).await;
    }

    fn bytes(&self, index: u32) -> Vec<u8> {
        let mut bytes = self.0.get(&index).cloned().unwrap_or_default();
        bytes.resize(SIZE as usize, 0);
        bytes
    }

    /// Every serving member has every byte.
    async fn verify_on_all(&self, cluster: &Cluster, chunks: u32) {
        let chain = cluster.metad.chain().unwrap();
        for member in chain.serving() {
            for index in 0..chunks {
                let found = read_from(cluster, &chain, member, index).await;
                let wanted = self.bytes(index);
                let differs = found.iter().zip(&wanted).position(|(a, b)| a != b);
                assert_eq!(differs, None, "chunk {index} at target {}", member.target);
            }
        }
    }
}

/// Reads a whole chunk from one member; waits while it asks for patience.
async fn read_from(
    cluster: &Cluster,
    chain: &pb::Chain,
    member: &pb::ChainMember,
    index: u32,
) -> Vec<u8> {
    let part = pb::ReadPart {
        chain: CHAIN.0,
        chain_version: chain.version,
        target: member.target,
        chunk: Some(chunk(index).into()),
        offset: 0,
        length: SIZE,
    };
    let mut request = pb::ReadRequest { parts: vec![part], ..Default::default() };
    let address = {
        let routing = cluster.metad.routing();
        routing.nodes.iter().find(|node| node.id == member.node).unwrap().address.clone()
    };
    let client = StorageClient::new(cluster.peers.channel(&address));
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.read(&request, Call::default()).await;
        let outcome = answer.and_then(|(reply, bytes)| {
            let part = &reply.parts[0];
            check(part.status.clone()).map(|()| (bytes.to_vec(), part.crc32c))
        });
        match outcome {
            Ok((bytes, written)) if crc32c(&bytes) == written => return bytes,
            // As the chain client does: the server is to look for itself.
            Ok(_) => {
                assert!(!request.verify, "a server that looked sent damaged bytes");
                request.verify = true;
            }
            Err(status) if Instant::now() > until => panic!("{member:?}: {status}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_under_load_and_comes_back_with_everything() {
    const CHUNKS: u32 = 24;
    let mut cluster = Cluster::start("dies").await;
    let client = cluster.client.clone();
    let mut model = Model::default();
    for index in 0..CHUNKS {
        let length = 1 + (index as usize * 40_961) % SIZE as usize;
        model.write(&client, index, 0, content(index, 1, length)).await;
    }
    model.write(&client, 3, 5_000, content(3, 2, 70_000)).await;
    model.cut(&client, 4, 10).await;
    model.verify_on_all(&cluster, CHUNKS).await;

    // The head dies; writes wait for the chain and go on.
    let head = cluster.metad.chain().unwrap().head().unwrap().target;
    let place = cluster.node_of(head);
    cluster.kill(place).await;
    let died = Instant::now();
    model.write(&client, 0, 100, content(0, 3, 9_000)).await;
    assert!(died.elapsed() < Duration::from_secs(10), "failover took {:?}", died.elapsed());
    for index in (0..CHUNKS).step_by(3) {
        model.write(&client, index, 4_096, content(index, 4, 8_192)).await;
    }
    for index in (1..CHUNKS).step_by(5) {
        model.remove(&client, index).await;
    }
    model.write(&client, CHUNKS, 0, content(CHUNKS, 5, 300_000)).await;
    model.verify_on_all(&cluster, CHUNKS + 1).await;

    // It comes back while another client goes on writing.
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let busy = tokio::spawn(keep_writing(client.clone(), stop.clone(), written.clone()));
    cluster.start_node(place);
    cluster.metad.until_all_serve().await;
    stop.store(true, Ordering::Release);
    let last = busy.await.unwrap();
    assert!(written.load(Ordering::Acquire) > 0);
    model.0.insert(HOT, last);
    model.verify_on_all(&cluster, CHUNKS + 1).await;
    model.verify_on_all_of(&cluster, HOT).await;
    let chain = cluster.metad.chain().unwrap();
    assert_eq!(chain.tail().map(|tail| tail.target), Some(head), "it serves again, as the last");
    cluster.end().await;
}

/// The target on the disk that is lost is given up; one on the new disk is filled from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_replaced_by_a_new_one() {
    const CHUNKS: u32 = 8;
    let mut cluster = Cluster::start("disk").await;
    let client = cluster.client.clone();
    let mut model = Model::default();
    for index in 0..CHUNKS {
        model.write(&client, index, 0, content(index, 1, 200_000)).await;
    }
    let lost = cluster.metad.chain().unwrap().head().unwrap().target;
    let place = cluster.node_of(lost);
    cluster.kill(place).await;
    cluster.replace_disk(place);
    cluster.start_node(place);
    model.write(&client, 0, 100, content(0, 2, 9_000)).await;
    let is_offline = |m: &pb::ChainMember| m.target == lost && m.state() == PublicState::Offline;
    cluster.metad.until("it is given up", |chain| chain.members.iter().any(is_offline)).await;
    let new = cluster.metad.replace(lost);
    cluster.metad.until_all_serve().await;
    assert!(cluster.metad.chain().unwrap().serving().any(|member| member.target == new));
    model.verify_on_all(&cluster, CHUNKS).await;
    // It is found again after a restart.
    cluster.stop_node(place).await;
    cluster.start_node(place);
    cluster.metad.until_all_serve().await;
    model.verify_on_all(&cluster, CHUNKS).await;
    cluster.end().await;
}

const HOT: u32 = 500;

/// Overwrites one chunk over and over. Returns what it is in the end.
async fn keep_writing(
    client: Arc<ChainClient>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> Vec<u8> {
    let mut model = Model::default();
    let mut round = 0;
    while !stop.load(Ordering::Acquire) {
        round += 1;
        let offset = (round as usize * 4_096) % (SIZE as usize / 2);
        model.write(&client, HOT, offset, content(HOT, round, 6_000)).await;
        written.fetch_add(1, Ordering::AcqRel);
    }
    model.0.remove(&HOT).unwrap_or_default()
}

impl Model {
    async fn verify_on_all_of(&self, cluster: &Cluster, index: u32) {
        let chain = cluster.metad.chain().unwrap();
        for member in chain.serving() {
            let found = read_from(cluster, &chain, member, index).await;
            assert!(found == self.bytes(index), "chunk {index} at target {}", member.target);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_dies_as_a_whole_keeps_what_it_acknowledged() {
    const CHUNKS: u32 = 8;
    let mut cluster = Cluster::start("whole").await;
    let client = cluster.client.clone();
    let mut model = Model::default();
    for index in 0..CHUNKS {
        model.write(&client, index, 0, content(index, 1, 100_000)).await;
        model.write(&client, index, 50_000, content(index, 2, 5_000)).await;
    }
    let before = metad::generations(&cluster.metad);
    for n in 0..3 {
        cluster.kill(n).await;
    }
    cluster.metad.until("nobody serves", |chain| chain.serving().next().is_none()).await;
    let lost = |m: &&pb::ChainMember| m.state() == PublicState::Lastsrv;
    assert!(cluster.metad.chain().unwrap().members.iter().filter(lost).count() >= 1);
    for n in 0..3 {
        cluster.start_node(n);
    }
    cluster.metad.until_all_serve().await;
    assert_eq!(metad::generations(&cluster.metad), before, "the same stores");
    model.verify_on_all(&cluster, CHUNKS).await;
    model.write(&client, 0, 7, content(0, 3, 20_000)).await;
    model.verify_on_all(&cluster, CHUNKS).await;
    cluster.end().await;
}

/// Restored metadata goes by it: whoever acknowledged anything under a version has that version on its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_target_takes_part_in_is_on_its_disk_before() {
    let mut cluster = Cluster::start("notes").await;
    let client = cluster.client.clone();
    let mut model = Model::default();
    for round in 1..=3 {
        let first = cluster.metad.chain().unwrap().head().unwrap().target;
        let away = cluster.node_of(first);
        cluster.kill(away).await;
        cluster.metad.until("it is left out", |chain| chain.serving().count() == 2).await;
        let chain = cluster.metad.chain().unwrap();
        // Under an older version nobody acknowledges it: that would need the one that is away.
        model.write(&client, 0, 0, content(0, round, 50_000)).await;
        let others: Vec<(u64, usize)> =
            chain.serving().map(|m| (m.target, cluster.node_of(m.target))).collect();
        for (_, place) in &others {
            cluster.kill(*place).await;
        }
        let left = cluster.target_on_disk(away).await;
        for (target, place) in &others {
            let meta = cluster.target_on_disk(*place).await;
            assert_eq!(meta.id.0, *target);
            assert!(meta.served_under.0 >= chain.version, "{meta:?} acknowledged under {chain:?}");
            assert!(
                meta.served_under > left.served_under && meta.chain_version >= meta.served_under
            );
            let named = meta.served_with.iter().find(|member| member.target == *target).unwrap();
            assert_eq!(named.state(), PublicState::Serving);
        }
        (0..3).for_each(|place| cluster.start_node(place));
        cluster.metad.until_all_serve().await;
    }
    model.verify_on_all(&cluster, 1).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_node_is_not_taken_for_dead() {
    let cluster = Cluster::start("busy").await;
    let before = cluster.metad.chain().unwrap().version;
    for n in 0..3 {
        cluster.block_workers(n, 2 * metad::LEASE);
    }
    tokio::time::sleep(2 * metad::LEASE).await;
    assert_eq!(cluster.metad.chain().unwrap().version, before);
    update(&cluster.client, 0, UpdateKind::Write, 0, content(0, 1, 5_000)).await;
    cluster.end().await;
}

/// A sector that one disk lost comes back from the other replicas: by an overwrite that cannot build
/// on it, and by a read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_is_repaired_from_a_replica() {
    let cluster = Cluster::start("damage").await;
    let client = cluster.client.clone();
    let mut model = Model::default();
    for index in 0..4 {
        model.write(&client, index, 0, content(index, 1, 300_000)).await;
    }
    let members: Vec<u64> =
        cluster.metad.chain().unwrap().serving().map(|member| member.target).collect();
    let damage = |target: u64, index: u32| {
        cluster.damage(cluster.node_of(target), &content(index, 1, 64));
    };
    let version = || cluster.metad.chain().unwrap().version;

    let before = version();
    damage(members[2], 0);
    model.write(&client, 0, 1, content(0, 2, 10)).await;
    model.verify_on_all(&cluster, 1).await;
    assert_eq!(version(), before, "the tail was sent the whole chunk and stayed");

    // The head leaves, the next one takes the update, and the head is synced.
    damage(members[0], 1);
    model.write(&client, 1, 1, content(1, 2, 10)).await;
    cluster.metad.until_all_serve().await;
    assert!(version() > before);
    model.verify_on_all(&cluster, 2).await;

    // A read is told to ask elsewhere, and the member has itself repaired.
    let before = version();
    damage(members[1], 2);
    let chain = cluster.metad.chain().unwrap();
    let damaged = chain.member(members[1].into()).unwrap();
    assert!(read_from(&cluster, &chain, damaged, 2).await == model.bytes(2));
    assert!(version() > before, "not from the damaged bytes");
    model.verify_on_all(&cluster, 4).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_count_what_was_acknowledged_and_clean_stops_lose_nothing() {
    let mut cluster = Cluster::start("list").await;
    let client = cluster.client.clone();
    let mut model = Model::default();
    for index in 0..10 {
        model.write(&client, index, 0, content(index, 1, 1_000 + index as usize)).await;
    }
    model.remove(&client, 4).await;
    let page = client.list_chunks(CHAIN, InodeId(7), 0, 6, Bytes::new(), soon()).await.unwrap();
    assert!(!page.end && page.chunks.len() == 6);
    let rest = client.list_chunks(CHAIN, InodeId(7), 7, 100, Bytes::new(), soon()).await.unwrap();
    let found: Vec<(u32, u32)> = page
        .chunks
        .iter()
        .chain(&rest.chunks)
        .map(|info| (info.chunk.unwrap().index, info.length))
        .collect();
    let wanted: Vec<(u32, u32)> = (0..10).filter(|i| *i != 4).map(|i| (i, 1_000 + i)).collect();
    assert_eq!(found, wanted);
    assert!(rest.end);

    cluster.stop_node(1).await;
    let stopped = Instant::now();
    model.write(&client, 2, 0, content(2, 2, 4_000)).await;
    assert!(stopped.elapsed() < metad::LEASE, "a clean stop needs no time-out");
    cluster.start_node(1);
    cluster.metad.until_all_serve().await;
    model.verify_on_all(&cluster, 10).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_need_a_grant_and_may_not_speak_as_daemons() {
    let cluster = Cluster::start("grants").await;
    let client = cluster.client.clone();
    update(&client, 0, UpdateKind::Write, 0, content(0, 1, 5_000)).await;
    let token = cluster.key.issue(pb::UserClaims { uid: 1_000, ..Default::default() });
    let peers = Cluster::peers_as(Identity::User(token), &cluster.routing);
    let user = ChainClient::new(peers.clone(), cluster.routing.clone()).unwrap();

    let grant = |inode, read, write| {
        cluster.key.grant(pb::Grant { inode, read, write, ..Default::default() })
    };
    let span = [ReadSpan { chain: CHAIN, chunk: chunk(0), offset: 0, length: 5_000 }];
    let write = |grant| ChunkUpdate {
        chain: CHAIN,
        chunk: chunk(0),
        kind: UpdateKind::Write,
        offset: 0,
        payload: SharedBuf::from(vec![1; 10]),
        chunk_size: SIZE,
        grant,
    };
    for refused in [Bytes::new(), grant(8, true, true), grant(7, false, false)] {
        let code = user.read(&span, &refused, soon()).await.unwrap_err().code;
        assert_eq!(code, Code::Forbidden);
        let code = user.update(&write(refused), soon()).await.unwrap_err().code;
        assert_eq!(code, Code::Forbidden);
    }
    let reader = grant(7, true, false);
    assert_eq!(
        user.update(&write(reader.clone()), soon()).await.unwrap_err().code,
        Code::Forbidden
    );
    assert_eq!(user.read(&span, &reader, soon()).await.unwrap()[0].bytes[..], content(0, 1, 5_000));
    user.update(&write(grant(7, false, true)), soon()).await.unwrap();
    assert_eq!(read(&client, 0, 0, 10).await, [1; 10]);

    let routing = cluster.routing.get();
    let address = routing.address(NodeId(101)).unwrap();
    let stranger = StorageClient::new(peers.channel(address));
    let refusals = [
        stranger.forward(&pb::ForwardRequest::default(), Call::default()).await.err(),
        stranger.settle(&pb::SettleRequest::default(), Call::default()).await.err(),
        stranger.sync_page(&pb::SyncPageRequest::default(), Call::default()).await.err(),
        stranger.sync_done(&pb::SyncDoneRequest::default(), Call::default()).await.err(),
        stranger.query_version(&pb::QueryVersionRequest::default(), Call::default()).await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.map(|status| status.code), Some(Code::Forbidden));
    }
    cluster.end().await;
}
