//! The checker of the keys finds what is wrong.

use bytes::Bytes;
use ff2_meta_core::{
    Kv, KvRead, MemKv,
    namespace::{Problem, fsck},
};

use ff2_proto::pb::{self, ns_request::Op, quota_key::Of};

use crate::{ops::*, volume::Volume};

const ROOT: u64 = 1;

/// A volume with every kind of key.
pub(crate) fn eventful() -> Volume {
    let (mut v, root) = Volume::with_root();
    let lost = v.user(0, 0, &[]);
    let d = v.ask(&root, mkdir(ROOT, "d", 0o755)).unwrap().attr.unwrap().inode;
    let e = v.ask(&root, mkdir(d, "e", 0o755)).unwrap().attr.unwrap().inode;
    let f = v.ask(&root, create(e, "f", 0o644)).unwrap().attr.unwrap().inode;
    v.ask(&root, link(f, ROOT, "g")).unwrap();
    v.ask(&root, report(f, 100)).unwrap();
    v.ask(&root, symlink(d, "l", "e/f")).unwrap();
    v.ask(&lost, create(d, "lost", 0o644)).unwrap();
    v.lead(expire(&[lost.session])).unwrap();
    v.ask(&root, create(d, "gone", 0o644)).unwrap();
    v.ask(&root, unlink(d, "gone")).unwrap();
    v.ask(&root, truncate(f, 0)).unwrap();
    for of in [Of::Inode(d), Of::Uid(7)] {
        let key = Some(pb::QuotaKey { of: Some(of) });
        v.lead(Op::SetQuota(pb::SetQuotaOp { key, ..Default::default() })).unwrap();
    }
    v
}

#[test]
fn every_key_is_missed() {
    let v = eventful();
    let keys: Vec<Bytes> = v.kv.pairs().map(|(key, _)| key.clone()).collect();
    let tags: std::collections::BTreeSet<u8> = keys.iter().map(|key| key[0]).collect();
    assert_eq!(tags.len(), 17, "the volume has every kind of key");
    for key in keys {
        let mut kv = v.kv.clone();
        kv.delete(&key);
        assert_ne!(fsck(&kv), [], "without {key:?}");
    }
}

#[test]
fn every_key_too_many_is_found() {
    let v = eventful();
    let pairs: Vec<(Bytes, Bytes)> =
        v.kv.pairs().map(|(key, value)| (key.clone(), value.clone())).collect();
    // A count passes over a folder that is gone.
    for (key, value) in pairs.into_iter().filter(|(key, _)| key.len() > 1 && key[0] != b'x') {
        // The same value under a number near by.
        let mut near = key.to_vec();
        *near.last_mut().unwrap() ^= 0x40;
        let mut kv = v.kv.clone();
        kv.put(&near, value);
        assert_ne!(fsck(&kv), [], "with {near:?}");
    }
}

#[test]
fn strange_keys_and_values_are_found() {
    for key in [&b"A"[..], b"I\x01", b"Z", b"~~", b"C\0\0\0\0\0\0\0\x01short"] {
        let mut v = eventful();
        v.kv.put(key, Bytes::from_static(b"x"));
        assert_ne!(fsck(&v.kv), [], "{key:?}");
    }
    let mut v = eventful();
    let inode = v.kv.scan(b"I", b"J", 9).last().unwrap().0.clone();
    v.kv.put(&inode, Bytes::from_static(b"\xff\xff"));
    let found = fsck(&v.kv);
    assert!(found.contains(&Problem::Unreadable { key: inode }), "{found:?}");
    assert_eq!(fsck(&MemKv::new()), [Problem::NotFormatted]);
    assert!(!Problem::NotFormatted.to_string().is_empty());
}
