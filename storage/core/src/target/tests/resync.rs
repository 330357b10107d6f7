//! Rows of the table that concern a resync, on both sides.

use bytes::Bytes;
use ff2_proto::{Code, pb};
use pb::{
    LocalState,
    PublicState::{Offline, Serving, Syncing, Waiting},
};

use super::{
    bench::{Bench, SIZE, id, page_asked, place, refusals, sent, stores, versions_done},
    chain, cv, payload,
};
use crate::{
    limits,
    tags::Tags,
    target::{
        Attempt, Change, Input, Loaded, LoadedPending, Outcome, Output, Page, Record, Standing,
        UpdateId,
    },
};

fn syncing_with(record: Option<UpdateId>, pending: Option<UpdateId>) -> Bench {
    let committed = record.map(|id| Record {
        id,
        length: 5,
        chunk_size: SIZE,
        tags: Tags::default(),
        since: 0,
        synced_under: 0.into(),
    });
    let pending = pending.map(|id| LoadedPending {
        id,
        removes: false,
        length: 5,
        chunk_size: SIZE,
        tags: Tags::default(),
        keeping: Default::default(),
    });
    let loaded = Loaded { chunk: place(), committed, pending };
    let loaded = (loaded.committed.is_some() || loaded.pending.is_some()).then_some(loaded);
    Bench::with(2, chain(6, &[(1, Serving), (2, Syncing)]), 5, loaded)
}

fn copy(bench: &mut Bench, of: UpdateId, observed: Option<UpdateId>) -> Vec<Output<Bytes>> {
    let change = Change::Replace { length: 1, payload: payload(&[1]) };
    copy_of(bench, of, observed, change)
}

fn copy_of(
    bench: &mut Bench,
    of: UpdateId,
    observed: Option<UpdateId>,
    change: Change<Bytes>,
) -> Vec<Output<Bytes>> {
    let mut forward = bench.forward_of(1, of, observed, change);
    forward.resync = true;
    let call = bench.call();
    bench.step(Input::Forward { call, forward })
}

#[test]
fn a_copy_counts_only_if_the_chunk_is_as_it_was_shown() {
    let mut bench = syncing_with(None, None);
    assert_eq!(stores(&copy(&mut bench, id(4, 2), None)), ["prepare"]);
    let out = bench.stored();
    assert_eq!((versions_done(&out), stores(&out)), (vec![2], vec!["commit"]));
    bench.stored();
    assert_eq!(versions_done(&copy(&mut bench, id(4, 2), None)), [2], "again: it is there");
    assert_eq!(refusals(&copy(&mut bench, id(4, 3), None)), [Code::Busy], "shown as missing");
    let out = copy(&mut bench, id(4, 3), Some(id(4, 2)));
    assert_eq!(stores(&out), ["prepare"]);
    let mut bench = Bench::new(2, chain(6, &[(1, Serving), (2, Serving)]));
    assert_eq!(refusals(&copy(&mut bench, id(4, 2), None)), [Code::StaleRouting], "not syncing");
}

#[test]
fn a_removal_takes_what_was_shown_and_nothing_newer() {
    let mut bench = syncing_with(Some(id(3, 7)), None);
    let out = copy_of(&mut bench, id(3, 9), Some(id(3, 8)), Change::Remove);
    assert_eq!(refusals(&out), [Code::Busy]);
    let out = copy_of(&mut bench, id(3, 8), Some(id(3, 7)), Change::Remove);
    assert_eq!(stores(&out), ["prepare"]);
    bench.stored();
    assert!(bench.target.records().is_empty());
    bench.stored();
    let out = copy_of(&mut bench, id(3, 8), Some(id(3, 7)), Change::Remove);
    assert_eq!(versions_done(&out), [8], "it is gone already");
    // No tombstone is left: a new chunk of a low version is welcome.
    assert_eq!(stores(&bench.forward(1, id(6, 1), None)), ["prepare"]);
}

#[test]
fn a_late_copy_does_not_bring_back_what_was_removed() {
    let mut bench = syncing_with(None, None);
    let forward = bench.forward_of(1, id(6, 9), Some(id(4, 2)), Change::Remove);
    let call = bench.call();
    assert_eq!(stores(&bench.step(Input::Forward { call, forward })), ["prepare"]);
    bench.stored();
    let outcome = Outcome { chunk: place(), id: id(6, 9), committed: true };
    bench.step(Input::Settle { chain_version: cv(6), from: 1.into(), outcomes: vec![outcome] });
    bench.stored();
    let out = copy(&mut bench, id(4, 2), None);
    assert_eq!((versions_done(&out), stores(&out)), (vec![2], vec![]), "answered, not carried out");
    assert!(bench.target.records().is_empty());
}

#[test]
fn a_live_update_and_a_copy_of_its_base_meet() {
    // The copy is still being stored when an update that builds on it arrives.
    let mut bench = syncing_with(None, None);
    copy(&mut bench, id(4, 2), None);
    let out = bench.forward(1, id(6, 3), Some(id(4, 2)));
    assert!(refusals(&out).is_empty());
    let mut order = Vec::new();
    for _ in 0..3 {
        order.extend(stores(&bench.stored()));
    }
    assert_eq!(order, ["commit", "prepare"]);
    assert_eq!(bench.target.records()[&place()].id, id(4, 2));
    // The update came first: the copy is of what was.
    let mut bench = syncing_with(None, None);
    assert_eq!(refusals(&bench.forward(1, id(6, 3), Some(id(4, 2)))), [Code::MissingUpdate]);
    let change = Change::Replace { length: 1, payload: payload(&[1]) };
    let forward = bench.forward_of(1, id(6, 3), Some(id(4, 2)), change);
    let call = bench.call();
    bench.step(Input::Forward { call, forward });
    assert_eq!(refusals(&copy(&mut bench, id(4, 2), None)), [Code::Busy]);
}

/// The simulator's seed 155: the one before it knew nothing of the update yet, and sent a copy of what it builds on.
#[test]
fn an_update_that_made_way_for_a_copy_is_taken_when_the_chain_sends_it_after_all() {
    let mut bench = syncing_with(Some(id(3, 7)), Some(id(4, 8)));
    assert_eq!(stores(&copy(&mut bench, id(4, 7), Some(id(3, 7)))), ["abort"]);
    assert_eq!(stores(&bench.stored()), ["prepare"]);
    bench.stored();
    bench.stored();
    assert_eq!(bench.target.records()[&place()].id, id(4, 7));
    let change = Change::Replace { length: 1, payload: payload(&[2]) };
    let forward = bench.forward_of(1, id(4, 8), Some(id(4, 7)), change);
    let call = bench.call();
    let out = bench.step(Input::Forward { call, forward: forward.clone() });
    assert_eq!((refusals(&out), stores(&out)), (vec![], vec!["prepare"]));
    assert_eq!(versions_done(&bench.stored()), [8]);
    // What the head had it drop is another matter.
    let outcome = Outcome { chunk: place(), id: id(4, 8), committed: false };
    bench.step(Input::Settle { chain_version: cv(6), from: 1.into(), outcomes: vec![outcome] });
    let call = bench.call();
    let out = bench.step(Input::Forward { call, forward });
    assert_eq!(refusals(&out), [Code::StaleUpdate]);
}

#[test]
fn it_is_complete_only_when_nothing_old_is_unsettled() {
    let mut bench = syncing_with(Some(id(3, 7)), Some(id(4, 8)));
    let done = |bench: &mut Bench| {
        let call = bench.call();
        let out = bench.step(Input::SyncDone { call, chain_version: cv(6) });
        refusals(&out)
    };
    assert_eq!(done(&mut bench), [Code::Busy]);
    assert_eq!(bench.target.report().local_state, LocalState::Online);
    let out = bench.later(limits::SETTLE_WAIT);
    let attempt = out.iter().find_map(|output| match output {
        Output::Query { attempt, .. } => Some(*attempt),
        _ => None,
    });
    let standing = Standing { committed: Some(id(3, 7)), pending: None };
    let queried = Input::Queried {
        chunk: place(),
        attempt: attempt.expect("it asks the head"),
        result: Ok(standing),
    };
    assert_eq!(stores(&bench.step(queried)), ["abort"], "the head does not know it");
    assert_eq!(done(&mut bench), [Code::Busy], "a crash now would bring it back");
    bench.stored();
    assert!(done(&mut bench).is_empty());
    let report = bench.target.report();
    assert_eq!((report.local_state, report.chain_version), (LocalState::UpToDate, 6));
    bench.step(Input::Chain(chain(7, &[(1, Serving), (2, Syncing), (3, Waiting)])));
    assert_eq!(bench.target.report().local_state, LocalState::Online, "as of one version only");
}

/// A head whose syncing successor showed that it has nothing. Returns the number of the copy.
fn source() -> (Bench, Attempt) {
    let mut bench = Bench::new(1, chain(2, &[(1, Serving), (2, Offline)])).with_one_write();
    let out = bench.step(Input::Chain(chain(3, &[(1, Serving), (2, Syncing)])));
    let attempt = page_asked(&out).expect("it looks at what the successor has");
    let result = Ok(Page { chunks: Vec::new(), end: true });
    let out = bench.step(Input::Paged { attempt, result });
    let copied = out.iter().find_map(|output| match output {
        Output::Copy { attempt, copy, .. } if copy.id == id(2, 1) => Some(*attempt),
        _ => None,
    });
    (bench, copied.expect("what is missing is sent"))
}

fn finishes(out: &[Output<Bytes>]) -> bool {
    out.iter().any(|output| matches!(output, Output::SyncDone { .. }))
}

#[test]
fn a_pass_ends_when_every_chunk_is_known_to_be_there() {
    let (mut bench, attempt) = source();
    assert!(!finishes(&bench.later(limits::FORWARD_RETRY_FIRST)));
    let out = bench.step(Input::Copied { chunk: place(), attempt, result: Ok(()) });
    assert!(finishes(&out));
}

#[test]
fn a_live_update_brings_the_chunk_whole_and_spares_the_copy() {
    let (mut bench, copying) = source();
    let out = bench.write(2);
    assert_eq!(sent(&out), None, "the successor lacks the base: the whole chunk will go");
    let out = bench.stored();
    let attempt = sent(&out).expect("durable now, so it goes whole");
    assert!(out.iter().any(|output| matches!(output, Output::ForwardFull { .. })));
    bench.forwarded(attempt, Ok(()));
    let busy = Err(Code::Busy.into());
    let out = bench.step(Input::Copied { chunk: place(), attempt: copying, result: busy });
    assert!(finishes(&out), "the update has brought everything");
    // From now on changes suffice.
    bench.stored();
    let out = bench.write(3);
    assert!(out.iter().any(|output| matches!(output, Output::Forward { .. })));
}

#[test]
fn it_does_not_finish_while_an_inherited_update_is_on_its_way() {
    let mut bench = Bench::new(1, chain(2, &[(1, Serving), (2, Serving)]));
    bench.write(1);
    bench.stored();
    let out = bench.step(Input::Chain(chain(3, &[(1, Serving), (3, Syncing), (2, Offline)])));
    let attempt = sent(&out).expect("sent again, to the new successor");
    let page = page_asked(&out).unwrap();
    let result = Ok(Page { chunks: Vec::new(), end: true });
    assert!(!finishes(&bench.step(Input::Paged { attempt: page, result })));
    assert!(!finishes(&bench.later(limits::RESYNC_RETRY)));
    bench.forwarded(attempt, Ok(()));
    assert!(finishes(&bench.later(limits::RESYNC_RETRY)));
}

#[test]
fn a_commit_that_the_successor_took_no_part_in_is_looked_at_again() {
    // A member between: the head has committed under the old chain version, its word comes late.
    let mut bench = Bench::new(1, chain(2, &[(9, Serving), (1, Serving)]));
    let mut forward = bench.forward_of(9, id(2, 1), None, super::bench::write(1));
    forward.to = 1.into();
    let call = bench.call();
    bench.step(Input::Forward { call, forward });
    bench.stored();
    let out = bench.step(Input::Chain(chain(3, &[(9, Serving), (1, Serving), (2, Syncing)])));
    let page = page_asked(&out).unwrap();
    let result = Ok(Page { chunks: Vec::new(), end: true });
    assert!(!finishes(&bench.step(Input::Paged { attempt: page, result })));
    let outcome = Outcome { chunk: place(), id: id(2, 1), committed: true };
    bench.step(Input::Settle { chain_version: cv(3), from: 9.into(), outcomes: vec![outcome] });
    bench.stored();
    let out = bench.later(limits::RESYNC_RETRY);
    assert!(!finishes(&out), "the successor lacks it");
    assert!(page_asked(&out).is_some(), "so it looks at what the successor has of it");
}

#[test]
fn acknowledgements_of_an_older_chain_version_do_not_count() {
    let mut bench = Bench::new(1, chain(2, &[(1, Serving), (2, Serving)]));
    let attempt = sent(&bench.write(1)).unwrap();
    bench.forwarded(attempt, Ok(()));
    bench.step(Input::Chain(chain(3, &[(1, Serving), (2, Serving), (3, Waiting)])));
    let out = bench.stored();
    assert!(versions_done(&out).is_empty(), "the successor must say so under the new version");
}
