//! Rows as they were, kept for snapshots (docs/design/0011).
//!
//! Before a command changes a row that snapshots show, the newest one has it preserved, once: its value, or
//! that there was none. A snapshot is then read from the rows preserved for it or for a later one, the
//! earliest of which counts, and else from the rows as they are. Making one costs nothing, and so does a
//! change that the newest has preserved already.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use ff2_proto::pb;
use prost::Message;

use super::{
    inode::Inode,
    keys::{self, PRESERVED_PREFIX, Tag},
    limits,
};
use crate::kv::{Kv, KvRead};

/// What a snapshot shows: names, attributes, extended attributes and the bytes of small files.
const SHOWN: [Tag; 5] = [Tag::Inode, Tag::Xattr, Tag::Dentry, Tag::Cookie, Tag::Inline];

fn is_shown(key: &[u8]) -> bool {
    key.first().is_some_and(|tag| SHOWN.iter().any(|shown| *shown as u8 == *tag))
}

/// Before these keys are changed. `newest` is the newest snapshot; 0: there is none.
pub(super) fn preserve<'a>(kv: &mut dyn Kv, newest: u32, changed: impl Iterator<Item = &'a Bytes>) {
    if newest == 0 {
        return;
    }
    for key in changed.filter(|key| is_shown(key)) {
        let place = keys::preserved(newest, key);
        if kv.get(&place).is_none() {
            let value = encode(kv.get(key).as_ref());
            kv.put(&place, value);
        }
    }
}

/// Empty: there was no such row.
fn encode(value: Option<&Bytes>) -> Bytes {
    let Some(value) = value else { return Bytes::new() };
    let mut row = BytesMut::with_capacity(1 + value.len());
    row.put_u8(1);
    row.extend_from_slice(value);
    row.freeze()
}

fn decode(row: &Bytes) -> Option<Bytes> {
    (!row.is_empty()).then(|| row.slice(1..))
}

/// Gives some of a snapshot's rows to the one before it (`None`: there is none), which has what it
/// preserved itself. True: none are left.
pub(super) fn pass_on(kv: &mut dyn Kv, from: u32, to: Option<u32>) -> bool {
    let prefix = keys::preserved(from, b"");
    let rows = kv.scan(&prefix, &keys::end_of(&prefix), limits::PASS_ON_MAX);
    let is_last = rows.len() < limits::PASS_ON_MAX;
    for (place, row) in rows {
        if let Some(to) = to {
            let older = keys::preserved(to, &place[PRESERVED_PREFIX..]);
            if kv.get(&older).is_none() {
                kv.put(&older, row);
            }
        }
        kv.delete(&place);
    }
    is_last
}

/// The volume as a snapshot shows it. What it does not show is as it is.
pub(super) struct Past<'a> {
    kv: &'a dyn KvRead,
    /// It, and those after it.
    ids: Vec<u32>,
}

impl<'a> Past<'a> {
    /// `ids` of the snapshots with preserved rows, from the one that is looked at on, in their order.
    pub(super) fn new(kv: &'a dyn KvRead, ids: Vec<u32>) -> Self {
        debug_assert!(ids.is_sorted());
        Self { kv, ids }
    }

    fn preserved(&self, key: &[u8]) -> Option<Bytes> {
        self.ids.iter().find_map(|id| self.kv.get(&keys::preserved(*id, key)))
    }
}

impl KvRead for Past<'_> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        if *key == keys::VOLUME {
            return self.kv.get(key).map(without_trash);
        }
        if !is_shown(key) {
            return self.kv.get(key);
        }
        let value = match self.preserved(key) {
            Some(row) => decode(&row),
            None => self.kv.get(key),
        };
        value.map(|value| settled(key, value))
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<(Bytes, Bytes)> {
        if !is_shown(from) {
            return self.kv.scan(from, to, limit);
        }
        let mut found = Vec::new();
        let mut from = from.to_vec();
        while found.len() < limit {
            // The first source that has a row says what it is. Behind the end of a full page one may have more.
            let mut merged: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
            let mut known_to: Option<Bytes> = None;
            let mut take = |rows: Vec<(Bytes, Option<Bytes>)>| {
                if rows.len() == limit {
                    let last = rows[limit - 1].0.clone();
                    known_to = Some(known_to.take().map_or(last.clone(), |known| known.min(last)));
                }
                for (key, value) in rows {
                    merged.entry(key).or_insert(value);
                }
            };
            for id in &self.ids {
                let (from, to) = (keys::preserved(*id, &from), keys::preserved(*id, to));
                let rows = self.kv.scan(&from, &to, limit).into_iter();
                take(
                    rows.map(|(key, row)| (key.slice(PRESERVED_PREFIX..), decode(&row))).collect(),
                );
            }
            let rows = self.kv.scan(&from, to, limit).into_iter();
            take(rows.map(|(key, value)| (key, Some(value))).collect());
            let is_known = |key: &Bytes| known_to.as_ref().is_none_or(|known| key <= known);
            let shown = merged.into_iter().filter(|(key, _)| is_known(key));
            found.extend(shown.filter_map(|(key, value)| {
                let value = settled(&key, value?);
                Some((key, value))
            }));
            let Some(known) = known_to else { break };
            from = known.to_vec();
            from.push(0);
        }
        found.truncate(limit);
        found
    }
}

/// A file that was being cut has the size that it was cut to: what lies above is not shown.
fn settled(key: &[u8], value: Bytes) -> Bytes {
    if key.first() != Some(&(Tag::Inode as u8)) {
        return value;
    }
    match Inode::decode(&value) {
        Ok(inode) if inode.truncating_to.is_some() => {
            Inode { truncating_to: None, ..inode }.encode()
        }
        Ok(_) | Err(_) => value,
    }
}

/// The trash is of now: a snapshot has none.
fn without_trash(volume: Bytes) -> Bytes {
    match pb::VolumeRecord::decode(&volume[..]) {
        Ok(record) => {
            let record = pb::VolumeRecord { trash_keep_s: 0, trash_entries: 0, ..record };
            Bytes::from(record.encode_to_vec())
        }
        Err(_) => volume,
    }
}

/// The snapshots whose rows are there, from one on.
pub(super) fn ids_from(snapshots: &[pb::SnapshotRecord], from: u32) -> Vec<u32> {
    use pb::SnapshotState as S;
    let has_rows = |record: &&pb::SnapshotRecord| matches!(record.state(), S::Ready | S::Removing);
    let ids = snapshots.iter().filter(has_rows).map(|record| record.id);
    ids.filter(|id| *id >= from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::MemKv;

    fn key(n: u64) -> Bytes {
        Bytes::copy_from_slice(&keys::one(Tag::Inline, n))
    }

    fn value(n: u64) -> Bytes {
        Bytes::copy_from_slice(&n.to_be_bytes())
    }

    /// A volume's rows, changed and cut at random, beside copies of what they were.
    #[test]
    fn every_snapshot_shows_what_there_was_also_when_others_go() {
        for seed in 1..40_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut kv = MemKv::new();
            let mut were: BTreeMap<u32, MemKv> = BTreeMap::new();
            let mut live = MemKv::new();
            for step in 1..400_u32 {
                let newest = were.keys().next_back().copied().unwrap_or(0);
                match next(20) {
                    0 => drop(were.insert(step, live.clone())),
                    1 if !were.is_empty() => {
                        let places: Vec<u32> = were.keys().copied().collect();
                        let gone = places[next(places.len() as u64) as usize];
                        let older = places.iter().copied().filter(|id| *id < gone).max();
                        assert!(pass_on(&mut kv, gone, older));
                        were.remove(&gone);
                    }
                    what => {
                        let key = key(next(30));
                        preserve(&mut kv, newest, [&key].into_iter());
                        for kv in [&mut kv, &mut live] {
                            if what < 7 {
                                kv.delete(&key);
                            } else {
                                kv.put(&key, value(step.into()));
                            }
                        }
                    }
                }
                let ids: Vec<u32> = were.keys().copied().collect();
                for (id, was) in &were {
                    let past = Past::new(&kv, ids.iter().copied().filter(|i| i >= id).collect());
                    let n = next(30);
                    assert_eq!(past.get(&key(n)), was.get(&key(n)), "seed {seed} step {step}");
                    let (from, to, limit) = (key(next(30)), key(next(31)), next(12) as usize + 1);
                    let found = past.scan(&from, &to, limit);
                    assert_eq!(found, was.scan(&from, &to, limit), "seed {seed} step {step}");
                }
            }
            for id in were.keys().rev() {
                assert!(pass_on(&mut kv, *id, None));
            }
            assert_eq!(kv.hash(), live.hash(), "nothing is left of snapshots that are gone");
        }
    }

    #[test]
    fn what_costs_space_is_changed_for_the_first_time() {
        let mut kv = MemKv::new();
        kv.put(&key(1), value(1));
        preserve(&mut kv, 0, [&key(1)].into_iter());
        assert_eq!(kv.len(), 1, "there is no snapshot");
        let other = Bytes::copy_from_slice(&keys::one(Tag::Session, 1));
        preserve(&mut kv, 7, [&key(1), &other].into_iter());
        preserve(&mut kv, 7, [&key(1)].into_iter());
        assert_eq!(kv.len(), 2, "once, and no sessions");
    }
}
