//! Bytes that should be a message: of a peer, a client, a log, a snapshot or a store. Whatever they are,
//! they are refused or become a message that survives being encoded again.

use ff2_fuzz::{bounded, target};
use ff2_proto::{
    ChainId, InodeId, Routing, Status,
    layout::{split, stripe_chains},
    limits,
    pb::{self, cluster_command::Fact, ns_request::Op},
    routing::{ChainExt, TableExt},
    status,
};
use prost::Message;

/// Decodes as each of these types.
macro_rules! survive {
    ($bytes:expr; $($kind:ident)*) => {
        $(
            if let Ok(message) = bounded($bytes, || pb::$kind::decode($bytes)) {
                let again = pb::$kind::decode(message.encode_to_vec().as_slice());
                assert_eq!(again.as_ref(), Ok(&message), stringify!($kind));
            }
        )*
    };
}

fn attr() -> pb::Attr {
    let layout = pb::Layout { table: 1, table_version: 2, chunk_size: 1 << 20, stripe: 4, seed: 9 };
    pb::Attr { inode: 5, mode: 0o644, nlink: 1, layout: Some(layout), ..Default::default() }
}

fn seeds() -> Vec<Vec<u8>> {
    let status = pb::Status::from(Status::new(pb::Code::Busy, "wait"));
    let tag = pb::UpdateTag { session: 1, channel: 2, seq: 3, ack_below: 2 };
    let update = pb::UpdateRequest {
        chunk: Some(pb::ChunkKey { inode: 7, index: 1, snapshot: 0 }),
        length: 5,
        tag: Some(tag),
        ..Default::default()
    };
    let rename = pb::RenameOp {
        parent: 1,
        name: "a".into(),
        new_parent: 2,
        new_name: "b".into(),
        ..Default::default()
    };
    let request = pb::NsRequest {
        volume: 1,
        session: 3,
        cred: Some(pb::Credentials { uid: 5, gid: 6, groups: vec![7, 8] }),
        op: Some(Op::Rename(rename)),
        ..Default::default()
    };
    let entry = pb::Entry { name: "n".into(), cookie: 4, attr: Some(attr()) };
    let reply = pb::NsReply {
        status: Some(status.clone()),
        attr: Some(attr()),
        entries: vec![entry; 3],
        ..Default::default()
    };
    let member = pb::Member { raft_id: 4, node: 2, address: "h:1".into(), incarnation: 7 };
    let batch =
        pb::RaftBatch { group: 1, messages: vec!["abc".into(); 3], from: Some(member.clone()) };
    let pair = pb::KeyValue { key: "k".into(), value: "v".into() };
    let page = pb::FetchSnapshotReply { pairs: vec![pair; 4], end: true, ..Default::default() };
    let manifest =
        pb::SnapshotManifest { index: 9, members: vec![member; 3], ..Default::default() };
    let applied = pb::AppliedTag { tag: Some(tag), version: 8 };
    let forward = pb::ForwardRequest {
        update: Some(update.clone()),
        version: 8,
        tags: vec![applied],
        ..Default::default()
    };
    let join = pb::JoinRequest {
        address: "h:2".into(),
        disks: vec![pb::Disk::default()],
        ..Default::default()
    };
    let fact = Fact::NodesChanged(pb::NodesChanged { dead: vec![1, 2], alive: vec![3] });
    let command = pb::ClusterCommand { now_ms: 5, fact: Some(fact), level: 1 };
    let inode =
        pb::InodeRecord { attr: Some(attr()), symlink_target: "t".into(), ..Default::default() };
    vec![
        update.encode_to_vec(),
        pb::NsCommand { request: Some(request.clone()), ..Default::default() }.encode_to_vec(),
        request.encode_to_vec(),
        reply.encode_to_vec(),
        batch.encode_to_vec(),
        page.encode_to_vec(),
        manifest.encode_to_vec(),
        forward.encode_to_vec(),
        join.encode_to_vec(),
        command.encode_to_vec(),
        inode.encode_to_vec(),
        status.encode_to_vec(),
        delta().encode_to_vec(),
    ]
}

#[test]
fn damaged_messages() {
    target!(4_000, seeds(), |bytes| {
        survive!(bytes; NsRequest NsCommand NsReply RaftBatch FetchSnapshotRequest FetchSnapshotReply
            SnapshotManifest JoinGroupRequest JoinGroupReply JoinRequest JoinReply HeartbeatRequest
            HeartbeatReply WatchRoutingRequest RoutingDelta LeadersReply ClusterCommand ClusterReply);
        survive!(bytes; ReadRequest ReadReply UpdateRequest UpdateReply ForwardRequest SettleRequest
            ListChunksRequest ListChunksReply QueryVersionRequest QueryVersionReply SyncPageRequest
            SyncPageReply SyncDoneRequest SpaceReply UserClaims Grant Status Credentials);
        survive!(bytes; ClusterRecord ChunkRecord PieceRecord PendingRecord TargetRecord InodeRecord
            LockTableRecord DentryRecord WriteSessionRecord VolumeRecord SessionRecord SessionUseRecord
            LengthDoubtRecord OrphanRecord User Node Target Chain ChainTable Volume);
        // Codes of a later release are errors, not successes.
        if let Ok(sent) = pb::Status::decode(bytes) {
            assert_eq!(status::check(Some(sent.clone())).is_ok(), sent.code == 0);
        }
    });
}

fn delta() -> pb::RoutingDelta {
    let serving =
        |target| pb::ChainMember { target, state: pb::PublicState::Serving.into(), node: 1 };
    let chain = pb::Chain {
        id: 1,
        version: 3,
        members: vec![serving(1), serving(2)],
        changed_at: 2,
        ..Default::default()
    };
    let table = pb::ChainTable {
        id: 3,
        version: 2,
        chains: vec![1; 8],
        sizes: vec![6, 8],
        ..Default::default()
    };
    pb::RoutingDelta {
        version: 5,
        cluster_id: "c".into(),
        nodes: vec![pb::Node { id: 1, address: "h:1".into(), ..Default::default() }],
        targets: vec![pb::Target { id: 1, node: 1, ..Default::default() }],
        chains: vec![chain],
        tables: vec![table],
        ..Default::default()
    }
}

#[test]
fn damaged_routing() {
    let newer = pb::RoutingDelta { since: 5, version: 6, ..delta() };
    target!(vec![delta().encode_to_vec(), newer.encode_to_vec()], |bytes| {
        let Ok(change) = pb::RoutingDelta::decode(bytes) else { return };
        let mut routing = Routing::default();
        assert!(routing.apply(delta()));
        let before = routing.clone();
        let taken = bounded(bytes, || routing.apply(change.clone()));
        assert_eq!(taken, routing.version.0 == change.version && change.version > 5);
        assert!(taken || routing == before, "a delta that is refused changes nothing");
        for chain in routing.chains.values() {
            assert!(chain.head().is_none() || chain.tail().is_some());
            for member in &chain.members {
                let next = chain.successor(member.target.into());
                assert!(
                    next.is_none_or(|next| next.target != member.target || chain.members.len() > 1)
                );
            }
        }
        for table in routing.tables.values() {
            for version in [0, 1, table.version, u32::MAX] {
                let chains = table.chains_at(version).map_or(0, <[u32]>::len);
                assert!(chains <= table.chains.len());
            }
        }
    });
}

fn layouts() -> Vec<Vec<u8>> {
    let layout = pb::Layout { table: 1, table_version: 2, chunk_size: 1 << 20, stripe: 4, seed: 9 };
    let small = pb::Layout { chunk_size: 64 << 10, stripe: u32::MAX, ..layout };
    [layout, small].map(|layout| layout.encode_to_vec()).to_vec()
}

/// The rest of the input says which range of the file; a client refuses other chunk sizes before.
#[test]
fn damaged_layouts() {
    target!(layouts(), |bytes| {
        let Ok(layout) = bounded(bytes, || pb::Layout::decode(bytes)) else { return };
        let all: Vec<ChainId> = (1..=6).map(ChainId).collect();
        let chains = stripe_chains(&all, layout.stripe, layout.seed);
        assert!((1..=6).contains(&chains.len()));
        assert!(chains.iter().all(|chain| all.contains(chain)));
        if !layout.chunk_size.is_power_of_two() || layout.chunk_size < 4096 {
            return;
        }
        let offset = layout.seed % limits::FILE_SIZE_MAX;
        let length = u64::from(layout.table_version) % (16 << 20);
        let spans = split(InodeId(9), &layout, chains.len(), offset, length);
        let covered: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
        assert_eq!(covered, length.min(limits::FILE_SIZE_MAX - offset));
        for span in spans {
            assert!(span.stripe_place < chains.len());
            assert!(u64::from(span.offset) + u64::from(span.length) <= layout.chunk_size.into());
        }
    });
}
