//! Keys of the cluster machine and what lies under them.
//!
//! One letter, then the id in big endian, so that a scan of a letter gives objects in order of id.

use bytes::Bytes;
use ff2_proto::{
    ChainId, NodeId, Routing, RoutingVersion, Status, TableId, TargetId, VolumeId, level_of, pb,
};
use prost::Message;

use super::{limits, restore::readable};
use crate::kv::{Kv, KvRead};

pub(super) const RECORD: &[u8] = b"r";
const NODE: u8 = b'n';
const TARGET: u8 = b't';
const CHAIN: u8 = b'c';
const TABLE: u8 = b'l';
const VOLUME: u8 = b'v';
const USER: u8 = b'u';

/// Pairs read in one scan while the machine is loaded.
const SCAN_PAGE: usize = 4_096;

/// How the cluster was bootstrapped; `None` before it is.
pub fn bootstrap(kv: &dyn KvRead) -> Option<pb::Bootstrap> {
    pb::ClusterRecord::decode(kv.get(RECORD)?).ok()?.bootstrap
}

/// Every user, by uid.
pub fn users(kv: &dyn KvRead) -> Vec<pb::User> {
    let mut users = Vec::new();
    all(kv, USER, |user: pb::User| users.push(user));
    users
}

pub fn user(kv: &dyn KvRead, uid: u32) -> Option<pb::User> {
    kv.get(&user_key(uid)).map(decode)
}

pub(super) fn load(kv: &dyn KvRead) -> (Routing, pb::ClusterRecord) {
    let record: pb::ClusterRecord = kv.get(RECORD).map(decode).unwrap_or_default();
    let mut routing = Routing {
        version: RoutingVersion(record.routing_version),
        cluster_id: record.bootstrap.as_ref().map(|b| b.cluster_id.clone()).unwrap_or_default(),
        revoked_tokens: record.revoked_tokens.clone(),
        scrub_round: record.scrub_round,
        rebalancing: record.rebalancing,
        level: level_of(record.level),
        restored: record.restored,
        ..Routing::default()
    };
    all(kv, NODE, |n: pb::Node| drop(routing.nodes.insert(NodeId(n.id), n)));
    all(kv, TARGET, |t: pb::Target| drop(routing.targets.insert(TargetId(t.id), t)));
    all(kv, CHAIN, |c: pb::Chain| drop(routing.chains.insert(ChainId(c.id), c)));
    all(kv, TABLE, |t: pb::ChainTable| drop(routing.tables.insert(TableId(t.id), t)));
    all(kv, VOLUME, |v: pb::Volume| drop(routing.volumes.insert(VolumeId(v.id), v)));
    (routing, record)
}

/// Whether all values can be read, before [`load`] takes that for granted: of a backup.
pub(super) fn check(kv: &dyn KvRead) -> Result<(), Status> {
    let mut from = Vec::new();
    loop {
        let page = kv.scan(&from, &[u8::MAX], SCAN_PAGE);
        for (key, value) in &page {
            match key.first() {
                Some(b'r') => readable::<pb::ClusterRecord>(key, value)?,
                Some(&NODE) => readable::<pb::Node>(key, value)?,
                Some(&TARGET) => readable::<pb::Target>(key, value)?,
                Some(&CHAIN) => readable::<pb::Chain>(key, value)?,
                Some(&TABLE) => readable::<pb::ChainTable>(key, value)?,
                Some(&VOLUME) => readable::<pb::Volume>(key, value)?,
                Some(&USER) => readable::<pb::User>(key, value)?,
                Some(_) | None => {}
            }
        }
        let Some((last, _)) = page.last().filter(|_| page.len() == SCAN_PAGE) else {
            return Ok(());
        };
        from = last.to_vec();
        from.push(0);
    }
}

pub(super) fn put_record(kv: &mut dyn Kv, record: &pb::ClusterRecord) {
    kv.put(RECORD, encode(record));
}

pub(super) fn put_node(kv: &mut dyn Kv, node: &pb::Node) {
    kv.put(&key(NODE, u64::from(node.id)), encode(node));
}

pub(super) fn put_target(kv: &mut dyn Kv, target: &pb::Target) {
    kv.put(&key(TARGET, target.id), encode(target));
}

pub(super) fn put_chain(kv: &mut dyn Kv, chain: &pb::Chain) {
    kv.put(&key(CHAIN, u64::from(chain.id)), encode(chain));
}

pub(super) fn put_table(kv: &mut dyn Kv, table: &pb::ChainTable) {
    kv.put(&key(TABLE, u64::from(table.id)), encode(table));
}

pub(super) fn put_volume(kv: &mut dyn Kv, volume: &pb::Volume) {
    kv.put(&key(VOLUME, u64::from(volume.id)), encode(volume));
}

pub(super) fn put_user(kv: &mut dyn Kv, user: &pb::User) {
    kv.put(&user_key(user.uid), encode(user));
}

/// Whether there are at least as many users as the bound allows.
pub(super) fn users_are_full(kv: &dyn KvRead) -> bool {
    kv.scan(&[USER], &[USER + 1], limits::USERS_MAX).len() >= limits::USERS_MAX
}

fn user_key(uid: u32) -> Vec<u8> {
    key(USER, u64::from(uid))
}

fn key(letter: u8, id: u64) -> Vec<u8> {
    let mut key = vec![letter];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Values are ours alone and guarded by the store's checksums: one that cannot be read means that
/// the state is not what was replicated, and going on would spread it.
fn decode<M: Message + Default>(value: Bytes) -> M {
    M::decode(value).expect("the machine wrote this value itself")
}

fn all<M: Message + Default>(kv: &dyn KvRead, letter: u8, mut each: impl FnMut(M)) {
    let mut from = vec![letter];
    loop {
        let page = kv.scan(&from, &[letter + 1], SCAN_PAGE);
        let last = page.len() < SCAN_PAGE;
        if let Some((key, _)) = page.last() {
            from = key.to_vec();
            from.push(0);
        }
        page.into_iter().for_each(|(_, value)| each(decode(value)));
        if last {
            return;
        }
    }
}
