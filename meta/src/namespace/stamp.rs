//! What the leader decides before a command is logged: its time, its seed, the layout in use.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use ff2_meta_core::namespace;
use ff2_proto::{Code, Routing, Status, TableId, limits, pb};
use pb::ns_request::Op;

use super::guard::Asker;

/// A client's clock that is further away than that is wrong, and not believed.
const CLOCK_APART_NS: u64 = 10_000_000_000;

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
        mut request: pb::NsRequest,
        asker: Asker,
        routing: &Routing,
    ) -> Result<pb::NsCommand, Status> {
        settle_layout(&mut request, routing)?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|error| Status::new(Code::Internal, format!("no random bytes: {error}")))?;
        let (now_ns, seed) = (self.time_of(&request), u64::from_le_bytes(seed));
        let command = namespace::stamp(request, now_ns, seed, default_layout(routing));
        let Asker { owner, subtree } = asker;
        Ok(pb::NsCommand { owner, subtree, level: routing.level, ..command })
    }

    /// What was done before it was told has the time of its client, if that clock is about right.
    fn time_of(&self, request: &pb::NsRequest) -> i64 {
        let now = self.next(wall_ns());
        let at = request.at_ns;
        if at != 0 && at.abs_diff(now) <= CLOCK_APART_NS { at } else { now }
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

/// A layout that somebody asks for must name a table that exists and no more chains than it has. It
/// gets the newest version of the table.
fn settle_layout(request: &mut pb::NsRequest, routing: &Routing) -> Result<(), Status> {
    let asked = match &mut request.op {
        Some(Op::Create(op)) => &mut op.layout,
        Some(Op::SetLayout(op)) => &mut op.layout,
        _ => return Ok(()),
    };
    let Some(layout) = asked else { return Ok(()) };
    let Some(table) = routing.tables.get(&TableId(layout.table)) else {
        let known: Vec<String> = routing.tables.keys().map(ToString::to_string).collect();
        let detail =
            format!("there is no chain table {}: there are [{}]", layout.table, known.join(", "));
        return Err(Status::new(Code::InvalidArgument, detail));
    };
    let chains = table.chains.len();
    if layout.stripe as usize > chains {
        let detail = format!(
            "a stripe of {} chains, and chain table {} has {chains}",
            layout.stripe, layout.table
        );
        return Err(Status::new(Code::InvalidArgument, detail));
    }
    layout.table_version = table.version;
    Ok(())
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

    #[test]
    fn a_layout_names_what_there_is() {
        let mut routing = Routing::default();
        let table =
            pb::ChainTable { id: 4, version: 2, chains: vec![1, 2, 3], ..Default::default() };
        routing.tables.insert(TableId(4), table);
        let ask = |table, stripe| {
            let layout = Some(pb::Layout { table, stripe, ..Default::default() });
            let set = Op::SetLayout(pb::SetLayoutOp { inode: 1, layout });
            let create = Op::Create(pb::CreateOp { layout, ..Default::default() });
            let answers = [set, create].map(|op| {
                let mut request = pb::NsRequest { op: Some(op), ..Default::default() };
                settle_layout(&mut request, &routing).map_err(|status| status.detail)?;
                Ok::<_, String>(match request.op {
                    Some(Op::SetLayout(op)) => op.layout.unwrap().table_version,
                    Some(Op::Create(op)) => op.layout.unwrap().table_version,
                    _ => unreachable!(),
                })
            });
            assert_eq!(answers[0], answers[1]);
            answers[0].clone()
        };
        assert_eq!(ask(4, 3), Ok(2), "the newest version");
        assert_eq!(ask(5, 3), Err("there is no chain table 5: there are [4]".into()));
        assert_eq!(ask(4, 4), Err("a stripe of 4 chains, and chain table 4 has 3".into()));
    }
}
