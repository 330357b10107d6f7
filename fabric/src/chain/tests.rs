//! The chain client against storage servers inside the process, whose answers each test decides.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

use ff2_proto::{Code, NodeId, TargetId};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Answer, Buf, ClusterKey, Context, Identity, PeersConfig, Router, Server, ServerConfig, Storage,
    StorageServer,
};

const CHUNK: ChunkId = ChunkId::new(InodeId(7), 3);
const LONG: Duration = Duration::from_secs(20);

/// What a server does with the next call; with none left it serves.
#[derive(Clone, Debug)]
enum Trick {
    Refuse(Status),
    /// The answer is never sent.
    Hang,
    /// The payload is not what was written; a server that is asked to look says so.
    Spoil,
}

#[derive(Default)]
struct Scripted {
    node: u32,
    tricks: Mutex<VecDeque<Trick>>,
    tags: Mutex<Vec<pb::UpdateTag>>,
    calls: AtomicU32,
    /// Of them, those that asked the server to look for damage.
    looks: AtomicU32,
}

impl Scripted {
    async fn next(&self) -> Result<bool, Status> {
        self.calls.fetch_add(1, SeqCst);
        let trick = self.tricks.lock().pop_front();
        match trick {
            None => Ok(false),
            Some(Trick::Spoil) => Ok(true),
            Some(Trick::Refuse(status)) => Err(status),
            Some(Trick::Hang) => std::future::pending().await,
        }
    }
}

impl Storage for Scripted {
    async fn read(
        &self,
        _cx: Context,
        request: pb::ReadRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        let spoil = self.next().await?;
        self.looks.fetch_add(request.verify.into(), SeqCst);
        let mut reply = pb::ReadReply::default();
        let mut bulk = Vec::new();
        for part in &request.parts {
            if spoil && request.verify {
                let status = Some(Status::from(Code::Corrupt).into());
                reply.parts.push(pb::ReadPartReply { status, ..Default::default() });
                continue;
            }
            assert_eq!(
                part.target % 10,
                u64::from(self.node),
                "the call went to the target's node"
            );
            let mut bytes = vec![part.chain as u8; part.length as usize];
            let crc32c = crc32c(&bytes);
            bytes[0] ^= u8::from(spoil);
            bulk.push(SharedBuf::from(bytes));
            reply.parts.push(pb::ReadPartReply { version: 4, crc32c, ..Default::default() });
        }
        Ok(Answer::with_bulk(reply, bulk))
    }

    async fn update(
        &self,
        _cx: Context,
        request: pb::UpdateRequest,
        bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        self.tags.lock().extend(request.tag);
        self.next().await?;
        assert_eq!(crc32c(&bulk), request.crc32c);
        Ok(pb::UpdateReply { version: 5, chunk_length: 9, ..Default::default() }.into())
    }

    async fn list_chunks(
        &self,
        _cx: Context,
        request: pb::ListChunksRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ListChunksReply>, Status> {
        self.next().await?;
        let chunk = pb::ChunkKey { inode: request.inode, index: request.from_index, snapshot: 0 };
        let chunks = vec![pb::ChunkInfo { chunk: Some(chunk), length: 1, version: 1, since: 0 }];
        Ok(pb::ListChunksReply { status: None, chunks, end: true }.into())
    }

    async fn space(
        &self,
        _cx: Context,
        _request: pb::SpaceRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SpaceReply>, Status> {
        self.next().await?;
        Ok(pb::SpaceReply { capacity_bytes: 100, used_bytes: u64::from(self.node) }.into())
    }

    async fn forward(
        &self,
        _cx: Context,
        _request: pb::ForwardRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn settle(
        &self,
        _cx: Context,
        _request: pb::SettleRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SettleReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn query_version(
        &self,
        _cx: Context,
        _request: pb::QueryVersionRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::QueryVersionReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn sync_page(
        &self,
        _cx: Context,
        _request: pb::SyncPageRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncPageReply>, Status> {
        Err(Code::Unsupported.into())
    }

    async fn sync_done(
        &self,
        _cx: Context,
        _request: pb::SyncDoneRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncDoneReply>, Status> {
        Err(Code::Unsupported.into())
    }
}

/// Nodes 1 and 2; chain c has targets c1 (head) and c2 on them.
struct Rig {
    nodes: [Arc<Scripted>; 2],
    client: Arc<ChainClient>,
    pool: Arc<BufPool>,
    stop: CancellationToken,
}

fn chain(id: u32, version: u64, serving: &[u32]) -> pb::Chain {
    let member = |node: &u32| pb::ChainMember {
        target: u64::from(id * 10 + node),
        state: pb::PublicState::Serving.into(),
        node: *node,
    };
    pb::Chain {
        id,
        version,
        members: serving.iter().map(member).collect(),
        changed_at: version,
        ..Default::default()
    }
}

impl Rig {
    async fn start(name: &str) -> Self {
        let (key, stop) = (ClusterKey::generate().unwrap(), CancellationToken::new());
        let nodes = [1, 2].map(|node| Arc::new(Scripted { node, ..Scripted::default() }));
        let routing = RoutingCache::new();
        let mut delta = pb::RoutingDelta { version: 10, ..Default::default() };
        for node in &nodes {
            let pool = BufPool::new(16 << 20);
            let config = ServerConfig::new("test", key.clone(), pool, RoutingCache::new());
            let address = format!("mem:chain-{name}-{}", node.node);
            let server = Server::bind(&address, config).await.unwrap();
            let router = Router::new().add(StorageServer::new(node.clone()));
            tokio::spawn(server.serve(router, stop.clone()));
            delta.nodes.push(pb::Node {
                id: node.node,
                role: NodeRole::Storaged.into(),
                address,
                alive: true,
                ..Default::default()
            });
        }
        delta.chains = (1..=9).map(|id| chain(id, 1, &[1, 2])).collect();
        assert!(routing.apply(delta));
        let pool = BufPool::new(16 << 20);
        let peers = Peers::new(PeersConfig {
            cluster_id: "test".into(),
            identity: Identity::Daemon(key),
            pool: pool.clone(),
            routing: routing.clone(),
            tls: None,
            rdma: None,
            zone: String::new(),
        });
        let client = ChainClient::with_session(peers, routing, 77, 0);
        Self { nodes, client, pool, stop }
    }

    fn trick(&self, node: usize, tricks: &[Trick]) {
        self.nodes[node - 1].tricks.lock().extend(tricks.iter().cloned());
    }

    fn deadline(&self) -> Instant {
        Instant::now() + LONG
    }

    async fn write(&self, chain: u32) -> Result<Updated, Status> {
        self.client.update(&write_to(chain), self.deadline()).await
    }

    async fn read(&self, chains: &[u32]) -> Result<Vec<ReadPiece>, Status> {
        let span = |chain: &u32| ReadSpan {
            chain: ChainId(*chain),
            chunk: CHUNK,
            offset: 0,
            length: 5000 + chain,
        };
        let spans: Vec<_> = chains.iter().map(span).collect();
        self.client.read(&spans, &Bytes::new(), self.deadline()).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn write_to(chain: u32) -> ChunkUpdate {
    ChunkUpdate {
        chain: ChainId(chain),
        chunk: CHUNK,
        kind: UpdateKind::Write,
        offset: 4,
        payload: SharedBuf::from(b"bytes".to_vec()),
        chunk_size: 64 << 10,
        grant: Bytes::new(),
    }
}

#[tokio::test]
async fn reads_share_calls_and_come_back_in_order() {
    let rig = Rig::start("order").await;
    let chains = [5, 1, 9, 2, 2, 7];
    let pieces = rig.read(&chains).await.unwrap();
    for (piece, chain) in pieces.iter().zip(chains) {
        assert_eq!(piece.bytes.len(), 5000 + chain as usize);
        assert!(piece.bytes.iter().all(|byte| u32::from(*byte) == chain));
        assert_eq!(piece.version, ChunkVersion(4));
    }
    let calls: u32 = rig.nodes.iter().map(|node| node.calls.load(SeqCst)).sum();
    assert!(calls <= 2, "one call per node, not {calls}");
    drop(pieces);
    assert_eq!(rig.pool.free_bytes(), rig.pool.limit_bytes(), "every buffer came back");
}

#[tokio::test]
async fn what_a_fast_server_answers_does_not_wait_for_a_slow_one() {
    let rig = Rig::start("apart").await;
    for node in [1, 2] {
        assert!(rig.client.routing.apply_chain(&chain(node, 2, &[node])));
    }
    rig.trick(2, &[Trick::Hang]);
    let spans =
        [2, 1].map(|id| ReadSpan { chain: ChainId(id), chunk: CHUNK, offset: 0, length: 5000 });
    let (send, mut came) = tokio::sync::mpsc::unbounded_channel();
    let mut take = |place: usize, piece: ReadPiece| {
        let _ = send.send((place, piece.bytes.len()));
    };
    let grant = Bytes::new();
    let reading = rig.client.read_each(&rig.pool, &spans, &grant, rig.deadline(), &mut take);
    tokio::select! {
        biased;
        outcome = reading => panic!("the slow one was waited for: {outcome:?}"),
        first = came.recv() => assert_eq!(first, Some((1, 5000))),
    }
}

#[tokio::test]
async fn a_failed_replica_is_left_aside() {
    let rig = Rig::start("aside").await;
    let down = vec![Trick::Refuse(Code::Fenced.into()); 1000];
    rig.trick(1, &down);
    for _ in 0..20 {
        rig.read(&[1, 2, 3]).await.unwrap();
    }
    let asked = rig.nodes[0].calls.load(SeqCst);
    assert!((1..=6).contains(&asked), "node 1 was asked {asked} times");
}

#[tokio::test]
async fn changed_bytes_are_read_again_and_their_server_looks_for_damage() {
    let rig = Rig::start("spoil").await;
    for node in [1, 2] {
        rig.trick(node, &[Trick::Spoil, Trick::Spoil]);
    }
    let pieces = rig.read(&[3]).await.unwrap();
    assert!(pieces[0].bytes.iter().all(|byte| *byte == 3));
    let (calls, looks) = rig.nodes.iter().fold((0, 0), |(calls, looks), node| {
        (calls + node.calls.load(SeqCst), looks + node.looks.load(SeqCst))
    });
    assert!(looks >= 1 && looks < calls, "{looks} of {calls} calls asked the server to look");
}

#[tokio::test]
async fn an_update_keeps_its_tag_until_it_is_answered() {
    let rig = Rig::start("tag").await;
    let refusals = [Code::Busy, Code::UnknownOutcome, Code::Fenced, Code::MissingUpdate];
    rig.trick(1, &refusals.map(|code| Trick::Refuse(code.into())));
    let updated = rig.write(1).await.unwrap();
    assert_eq!(updated, Updated { version: ChunkVersion(5), chunk_length: 9 });
    rig.write(1).await.unwrap();
    let tags = rig.nodes[0].tags.lock().clone();
    assert_eq!(tags.len(), 6);
    assert!(tags[..5].iter().all(|tag| *tag == tags[0]), "one tag through all attempts");
    assert_eq!((tags[0].session, tags[5].seq), (77, tags[0].seq + 1));
    assert_eq!(rig.client.totals().retries, 4);
}

#[tokio::test]
async fn a_stale_routing_refusal_teaches_the_chain() {
    let rig = Rig::start("stale").await;
    let newer = chain(4, 2, &[2]);
    rig.trick(1, &[Trick::Refuse(Status::stale_routing(Some(newer), "moved on"))]);
    rig.write(4).await.unwrap();
    assert_eq!(rig.nodes[1].tags.lock().len(), 1, "the new head took it");
    assert_eq!(rig.client.routing().get().chains[&ChainId(4)].version, 2);
}

#[tokio::test]
async fn a_head_that_hangs_is_left_when_the_routing_says_so() {
    let rig = Rig::start("hang").await;
    rig.trick(1, &[Trick::Hang]);
    let begun = Instant::now();
    let write = rig.write(6);
    let moved = async {
        while rig.nodes[0].tags.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        rig.client.routing().apply_chain(&chain(6, 2, &[2]));
    };
    let (written, ()) = tokio::join!(write, moved);
    written.unwrap();
    assert!(begun.elapsed() < UPDATE_ATTEMPT, "no time-out was waited for");
    let tags = (rig.nodes[0].tags.lock()[0], rig.nodes[1].tags.lock()[0]);
    assert_eq!(tags.0, tags.1);
}

#[tokio::test]
async fn a_chain_that_nobody_serves_is_waited_for() {
    let rig = Rig::start("nobody").await;
    rig.client.routing().apply_chain(&chain(8, 2, &[]));
    let write = rig.write(8);
    let read = rig.read(&[8]);
    let healed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(rig.nodes[0].calls.load(SeqCst) + rig.nodes[1].calls.load(SeqCst), 0);
        rig.client.routing().apply_chain(&chain(8, 3, &[2]));
    };
    let (written, pieces, ()) = tokio::join!(write, read, healed);
    written.unwrap();
    assert_eq!(pieces.unwrap().len(), 1);
}

#[tokio::test]
async fn final_answers_and_deadlines_end_it() {
    let rig = Rig::start("final").await;
    rig.trick(1, &[Trick::Refuse(Code::NoSpace.into())]);
    assert_eq!(rig.write(1).await.unwrap_err().code, Code::NoSpace);
    rig.trick(1, &vec![Trick::Refuse(Code::Busy.into()); 1000]);
    let soon = Instant::now() + Duration::from_millis(200);
    let failure = rig.client.update(&write_to(1), soon).await.unwrap_err();
    assert_eq!(failure.code, Code::Busy);
    assert!(failure.detail.contains("deadline"), "{failure}");
    let above = ChunkUpdate { offset: 64 << 10, ..write_to(1) };
    let refused = rig.client.update(&above, rig.deadline()).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument);
}

#[tokio::test]
async fn damage_without_a_replica_is_final() {
    let rig = Rig::start("alone").await;
    rig.client.routing().apply_chain(&chain(7, 2, &[1]));
    rig.trick(1, &[Trick::Refuse(Code::Corrupt.into())]);
    assert_eq!(rig.read(&[7]).await.unwrap_err().code, Code::Corrupt);
    rig.trick(1, &vec![Trick::Refuse(Code::Corrupt.into()); 3]);
    assert_eq!(rig.read(&[6]).await.unwrap().len(), 1, "its chain has another member");
}

#[tokio::test]
async fn an_abandoned_update_gives_its_channel_back() {
    let rig = Rig::start("abandon").await;
    rig.trick(1, &vec![Trick::Hang; 3]);
    for _ in 0..3 {
        let write = tokio::time::timeout(Duration::from_millis(50), rig.write(1));
        assert!(write.await.is_err());
    }
    rig.write(1).await.unwrap();
    assert_eq!(rig.client.channels.lock().in_flight(), 0);
    assert_eq!(rig.nodes[0].tags.lock().iter().map(|tag| tag.channel).max(), Some(0));
}

/// The wait for a channel is a part of the operation, so the deadline bounds it too.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_channel_ends_at_the_deadline() {
    let rig = Rig::start("channels").await;
    let all = limits::CHANNELS_MAX as usize;
    rig.trick(1, &vec![Trick::Hang; all]);
    let mut hanging = tokio::task::JoinSet::new();
    for _ in 0..all {
        let (client, deadline) = (rig.client.clone(), clock::now() + LONG);
        hanging.spawn(async move { client.update(&write_to(1), deadline).await });
    }
    while rig.client.channels.lock().in_flight() < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let soon = clock::now() + Duration::from_millis(200);
    let failure = rig.client.update(&write_to(2), soon).await.unwrap_err();
    assert_eq!(failure.code, Code::Busy);
    assert!(
        clock::now() < soon + Duration::from_millis(20),
        "it waited for somebody else's channel"
    );
}

#[tokio::test]
async fn chunks_are_listed_and_space_is_summed() {
    let rig = Rig::start("list").await;
    rig.trick(1, &[Trick::Refuse(Code::Busy.into())]);
    let listed =
        rig.client.list_chunks(ChainId(2), InodeId(7), 30, 10, Bytes::new(), rig.deadline());
    let page = listed.await.unwrap();
    assert!(page.end);
    assert_eq!(page.chunks[0].chunk, Some(pb::ChunkKey { inode: 7, index: 30, snapshot: 0 }));
    let space = rig.client.space(rig.deadline()).await.unwrap();
    assert_eq!((space.capacity_bytes, space.used_bytes), (200, 3));
    rig.trick(1, &[Trick::Refuse(Code::Busy.into())]);
    let one = rig.client.space(rig.deadline()).await.unwrap();
    assert_eq!(one.capacity_bytes, 100, "who does not answer is left out");
    assert!(rig.client.head(ChainId(99)).is_err());
    let head = rig.client.head(ChainId(2)).unwrap();
    assert_eq!(
        (head.target, rig.client.routing().get().address(NodeId(1)).unwrap()),
        (TargetId(21), &head.address[..])
    );
}
