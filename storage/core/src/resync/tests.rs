//! The planner against a successor that is a map.

use super::*;
use crate::{tags::Tags, target::UpdateId};

/// Chunk numbers and their versions.
type Chunks = &'static [(u64, u64)];

fn id(version: u64) -> UpdateId {
    UpdateId { made_under: 1.into(), version: version.into() }
}

fn chunk(n: u64) -> ChunkId {
    ChunkId::new((n / 4).into(), (n % 4) as u32)
}

fn records(chunks: &[(u64, u64)]) -> BTreeMap<ChunkId, Record> {
    let record = |version| Record {
        id: id(version),
        length: 10,
        chunk_size: 1 << 16,
        tags: Tags::default(),
        since: 0,
        synced_under: 0.into(),
    };
    chunks.iter().map(|&(n, version)| (chunk(n), record(version))).collect()
}

fn resync() -> Resync {
    let to = pb::ChainMember { target: 2, node: 2, ..Default::default() };
    Resync::new(to, 5.into(), 3, u64::MAX)
}

/// Runs the planner to its end. Returns the steps that changed the successor.
fn run(
    resync: &mut Resync,
    mine: &mut BTreeMap<ChunkId, Record>,
    theirs: &mut BTreeMap<ChunkId, UpdateId>,
    page: usize,
) -> Vec<Step> {
    let (mut changes, mut attempt, mut now) = (Vec::new(), 0, Duration::ZERO);
    for _ in 0..10_000 {
        now += Duration::from_millis(10);
        let mut steps = Vec::new();
        let own =
            Own { records: mine, is_pending: &|_| false, is_settled: true, others_wait: false };
        resync.plan(now, own, &mut steps);
        while !steps.is_empty() {
            let step = steps.remove(0);
            attempt += 1;
            let number = Attempt(attempt);
            match step {
                Step::FetchPage { after, limit, .. } => {
                    resync.fetching(number);
                    let result = Ok(page_of(theirs, after, page.min(limit as usize)));
                    let own = Own {
                        records: mine,
                        is_pending: &|_| false,
                        is_settled: true,
                        others_wait: false,
                    };
                    resync.paged(now, number, result, own, &mut steps);
                }
                Step::Copy { chunk, observed } => {
                    let sent = mine[&chunk].id;
                    resync.sending(chunk, number, Some(sent));
                    assert_eq!(theirs.get(&chunk), observed.as_ref());
                    theirs.insert(chunk, sent);
                    changes.push(step);
                    resync.copied(now, chunk, number, &Ok(()), mine);
                }
                Step::Remove { chunk, observed } => {
                    resync.sending(chunk, number, None);
                    assert_eq!(theirs.remove(&chunk), Some(observed));
                    changes.push(step);
                    resync.copied(now, chunk, number, &Ok(()), mine);
                }
                Step::Finish => {
                    resync.finishing(number);
                    resync.ended(now, number, &Ok(()));
                    assert!(resync.is_done());
                    return changes;
                }
            }
        }
    }
    panic!("the resync does not end: {}", resync.explain());
}

fn page_of(
    theirs: &BTreeMap<ChunkId, UpdateId>,
    after: Option<ChunkId>,
    limit: usize,
) -> Page<pb::SyncChunk> {
    let after = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = theirs.range((after, Bound::Unbounded));
    let chunks = rest
        .by_ref()
        .take(limit)
        .map(|(&chunk, id)| pb::SyncChunk {
            chunk: Some(chunk.into()),
            committed_version: id.version.0,
            pending_version: 0,
            length: 10,
            chain_version: id.made_under.0,
        })
        .collect();
    Page { chunks, end: rest.next().is_none() }
}

#[test]
fn only_differences_travel_whatever_the_page() {
    let cases: [(Chunks, Chunks, usize); 6] = [
        (&[], &[], 0),
        (&[(1, 1), (2, 2)], &[(1, 1), (2, 2)], 0),
        (&[(1, 1), (2, 2), (3, 3)], &[], 3),
        (&[], &[(1, 1), (2, 2), (9, 1)], 3),
        (&[(1, 1), (2, 5), (4, 1)], &[(1, 1), (2, 4), (3, 1), (7, 1)], 4),
        (&[(2, 1)], &[(2, 7)], 1),
    ];
    for (ours, before, changes) in cases {
        for page in 1..5 {
            let mut mine = records(ours);
            let mut theirs: BTreeMap<_, _> =
                before.iter().map(|&(n, version)| (chunk(n), id(version))).collect();
            let done = run(&mut resync(), &mut mine, &mut theirs, page);
            assert_eq!(done.len(), changes, "{ours:?} {before:?} {done:?}");
            let wanted: BTreeMap<_, _> =
                ours.iter().map(|&(n, version)| (chunk(n), id(version))).collect();
            assert_eq!(theirs, wanted);
            // Interrupted and begun again: nothing is left to do.
            let again = run(&mut resync(), &mut mine, &mut theirs, page);
            assert!(again.is_empty(), "{again:?}");
        }
    }
}

#[test]
fn a_pending_chunk_is_looked_at_again_and_a_busy_answer_too() {
    let mut mine = records(&[(1, 1), (2, 1)]);
    let mut resync = resync();
    let mut steps = Vec::new();
    let now = Duration::from_secs(1);
    let pending = |busy| move |chunk_: ChunkId| busy && chunk_ == chunk(1);
    let held = pending(true);
    let own = Own { records: &mut mine, is_pending: &held, is_settled: true, others_wait: false };
    resync.plan(now, own, &mut steps);
    assert_eq!(
        steps,
        [Step::FetchPage { after: None, limit: limits::PAGE_CHUNKS, gives_way: false }]
    );
    resync.fetching(Attempt(1));
    steps.clear();
    let own = Own { records: &mut mine, is_pending: &held, is_settled: true, others_wait: false };
    resync.paged(now, Attempt(1), Ok(Page { chunks: vec![], end: true }), own, &mut steps);
    let own = Own { records: &mut mine, is_pending: &held, is_settled: true, others_wait: false };
    resync.plan(now, own, &mut steps);
    assert_eq!(steps, [Step::Copy { chunk: chunk(2), observed: None }]);
    resync.sending(chunk(2), Attempt(2), Some(id(1)));
    resync.copied(now, chunk(2), Attempt(2), &Err(Code::Busy.into()), &mut mine);
    assert_eq!(resync.redo.len(), 2);
    let mut theirs = BTreeMap::new();
    assert_eq!(run(&mut resync, &mut mine, &mut theirs, 10).len(), 2);
    assert_eq!(theirs.len(), 2);
}

#[test]
fn it_is_not_finished_while_an_inherited_update_is_on_its_way() {
    let mut mine = records(&[]);
    let mut resync = resync();
    let mut steps = Vec::new();
    let now = Duration::from_secs(1);
    for settled in [false, false, true] {
        let own = Own {
            records: &mut mine,
            is_pending: &|_| false,
            is_settled: settled,
            others_wait: false,
        };
        resync.plan(now, own, &mut steps);
        if steps.iter().any(|step| matches!(step, Step::FetchPage { .. })) {
            steps.clear();
            resync.fetching(Attempt(1));
            let own = Own {
                records: &mut mine,
                is_pending: &|_| false,
                is_settled: settled,
                others_wait: false,
            };
            resync.paged(now, Attempt(1), Ok(Page { chunks: vec![], end: true }), own, &mut steps);
        }
        assert_eq!(steps.contains(&Step::Finish), settled, "{steps:?}");
    }
}

#[test]
fn the_key_before_a_chunk() {
    assert_eq!(before(ChunkId::new(0.into(), 0)), None);
    let first = ChunkId::new(3.into(), 0);
    assert_eq!(before(first), Some(ChunkId::new(2.into(), u32::MAX).at(u32::MAX)));
    let other = ChunkId::new(3.into(), 8);
    assert_eq!(before(other), Some(ChunkId::new(3.into(), 7).at(u32::MAX)));
    assert_eq!(before(other.at(4)), Some(other.at(3)));
    assert_eq!(before(other.at(1)), Some(other));
}

#[test]
fn a_chunk_that_cannot_be_read_holds_up_nothing_but_the_end() {
    let mut mine = records(&[(1, 1), (2, 1)]);
    let mut resync = resync();
    let mut steps = Vec::new();
    let now = Duration::from_secs(1);
    let plan = |resync: &mut Resync, now, mine: &mut _, steps: &mut _| {
        resync.plan(
            now,
            Own { records: mine, is_pending: &|_| false, is_settled: true, others_wait: false },
            steps,
        );
    };
    plan(&mut resync, now, &mut mine, &mut steps);
    resync.fetching(Attempt(1));
    steps.clear();
    let own =
        Own { records: &mut mine, is_pending: &|_| false, is_settled: true, others_wait: false };
    resync.paged(now, Attempt(1), Ok(Page { chunks: vec![], end: true }), own, &mut steps);
    plan(&mut resync, now, &mut mine, &mut steps);
    assert_eq!(steps.len(), 2, "{steps:?}");
    resync.sending(chunk(1), Attempt(2), Some(id(1)));
    resync.sending(chunk(2), Attempt(3), Some(id(1)));
    resync.copied(now, chunk(1), Attempt(2), &Err(Code::Corrupt.into()), &mut mine);
    resync.copied(now, chunk(2), Attempt(3), &Ok(()), &mut mine);
    steps.clear();
    plan(&mut resync, now, &mut mine, &mut steps);
    assert!(steps.is_empty(), "neither a tight loop nor the end: {steps:?}");
    // Another member that waits may hold it.
    let mut other = resync.clone();
    other.unreadable_until = Duration::ZERO;
    for _ in 0..2 {
        let own =
            Own { records: &mut mine, is_pending: &|_| false, is_settled: true, others_wait: true };
        other.plan(now, own, &mut steps);
    }
    assert!(matches!(steps[..], [Step::FetchPage { gives_way: true, .. }]), "{steps:?}");
    // Later it can be read, or was overwritten.
    let mut theirs = BTreeMap::from([(chunk(2), id(1))]);
    resync.unreadable_until = Duration::ZERO;
    assert_eq!(run(&mut resync, &mut mine, &mut theirs, 10).len(), 1);
    assert_eq!(theirs.len(), 2);
}
