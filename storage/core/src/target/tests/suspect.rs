//! Chunks that the disk does not give back: who stays, who leaves, and how they are repaired.

use std::time::Duration;

use bytes::Bytes;
use ff2_proto::{ChainId, Code, TargetId, pb};
use pb::{
    LocalState,
    PublicState::{Offline, Serving, Syncing, Waiting},
};

use super::{
    bench::{
        Bench, SIZE, alone, head_of_two, id, place, reads_disk, refusals, sent, stores,
        tail_of_two, versions_done,
    },
    chain, cv, payload,
};
use crate::{
    tags::Tags,
    target::{
        CallId, Change, Input, Loaded, LoadedPending, Now, Outcome, Output, PageRequest, Record,
        Reply, Target, UpdateId,
    },
};

const DAMAGED: Result<(), Code> = Err(Code::Corrupt);

fn store_said(bench: &mut Bench, result: Result<(), Code>) -> Vec<Output<Bytes>> {
    bench.step(Input::Stored { chunk: place(), result: result.map_err(Into::into) })
}

fn whole() -> Change<Bytes> {
    Change::Replace { length: 1, payload: payload(&[9]) }
}

/// Reads the chunk; the disk answers `result`.
fn read_of_disk(bench: &mut Bench, result: Result<(), Code>) -> Vec<Output<Bytes>> {
    let out = bench.read();
    assert!(reads_disk(&out));
    let call = CallId(bench.calls);
    bench.step(Input::ReadDone { call, result: result.map_err(Into::into) })
}

#[test]
fn a_member_whose_base_is_damaged_is_sent_the_whole_chunk() {
    let mut tail = tail_of_two();
    tail.forward(1, id(2, 1), None);
    tail.stored();
    let outcome = Outcome { chunk: place(), id: id(2, 1), committed: true };
    let settle = Input::Settle { chain_version: cv(2), from: TargetId(1), outcomes: vec![outcome] };
    tail.step(settle);
    tail.stored();
    tail.forward(1, id(2, 2), Some(id(2, 1)));
    assert_eq!(refusals(&store_said(&mut tail, DAMAGED)), [Code::MissingUpdate]);
    assert!(tail.target.failure().is_none());
    assert_eq!(tail.target.suspects().collect::<Vec<_>>(), [place()]);
    let forward = tail.forward_of(1, id(2, 2), Some(id(2, 1)), whole());
    let call = tail.call();
    assert_eq!(stores(&tail.step(Input::Forward { call, forward })), ["prepare"]);
    assert_eq!(versions_done(&tail.stored()), [2]);
    let outcome = Outcome { chunk: place(), id: id(2, 2), committed: true };
    tail.step(Input::Settle { chain_version: cv(2), from: TargetId(1), outcomes: vec![outcome] });
    assert_eq!(tail.target.suspects().count(), 0, "it is good again");
}

#[test]
fn a_head_whose_base_is_damaged_leaves_if_others_serve() {
    let mut head = head_of_two().with_one_write();
    head.write(2);
    assert_eq!(refusals(&store_said(&mut head, DAMAGED)), [Code::NotServing]);
    assert_eq!(head.target.report().local_state, LocalState::LocalOffline);
    head.step(Input::Chain(chain(3, &[(2, Serving), (1, Offline)])));
    assert!(head.target.may_return());

    let mut head = alone().with_one_write();
    head.write(2);
    assert_eq!(refusals(&store_said(&mut head, DAMAGED)), [Code::Corrupt], "nobody can help");
    assert!(head.target.failure().is_none());
    assert_eq!(stores(&head.update(3, Change::Remove)), ["prepare"]);
}

#[test]
fn a_read_that_finds_damage_has_it_repaired() {
    let mut head = head_of_two().with_one_write();
    assert_eq!(refusals(&read_of_disk(&mut head, DAMAGED)), [Code::Corrupt]);
    assert_eq!(head.target.report().local_state, LocalState::LocalOffline);
    assert_eq!(refusals(&head.read()), [Code::NotServing]);

    let mut head = alone().with_one_write();
    assert_eq!(refusals(&read_of_disk(&mut head, DAMAGED)), [Code::Corrupt]);
    assert!(head.target.failure().is_none(), "all other chunks are served");
}

#[test]
fn a_suspect_chunk_is_copied_although_its_version_is_the_right_one() {
    let record = Record {
        id: id(3, 7),
        length: 5,
        chunk_size: SIZE,
        tags: Tags::default(),
        since: 0,
        synced_under: 0.into(),
    };
    let loaded = Loaded { chunk: place(), committed: Some(record), pending: None };
    let mut bench = Bench::with(2, chain(5, &[(1, Serving), (2, Offline)]), 5, [loaded]);
    bench.target = bench.target.clone().with_suspects([place()]);
    bench.step(Input::Chain(chain(6, &[(1, Serving), (2, Syncing)])));
    let shown = |bench: &mut Bench| {
        let call = bench.call();
        let request = PageRequest {
            chain_version: cv(6),
            after: None,
            limit: 10,
            done_chunks: 0,
            total_chunks: 1,
            gives_way: false,
        };
        match bench.step(Input::SyncPage { call, request }).pop() {
            Some(Output::Reply { reply: Reply::SyncPage(Ok(page)), .. }) => {
                page.chunks[0].committed_version
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(shown(&mut bench), 0);
    // A version 0 does not travel: it arrives as none.
    let of_nothing: Option<UpdateId> = None;
    let mut forward = bench.forward_of(1, id(3, 7), of_nothing, whole());
    forward.resync = true;
    let call = bench.call();
    assert_eq!(stores(&bench.step(Input::Forward { call, forward })), ["prepare"]);
    assert_eq!(stores(&bench.stored()), ["commit"]);
    assert_eq!(shown(&mut bench), 7);
}

#[test]
fn a_whole_chunk_that_cannot_be_read_is_not_waited_for() {
    let mut head = Bench::new(1, chain(2, &[(1, Serving), (2, Syncing)]));
    let attempt = sent(&head.write(1)).unwrap();
    head.stored();
    head.forwarded(attempt, Ok(()));
    head.stored();
    let attempt = sent(&head.write(2)).unwrap();
    assert_eq!(sent(&head.forwarded(attempt, Err(Code::MissingUpdate))), None);
    let attempt = sent(&head.stored()).expect("the whole chunk goes");
    let out = head.forwarded(attempt, DAMAGED);
    assert_eq!((refusals(&out), stores(&out)), (vec![Code::Corrupt], vec!["abort"]));
    assert!(head.target.failure().is_none());
}

/// The chain may count on it: only its commit was not synced.
#[test]
fn what_took_the_place_of_a_damaged_chunk_has_it_after_a_start_too() {
    let record = Record {
        id: id(3, 7),
        length: 5,
        chunk_size: SIZE,
        tags: Tags::default(),
        since: 0,
        synced_under: 0.into(),
    };
    // A removal is named after the version 0 that a damaged chunk shows.
    for (removes, version) in [(false, 7), (true, 1)] {
        let pending = LoadedPending {
            id: id(3, version),
            removes,
            length: 5,
            chunk_size: SIZE,
            tags: Tags::default(),
            keeping: Default::default(),
        };
        let committed = Some(record.clone());
        let loaded = Loaded { chunk: place(), committed, pending: Some(pending) };
        let mut target: Target<Bytes> = Target::new(TargetId(2), ChainId(1), cv(5), [loaded]);
        assert_eq!(target.pending(place()), None, "it follows nothing");
        assert_eq!(target.records().contains_key(&place()), !removes);
        let (now, mut out) = (Now { at: Duration::ZERO, lease: true }, Vec::new());
        target.step(now, Input::Chain(chain(6, &[(1, Serving), (2, Syncing)])), &mut out);
        assert_eq!(stores(&out), ["commit"]);
        target.check();
    }
}

#[test]
fn a_syncing_target_gives_way_when_it_is_told_to() {
    let mut bench = Bench::new(2, chain(6, &[(1, Serving), (2, Syncing), (3, Waiting)]));
    let call = bench.call();
    let request = PageRequest {
        chain_version: cv(6),
        after: None,
        limit: 1,
        done_chunks: 1,
        total_chunks: 1,
        gives_way: true,
    };
    let out = bench.step(Input::SyncPage { call, request });
    assert!(out.iter().any(|output| matches!(output, Output::Changed)));
    assert_eq!(bench.target.report().local_state, LocalState::LocalOffline);
    bench.step(Input::Chain(chain(7, &[(1, Serving), (3, Syncing), (2, Offline)])));
    assert!(bench.target.may_return(), "its turn comes again");
}
