//! What the leader decides before a command is logged: its time, its seed, the layout in use.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use ff2_meta_core::namespace;
use ff2_proto::{Code, Routing, Status, limits, pb};

/// Times that grow, whatever the clock of the machine does.
#[derive(Debug)]
pub(super) struct Stamps {
    last_ns: AtomicI64,
}

impl Stamps {
    pub(super) fn new() -> Self {
        Self { last_ns: AtomicI64::new(0) }
    }

    pub(super) fn stamp(
        &self,
        request: pb::NsRequest,
        routing: &Routing,
    ) -> Result<pb::NsCommand, Status> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| Status::new(Code::Internal, format!("no random bytes: {error}")))?;
        let (now_ns, seed) = (self.next(wall_ns()), u64::from_le_bytes(seed));
        Ok(namespace::stamp(request, now_ns, seed, default_layout(routing)))
    }

    fn next(&self, wall_ns: i64) -> i64 {
        let after = |last: i64| Some(wall_ns.max(last.saturating_add(1)));
        let last = self.last_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, after);
        let last = last.expect("the update is always taken");
        wall_ns.max(last.saturating_add(1))
    }
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// New files go to the newest table; none before there is one.
fn default_layout(routing: &Routing) -> Option<pb::Layout> {
    let (_, table) = routing.tables.last_key_value()?;
    let chains = u32::try_from(table.chains.len()).unwrap_or(u32::MAX);
    Some(pb::Layout {
        table: table.id,
        table_version: table.version,
        chunk_size: limits::CHUNK_SIZE_DEFAULT,
        stripe: limits::STRIPE_DEFAULT.min(chains),
        seed: 0,
    })
}

#[cfg(test)]
mod tests {
    use ff2_proto::TableId;

    use super::*;

    #[test]
    fn stamps_never_go_back() {
        let stamps = Stamps::new();
        assert_eq!(stamps.next(100), 100);
        assert_eq!(stamps.next(50), 101);
        assert_eq!(stamps.next(101), 102);
        assert_eq!(stamps.next(500), 500);
    }

    #[test]
    fn the_newest_table_is_the_default() {
        let mut routing = Routing::default();
        assert_eq!(default_layout(&routing), None);
        for id in [1, 2] {
            let table =
                pb::ChainTable { id, version: 1, chains: vec![1, 2, 3], ..Default::default() };
            routing.tables.insert(TableId(id), table);
        }
        let layout = default_layout(&routing).unwrap();
        assert_eq!((layout.table, layout.stripe), (2, 3));
        assert!(layout.chunk_size.is_power_of_two());
    }
}
