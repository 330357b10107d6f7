//! What is kept for snapshots: rows of one situation and one answer.

use bytes::Bytes;
use ff2_proto::{ChunkId, Code, pb};
use pb::PublicState::{Serving, Syncing};

use super::{
    bench::{
        Bench, SIZE, alone, head_of_two, id, page_asked, place, reads_disk, refusals, sent, stores,
        tail_of_two, versions_done, write,
    },
    chain,
};
use crate::{
    limits,
    target::{
        Change, Input, Keeping, Loaded, Output, Page, ReadAnswer, Record, Reply, Snapshots, StoreOp,
    },
};

fn snapshots(ids: &[u32]) -> Input<Bytes> {
    Input::Snapshots(Snapshots { ids: ids.to_vec(), frozen: false })
}

fn frozen(ids: &[u32]) -> Input<Bytes> {
    Input::Snapshots(Snapshots { ids: ids.to_vec(), frozen: true })
}

fn keeping(out: &[Output<Bytes>]) -> Option<Keeping> {
    out.iter().find_map(|output| match output {
        Output::Store { op: StoreOp::Prepare { keeping, .. }, .. } => Some(*keeping),
        _ => None,
    })
}

/// Commits an update of a chain of one.
fn done(bench: &mut Bench, seq: u64, change: Change<Bytes>) -> Keeping {
    let out = bench.update(seq, change);
    let keeping = keeping(&out).expect("it is stored");
    bench.stored();
    bench.stored();
    keeping
}

fn read_at(bench: &mut Bench, snapshot: u32) -> Vec<Output<Bytes>> {
    let call = bench.call();
    bench.step(Input::Read { call, chunk: place().at(snapshot) })
}

fn found(out: &[Output<Bytes>]) -> Option<ChunkId> {
    out.iter().find_map(|output| match output {
        Output::Read { chunk, .. } => Some(*chunk),
        _ => None,
    })
}

fn is_absent(out: &[Output<Bytes>]) -> bool {
    let absent = |output: &Output<Bytes>| match output {
        Output::Reply { reply: Reply::Read(Ok(answer)), .. } => *answer == ReadAnswer::Absent,
        _ => false,
    };
    out.iter().any(absent)
}

#[test]
fn the_first_update_after_a_snapshot_keeps_what_was_and_later_ones_do_not() {
    let mut bench = alone();
    assert_eq!(done(&mut bench, 1, write(1)), Keeping::default(), "there is no snapshot");
    bench.step(snapshots(&[3]));
    assert_eq!(found(&read_at(&mut bench, 3)), Some(place()), "nothing changed since");
    assert_eq!(done(&mut bench, 2, write(2)), Keeping { since: 3, keep: 3 });
    assert_eq!(done(&mut bench, 3, write(3)), Keeping { since: 3, keep: 0 });
    assert_eq!(found(&read_at(&mut bench, 3)), Some(place().at(3)));
    assert_eq!(found(&bench.read()), Some(place()));
    // Two snapshots without a change between them share a clone; the removal makes it.
    bench.step(snapshots(&[3, 5, 6]));
    assert_eq!(done(&mut bench, 4, Change::Remove), Keeping { since: 6, keep: 6 });
    assert!(is_absent(&bench.read()));
    for (snapshot, clone) in [(3, 3), (5, 6), (6, 6)] {
        assert_eq!(found(&read_at(&mut bench, snapshot)), Some(place().at(clone)));
    }
    // What is made anew is in no snapshot that was there.
    assert_eq!(done(&mut bench, 5, write(9)), Keeping { since: 6, keep: 0 });
    bench.step(snapshots(&[3, 6, 7]));
    assert_eq!(found(&read_at(&mut bench, 6)), Some(place().at(6)));
    assert_eq!(found(&read_at(&mut bench, 7)), Some(place()));
}

#[test]
fn a_chunk_that_was_made_later_is_not_in_a_snapshot() {
    let mut bench = alone();
    bench.step(snapshots(&[3]));
    assert_eq!(done(&mut bench, 1, write(1)), Keeping { since: 3, keep: 0 });
    assert!(is_absent(&read_at(&mut bench, 3)));
    bench.step(snapshots(&[3, 4]));
    done(&mut bench, 2, write(2));
    assert!(is_absent(&read_at(&mut bench, 3)), "the clone is of a later time");
    assert_eq!(found(&read_at(&mut bench, 4)), Some(place().at(4)));
}

#[test]
fn nothing_is_kept_for_snapshots_that_are_gone() {
    let mut bench = alone();
    done(&mut bench, 1, write(1));
    bench.step(snapshots(&[3]));
    bench.step(snapshots(&[]));
    assert_eq!(done(&mut bench, 2, write(2)), Keeping::default());
    let records = bench.target.records();
    assert_eq!(records.len(), 1, "no clone was made");
}

#[test]
fn while_a_snapshot_is_made_no_update_begins_and_those_that_began_end() {
    let mut head = head_of_two();
    let attempt = sent(&head.write(1)).unwrap();
    head.step(frozen(&[3]));
    head.stored();
    assert!(!head.target.holds(), "what had begun is not over");
    assert_eq!(versions_done(&head.forwarded(attempt, Ok(()))), [1], "it began before");
    assert!(head.target.holds());
    head.stored();
    let out = head.write(2);
    assert!(stores(&out).is_empty() && refusals(&out).is_empty(), "it waits");
    assert!(reads_disk(&head.read()), "reads do not");
    let out = head.step(snapshots(&[3]));
    assert_eq!(keeping(&out), Some(Keeping { since: 3, keep: 3 }), "and begins under the new one");
    assert!(!head.target.holds());
}

#[test]
fn members_behind_do_as_the_head_said() {
    let mut tail = tail_of_two();
    let forward = |tail: &mut Bench, version, base, keeping| {
        let mut forward = tail.forward_of(1, id(2, version), base, write(9));
        forward.keeping = keeping;
        let call = tail.call();
        tail.step(Input::Forward { call, forward })
    };
    forward(&mut tail, 1, None, Keeping::default());
    tail.stored();
    // The next one tells that the first was committed. No snapshot is known here yet.
    let told = Keeping { since: 3, keep: 3 };
    forward(&mut tail, 2, Some(id(2, 1)), told);
    tail.stored();
    let out = tail.stored();
    assert!(refusals(&out).is_empty());
    forward(&mut tail, 3, Some(id(2, 2)), Keeping { since: 3, keep: 0 });
    assert_eq!(tail.target.records()[&place().at(3)].id, id(2, 1));
    assert_eq!(tail.target.records()[&place()].since, 3);
}

#[test]
fn who_syncs_and_lacks_what_is_to_be_kept_is_sent_the_clone() {
    let mut syncing = Bench::new(2, chain(2, &[(1, Serving), (2, Syncing)]));
    let whole = Change::Replace { length: 2, payload: Bytes::from_static(b"ab") };
    let mut forward = syncing.forward_of(1, id(2, 5), Some(id(2, 4)), whole);
    forward.keeping = Keeping { since: 3, keep: 3 };
    let call = syncing.call();
    let out = syncing.step(Input::Forward { call, forward });
    assert_eq!(keeping(&out), Some(Keeping { since: 3, keep: 0 }), "it has nothing to keep");
    // The side that sends makes its clone, and looks whether the other has it.
    let mut source = alone();
    done(&mut source, 1, write(1));
    source.step(Input::Chain(chain(3, &[(1, Serving), (2, Syncing)])));
    source.step(snapshots(&[3]));
    let out = source.write(2);
    let attempt = sent(&source.stored()).or_else(|| sent(&out)).expect("the whole chunk goes");
    source.forwarded(attempt, Ok(()));
    assert_eq!(source.target.records()[&place().at(3)].synced_under, 0.into());
    assert_eq!(source.target.records()[&place()].synced_under, 3.into());
}

#[test]
fn a_copy_has_the_successor_keep_what_it_has_of_a_snapshot() {
    for last in [write(2), Change::Remove] {
        let mut source = alone();
        done(&mut source, 1, write(1));
        source.step(snapshots(&[3]));
        done(&mut source, 2, last);
        let out = source.step(Input::Chain(chain(3, &[(1, Serving), (2, Syncing)])));
        // The successor was away since before the snapshot.
        let chunks = vec![pb::SyncChunk {
            chunk: Some(place().into()),
            committed_version: 1,
            pending_version: 0,
            length: 1,
            chain_version: 2,
        }];
        let attempt = page_asked(&out).expect("it looks at what the successor has");
        let out = source.step(Input::Paged { attempt, result: Ok(Page { chunks, end: true }) });
        let keeps = |output: &Output<Bytes>| match output {
            Output::Copy { copy, .. } if copy.chunk == place() => Some(copy.keeping.keep),
            Output::CopyRemoval { forward, .. } => Some(forward.keeping.keep),
            _ => None,
        };
        assert_eq!(out.iter().find_map(keeps), Some(3));
    }
    let record = Record {
        id: id(2, 1),
        length: 1,
        chunk_size: SIZE,
        tags: Default::default(),
        since: 0,
        synced_under: 0.into(),
    };
    let loaded = Loaded { chunk: place(), committed: Some(record), pending: None };
    let members = chain(6, &[(1, Serving), (2, Syncing)]);
    let mut syncing = Bench::with(2, members, 5, [loaded]);
    let whole = Change::Replace { length: 2, payload: Bytes::from_static(b"ab") };
    let mut copy = syncing.forward_of(1, id(2, 2), Some(id(2, 1)), whole);
    copy.keeping = Keeping { since: 3, keep: 3 };
    copy.resync = true;
    let call = syncing.call();
    syncing.step(Input::Forward { call, forward: copy });
    syncing.stored();
    let records = syncing.target.records();
    assert_eq!((records[&place()].id, records[&place().at(3)].id), (id(2, 2), id(2, 1)));
}

#[test]
fn a_successors_clone_stays_while_the_update_that_makes_it_here_is_pending() {
    let mut source = alone();
    done(&mut source, 1, write(1));
    source.step(snapshots(&[3]));
    source.write(2);
    let out = source.step(Input::Chain(chain(3, &[(1, Serving), (2, Syncing)])));
    let page = |chunk: ChunkId, version| pb::SyncChunk {
        chunk: Some(chunk.into()),
        committed_version: version,
        pending_version: 0,
        length: 1,
        chain_version: 2,
    };
    // The successor saw the update committed under an earlier chain version: it has made the clone.
    let chunks = vec![page(place(), 2), page(place().at(3), 1)];
    let attempt = page_asked(&out).expect("it looks at what the successor has");
    let out = source.step(Input::Paged { attempt, result: Ok(Page { chunks, end: true }) });
    let removes = |output: &Output<Bytes>| matches!(output, Output::CopyRemoval { .. });
    assert!(!out.iter().any(removes), "this side will have it too");
    let attempt = sent(&source.stored()).or_else(|| sent(&out)).expect("the update goes first");
    source.forwarded(attempt, Ok(()));
    source.stored();
    let out = source.later(limits::RESYNC_RETRY);
    let attempt = page_asked(&out).expect("it looks again");
    let chunks = vec![page(place().at(3), 1)];
    let out = source.step(Input::Paged { attempt, result: Ok(Page { chunks, end: false }) });
    assert!(!out.iter().any(removes), "both have it now");
    assert_eq!(source.target.records()[&place().at(3)].synced_under, 3.into());
}

#[test]
fn a_read_of_a_snapshot_does_not_count_if_its_clone_was_made_meanwhile() {
    let mut bench = alone();
    done(&mut bench, 1, write(1));
    bench.step(snapshots(&[3]));
    let out = read_at(&mut bench, 3);
    let call = out.iter().find_map(|output| match output {
        Output::Read { call, .. } => Some(*call),
        _ => None,
    });
    done(&mut bench, 2, write(2));
    let out = bench.step(Input::ReadDone { call: call.unwrap(), result: Ok(()) });
    assert_eq!(refusals(&out), [Code::PendingVersion], "the disk may have read either");
}

#[test]
fn the_size_of_what_is_kept_is_that_of_the_chunk() {
    let mut bench = alone();
    done(&mut bench, 1, write(1));
    bench.step(snapshots(&[3]));
    done(&mut bench, 2, Change::Truncate { length: 70 });
    let records = bench.target.records();
    assert_eq!((records[&place()].length, records[&place().at(3)].length), (70, 1));
    assert_eq!(records[&place().at(3)].chunk_size, SIZE);
}
