//! Who may touch a chunk: daemons always, clients with metad's grant for the chunk's inode.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use ff2_fabric::{ClusterKey, Context, Peer, RoutingCache, check_rules};
use ff2_proto::{ChunkId, Code, InodeId, Status, pb};
use parking_lot::Mutex;

use crate::limits;

/// Checks grants; those that were genuine lately are not computed again.
#[derive(Debug)]
pub(crate) struct Grants {
    key: ClusterKey,
    routing: Arc<RoutingCache>,
    genuine: Mutex<HashMap<Bytes, pb::Grant>>,
}

/// What a call wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// As a snapshot shows it; 0: as it is.
    Read {
        snapshot: u32,
    },
    Write,
    /// Either right will do: lengths are no secret to who may read, and a writer needs them.
    Length,
}

impl Grants {
    pub(crate) fn new(key: ClusterKey, routing: Arc<RoutingCache>) -> Self {
        Self { key, routing, genuine: Mutex::default() }
    }

    pub(crate) fn check(
        &self,
        cx: &Context,
        grant: &Bytes,
        inode: InodeId,
        want: Want,
    ) -> Result<(), Status> {
        match cx.peer {
            Peer::Daemon => Ok(()),
            Peer::User(_) => {
                let now_s =
                    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |t| t.as_secs());
                let grant = self.genuine(grant, now_s)?;
                check_rules(&grant, &self.routing.get())?;
                allows(&grant, inode, want)
            }
        }
    }

    /// As [`Self::check`] for a read, which may be of a snapshot: that must be there, as nothing is kept for
    /// one that is removed.
    pub(crate) fn check_read(
        &self,
        cx: &Context,
        grant: &Bytes,
        chunk: ChunkId,
    ) -> Result<(), Status> {
        if chunk.snapshot != 0 {
            let routing = self.routing.get();
            let mut volumes = routing.volumes.values();
            if !volumes.any(|volume| volume.snapshots.contains(&chunk.snapshot)) {
                return Err(Status::new(Code::StaleInode, "there is no such snapshot"));
            }
        }
        let want = Want::Read { snapshot: chunk.snapshot };
        self.check(cx, grant, chunk.inode, want)
    }

    fn genuine(&self, grant: &Bytes, now_s: u64) -> Result<pb::Grant, Status> {
        let known = self.genuine.lock().get(grant).cloned();
        if let Some(known) = known.filter(|known| known.expires_s == 0 || known.expires_s > now_s) {
            return Ok(known);
        }
        let checked = self.key.check_grant(grant, now_s)?;
        let mut genuine = self.genuine.lock();
        if genuine.len() >= limits::GRANTS {
            genuine.clear();
        }
        // Its own memory: the call's may be a large frame.
        genuine.insert(Bytes::copy_from_slice(grant), checked.clone());
        Ok(checked)
    }
}

fn allows(grant: &pb::Grant, inode: InodeId, want: Want) -> Result<(), Status> {
    let is_allowed = match want {
        Want::Read { snapshot } => grant.read && grant.snapshot == snapshot,
        Want::Write => grant.write && grant.snapshot == 0,
        Want::Length => (grant.read || grant.write) && grant.snapshot == 0,
    };
    if grant.inode == inode.0 && is_allowed {
        return Ok(());
    }
    let detail = format!("the grant is for inode {}, not to {want:?} inode {inode}", grant.inode);
    Err(Status::new(Code::Forbidden, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Context {
        Context {
            peer: Peer::User(Default::default()),
            from: None,
            deadline: std::time::Instant::now(),
            routing_version: 0,
        }
    }

    #[test]
    fn a_grant_opens_one_inode_for_what_it_says() {
        let key = ClusterKey::generate().unwrap();
        let grants = Grants::new(key.clone(), RoutingCache::new());
        let grant = |read, write, expires_s| {
            key.grant(pb::Grant { inode: 7, read, write, expires_s, ..Default::default() })
        };
        let check = |grant: &Bytes, inode, want| {
            let twice = [(); 2].map(|()| grants.check(&user(), grant, InodeId(inode), want));
            assert_eq!(twice[0], twice[1], "the memory of genuine grants changes nothing");
            twice[0].clone().map_err(|status| status.code)
        };
        assert_eq!(check(&grant(true, false, 0), 7, Want::Read { snapshot: 0 }), Ok(()));
        assert_eq!(check(&grant(true, false, 0), 7, Want::Length), Ok(()));
        assert_eq!(check(&grant(true, false, 0), 7, Want::Write), Err(Code::Forbidden));
        assert_eq!(
            check(&grant(true, true, 0), 8, Want::Read { snapshot: 0 }),
            Err(Code::Forbidden)
        );
        assert_eq!(
            check(&grant(true, true, 1), 7, Want::Read { snapshot: 0 }),
            Err(Code::GrantExpired)
        );
        assert_eq!(check(&Bytes::new(), 7, Want::Read { snapshot: 0 }), Err(Code::Forbidden));
        let other = ClusterKey::generate().unwrap();
        let forged = other.grant(pb::Grant { inode: 7, read: true, ..Default::default() });
        assert_eq!(check(&forged, 7, Want::Read { snapshot: 0 }), Err(Code::Forbidden));
        let daemon = Context { peer: Peer::Daemon, ..user() };
        assert_eq!(grants.check(&daemon, &Bytes::new(), InodeId(7), Want::Write), Ok(()));
    }

    #[test]
    fn grants_from_before_the_volumes_rules_are_void() {
        let key = ClusterKey::generate().unwrap();
        let routing = RoutingCache::new();
        let grants = Grants::new(key.clone(), routing.clone());
        let grant = |ruled_at| {
            key.grant(pb::Grant { inode: 7, read: true, volume: 1, ruled_at, ..Default::default() })
        };
        let check = |ruled_at| {
            let checked =
                grants.check(&user(), &grant(ruled_at), InodeId(7), Want::Read { snapshot: 0 });
            checked.map_err(|status| status.code)
        };
        assert_eq!(check(0), Ok(()));
        let volume = pb::Volume { id: 1, ruled_at: 5, ..Default::default() };
        let volumes = vec![volume];
        assert!(routing.apply(pb::RoutingDelta { version: 5, volumes, ..Default::default() }));
        assert_eq!(check(0), Err(Code::GrantExpired), "although it was genuine lately");
        assert_eq!(check(5), Ok(()));
    }

    #[test]
    fn a_grant_is_for_one_snapshot_or_for_now() {
        let key = ClusterKey::generate().unwrap();
        let routing = RoutingCache::new();
        let grants = Grants::new(key.clone(), routing.clone());
        let volume = pb::Volume { id: 1, snapshots: vec![4, 5], ..Default::default() };
        let volumes = vec![volume];
        assert!(routing.apply(pb::RoutingDelta { version: 5, volumes, ..Default::default() }));
        let chunk = ChunkId::new(InodeId(7), 0);
        let check = |granted, asked: u32| {
            let grant = pb::Grant { inode: 7, read: true, snapshot: granted, ..Default::default() };
            let checked = grants.check_read(&user(), &key.grant(grant), chunk.at(asked));
            checked.map_err(|status| status.code)
        };
        assert_eq!((check(0, 0), check(4, 4)), (Ok(()), Ok(())));
        for (granted, asked) in [(0, 4), (4, 0), (4, 5)] {
            assert_eq!(check(granted, asked), Err(Code::Forbidden));
        }
        assert_eq!(check(3, 3), Err(Code::StaleInode), "it was removed");
        let write = pb::Grant { inode: 7, write: true, snapshot: 4, ..Default::default() };
        let refused = grants.check(&user(), &key.grant(write), InodeId(7), Want::Write);
        assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    }

    #[test]
    fn the_memory_is_bounded() {
        let key = ClusterKey::generate().unwrap();
        let grants = Grants::new(key.clone(), RoutingCache::new());
        for inode in 0..3 * limits::GRANTS as u64 {
            let grant = key.grant(pb::Grant { inode, read: true, ..Default::default() });
            assert!(
                grants.check(&user(), &grant, InodeId(inode), Want::Read { snapshot: 0 }).is_ok()
            );
            assert!(grants.genuine.lock().len() <= limits::GRANTS);
        }
    }
}
