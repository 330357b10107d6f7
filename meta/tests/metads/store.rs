//! A storage node that keeps chunks in memory and serves alone: enough for what metad asks of one.

use std::{collections::BTreeMap, sync::Arc};

use ff2_fabric::{
    Answer, Buf, BufPool, Context, Identity, Router, RoutingCache, Server, ServerConfig, Storage,
    StorageServer,
    membership::{Membership, MembershipConfig, Report},
};
use ff2_proto::{ChainId, Code, Status, pb};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::world::{CLUSTER, World};

type Chunks = Arc<Mutex<BTreeMap<(u64, u32), u32>>>;

pub(crate) struct Store {
    /// Lengths by inode and chunk number.
    pub(crate) chunks: Chunks,
    membership: Option<Membership>,
    stop: CancellationToken,
}

impl Store {
    pub(crate) async fn start(world: &World) -> Self {
        let chunks = Chunks::default();
        let (peers, routing) = world.peers(Identity::Daemon(world.key.clone()));
        let config = ServerConfig::new(
            CLUSTER.to_owned(),
            world.key.clone(),
            BufPool::new(16 << 20),
            routing.clone(),
        );
        let server = Server::bind("127.0.0.1:0", config).await.unwrap();
        let address = server.local_addr().to_string();
        let stop = CancellationToken::new();
        let service = StorageServer::new(Arc::new(Service { chunks: chunks.clone() }));
        tokio::spawn(server.serve(Router::new().add(service), stop.clone()));
        let disk = pb::Disk {
            uuid: vec![9; 16].into(),
            path: "/memory".into(),
            capacity_bytes: 1 << 30,
            ..Default::default()
        };
        let request = pb::JoinRequest {
            role: pb::NodeRole::Storaged.into(),
            address,
            hostname: "memory".into(),
            disks: vec![disk.clone()],
            ..Default::default()
        };
        let config = MembershipConfig { metads: world.addresses(), request };
        let known = routing.clone();
        let report = move || Report {
            targets: reports(&known),
            disks: vec![disk.clone()],
            ..Report::default()
        };
        let membership = Membership::join(config, peers, routing, report).await.unwrap();
        Self { chunks, membership: Some(membership), stop }
    }

    pub(crate) fn node_id(&self) -> u32 {
        self.membership.as_ref().unwrap().node_id().0
    }

    /// A clean stop.
    pub(crate) async fn leave(&mut self) {
        self.membership.take().unwrap().leave().await;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Every target of this routing is here, and empty at first. (There is one storage node.)
fn reports(routing: &RoutingCache) -> Vec<pb::TargetReport> {
    let routing = routing.get();
    let report = |target: &pb::Target| pb::TargetReport {
        target: target.id,
        local_state: pb::LocalState::Online.into(),
        generation: 77,
        chain_version: routing.chains.get(&ChainId(target.chain)).map_or(0, |chain| chain.version),
        ..Default::default()
    };
    routing.targets.values().map(report).collect()
}

struct Service {
    chunks: Chunks,
}

fn unused<T>() -> Result<Answer<T>, Status> {
    Err(Status::new(Code::Unsupported, "metad does not ask this"))
}

impl Storage for Service {
    async fn read(
        &self,
        _cx: Context,
        _request: pb::ReadRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ReadReply>, Status> {
        unused()
    }

    async fn update(
        &self,
        _cx: Context,
        request: pb::UpdateRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        let key = request.chunk.unwrap();
        let key = (key.inode, key.index);
        let mut chunks = self.chunks.lock();
        match request.kind() {
            pb::UpdateKind::Truncate => drop(chunks.insert(key, request.offset)),
            pb::UpdateKind::Remove => drop(chunks.remove(&key)),
            _ => return unused(),
        }
        Ok(pb::UpdateReply { version: 1, ..Default::default() }.into())
    }

    async fn forward(
        &self,
        _cx: Context,
        _request: pb::ForwardRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::UpdateReply>, Status> {
        unused()
    }

    async fn list_chunks(
        &self,
        _cx: Context,
        request: pb::ListChunksRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::ListChunksReply>, Status> {
        let chunks = self.chunks.lock();
        let last = if request.every_inode { u64::MAX } else { request.inode };
        let range = chunks.range((request.inode, request.from_index)..=(last, u32::MAX));
        // Chunks of both chains are in one map; those of the other one are passed over twice, which
        // a cut and a length must bear anyway.
        let chunks = range.map(|(&(inode, index), &length)| pb::ChunkInfo {
            chunk: Some(pb::ChunkKey { inode, index, snapshot: 0 }),
            length,
            version: 1,
            since: 0,
        });
        Ok(pb::ListChunksReply { chunks: chunks.collect(), end: true, status: None }.into())
    }

    async fn settle(
        &self,
        _cx: Context,
        _request: pb::SettleRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SettleReply>, Status> {
        unused()
    }

    async fn query_version(
        &self,
        _cx: Context,
        _request: pb::QueryVersionRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::QueryVersionReply>, Status> {
        unused()
    }

    async fn sync_page(
        &self,
        _cx: Context,
        _request: pb::SyncPageRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncPageReply>, Status> {
        unused()
    }

    async fn sync_done(
        &self,
        _cx: Context,
        _request: pb::SyncDoneRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SyncDoneReply>, Status> {
        unused()
    }

    async fn space(
        &self,
        _cx: Context,
        _request: pb::SpaceRequest,
        _bulk: Buf,
    ) -> Result<Answer<pb::SpaceReply>, Status> {
        Ok(pb::SpaceReply { capacity_bytes: 1 << 30, used_bytes: 1 << 20 }.into())
    }
}
