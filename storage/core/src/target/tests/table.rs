//! Rows of the machine's table: one situation, one answer.

use bytes::Bytes;
use ff2_proto::{Code, TargetId, pb};
use pb::{
    LocalState,
    PublicState::{Lastsrv, Offline, Serving, Syncing, Waiting},
};

use super::{
    bench::{
        Bench, SIZE, alone, head_of_two, id, place, reads_disk, refusals, sent, settled, stores,
        tail_of_two, versions_done, write,
    },
    chain, chunk, cv, payload,
};
use crate::{
    limits,
    tags::Tags,
    target::{
        Change, Forward, Input, Loaded, LoadedPending, Now, Outcome, Output, Reply, Role, Standing,
        Update,
    },
};

#[test]
fn an_update_is_stored_and_forwarded_at_once_and_committed_when_both_are_done() {
    for persist_first in [true, false] {
        let mut head = head_of_two();
        let out = head.write(1);
        assert_eq!(stores(&out), ["prepare"]);
        let attempt = sent(&out).expect("forwarded without waiting for the disk");
        let (first, second) = if persist_first {
            (head.stored(), head.forwarded(attempt, Ok(())))
        } else {
            (head.forwarded(attempt, Ok(())), head.stored())
        };
        assert!(versions_done(&first).is_empty(), "not before both");
        assert_eq!(versions_done(&second), [1]);
        assert_eq!((stores(&second), settled(&second)), (vec!["commit"], Some(true)));
    }
}

#[test]
fn who_may_not_serve_refuses() {
    let rows = [
        (chain(2, &[(1, Serving), (2, Serving)]), 2, true, Code::StaleRouting, "not the head"),
        (chain(2, &[(1, Serving), (2, Syncing)]), 2, true, Code::StaleRouting, "syncing"),
        (chain(2, &[(2, Lastsrv), (1, Offline)]), 2, true, Code::StaleRouting, "last serving"),
        (chain(2, &[(1, Serving), (2, Waiting)]), 2, true, Code::StaleRouting, "waiting"),
        (chain(2, &[(3, Serving)]), 2, true, Code::StaleRouting, "no member"),
        (chain(2, &[(1, Serving)]), 1, false, Code::Fenced, "no lease"),
    ];
    for (chain, target, lease, code, why) in rows {
        let mut bench = Bench::new(target, chain);
        bench.lease = lease;
        assert_eq!(refusals(&bench.write(1)), [code], "{why}");
        let serves = bench.target.role().serves() && lease;
        assert_eq!(refusals(&bench.read()).is_empty(), serves, "{why}");
    }
    let mut head = head_of_two();
    let stale = Update {
        chain_version: cv(1),
        chunk: place(),
        change: write(1),
        chunk_size: SIZE,
        tag: None,
    };
    let call = head.call();
    let out = head.step(Input::Update { call, update: stale });
    assert_eq!(refusals(&out), [Code::StaleRouting]);
}

#[test]
fn bad_updates_are_refused() {
    let rows = [
        (
            Change::Write { offset: 0, length: 0, payload: payload(&[]) },
            SIZE,
            Code::InvalidArgument,
        ),
        (
            Change::Write { offset: SIZE, length: 1, payload: payload(&[1]) },
            SIZE,
            Code::InvalidArgument,
        ),
        (
            Change::Write { offset: u32::MAX, length: 2, payload: payload(&[1, 2]) },
            SIZE,
            Code::InvalidArgument,
        ),
        (Change::Truncate { length: SIZE + 1 }, SIZE, Code::InvalidArgument),
        (Change::Truncate { length: 1 }, SIZE - 1, Code::InvalidArgument),
        (Change::Truncate { length: 1 }, 128 << 20, Code::InvalidArgument),
        (Change::Replace { length: 1, payload: payload(&[1]) }, SIZE, Code::Forbidden),
    ];
    for (change, chunk_size, code) in rows {
        let mut head = alone();
        let update = Update { chain_version: cv(2), chunk: place(), change, chunk_size, tag: None };
        let call = head.call();
        let out = head.step(Input::Update { call, update: update.clone() });
        assert_eq!(refusals(&out), [code], "{update:?}");
    }
    let mut head = alone().with_one_write();
    let other_size = Update {
        chain_version: cv(2),
        chunk: place(),
        change: write(1),
        chunk_size: 2 * SIZE,
        tag: None,
    };
    let call = head.call();
    let out = head.step(Input::Update { call, update: other_size });
    assert_eq!(refusals(&out), [Code::InvalidArgument]);
}

#[test]
fn a_retried_update_is_carried_out_once() {
    let mut head = head_of_two();
    let attempt = sent(&head.write(3)).unwrap();
    assert!(head.write(3).is_empty(), "the same one is pending: both wait");
    assert_eq!(refusals(&head.write(2)), [Code::StaleUpdate]);
    head.stored();
    let out = head.forwarded(attempt, Ok(()));
    assert_eq!(versions_done(&out), [1, 1]);
    let again = head.write(3);
    assert_eq!((versions_done(&again), stores(&again)), (vec![1], vec![]));
    assert_eq!(refusals(&head.write(2)), [Code::StaleUpdate]);
}

#[test]
fn removing_nothing_changes_nothing() {
    let mut head = alone();
    let out = head.update(1, Change::Remove);
    assert_eq!((versions_done(&out), stores(&out)), (vec![0], vec![]));
    assert!(head.target.records().is_empty());
}

/// In the record, which survives crashes and goes along with copies.
#[test]
fn a_cut_to_nothing_is_remembered_by_the_chunk() {
    let mut head = alone();
    assert_eq!(stores(&head.update(1, Change::Truncate { length: 0 })), ["prepare"]);
    assert_eq!(versions_done(&head.stored()), [1]);
    head.stored();
    let empty = &head.target.records()[&place()];
    assert_eq!((empty.length, empty.tags.entries().len()), (0, 1));
    head.write(2);
    head.stored();
    head.stored();
    let late = head.update(1, Change::Truncate { length: 0 });
    assert_eq!((refusals(&late), stores(&late)), (vec![Code::StaleUpdate], vec![]));
    assert!(head.target.records()[&place()].length > 0);
}

/// Whoever is behind may hold it still, and could be the first to come back after a crash of all.
#[test]
fn a_removal_after_a_dropped_update_reaches_every_member() {
    let mut head = head_of_two();
    let attempt = sent(&head.write(1)).unwrap();
    head.stored();
    head.forwarded(attempt, Err(Code::NoSpace));
    head.stored();
    // Under the next chain version too.
    head.step(Input::Chain(chain(3, &[(1, Serving), (2, Serving)])));
    let attempt = sent(&head.update(2, Change::Remove)).expect("it is sent on");
    head.stored();
    assert_eq!(versions_done(&head.forwarded(attempt, Ok(()))), [2]);
    head.stored();
    assert!(sent(&head.update(3, Change::Remove)).is_none(), "now all of them know");

    // Behind it: the update that is pending makes way.
    let mut tail = tail_of_two();
    tail.forward(1, id(2, 1), None);
    tail.stored();
    let forward = tail.forward_of(1, id(2, 2), None, Change::Remove);
    let call = tail.call();
    assert_eq!(stores(&tail.step(Input::Forward { call, forward })), ["abort"]);
    assert_eq!(stores(&tail.stored()), ["prepare"]);
}

#[test]
fn a_full_disk_anywhere_leaves_the_version_before() {
    // At the head itself: the successor is told to drop what it was sent.
    let mut head = head_of_two().with_one_write();
    head.write(2);
    let out = head.step(Input::Stored { chunk: place(), result: Err(Code::NoSpace.into()) });
    assert_eq!((refusals(&out), settled(&out)), (vec![Code::NoSpace], Some(false)));
    assert_eq!(head.target.records()[&place()].id, id(2, 1));

    // Behind the head: its own durable copy is dropped.
    let mut head = head_of_two().with_one_write();
    let attempt = sent(&head.write(2)).unwrap();
    head.stored();
    let out = head.forwarded(attempt, Err(Code::NoSpace));
    assert_eq!((refusals(&out), stores(&out)), (vec![Code::NoSpace], vec!["abort"]));
    head.stored();
    assert!(reads_disk(&head.read()), "readable");
    // The version of the dropped one is not given again.
    let out = head.write(3);
    let next = out.iter().find_map(|output| match output {
        Output::Forward { forward, .. } => Some(forward.id),
        _ => None,
    });
    assert_eq!(next, Some(id(2, 3)));

    // A member that refused once refuses the same again, whatever room it has now.
    let mut tail = tail_of_two();
    tail.forward(1, id(2, 1), None);
    let out = tail.step(Input::Stored { chunk: place(), result: Err(Code::NoSpace.into()) });
    assert_eq!(refusals(&out), [Code::NoSpace]);
    assert_eq!(refusals(&tail.forward(1, id(2, 1), None)), [Code::NoSpace]);
    assert_eq!(stores(&tail.forward(1, id(2, 2), None)), ["prepare"]);
}

#[test]
fn a_failed_disk_takes_the_target_out() {
    let mut head = alone().with_one_write();
    head.write(2);
    let out = head.step(Input::Stored { chunk: place(), result: Err(Code::DiskFailed.into()) });
    assert_eq!(refusals(&out), [Code::NotServing]);
    assert!(out.iter().any(|output| matches!(output, Output::Changed)));
    assert_eq!(head.target.report().local_state, LocalState::LocalOffline);
    assert_eq!(head.target.role(), Role::Out);
    assert_eq!(refusals(&head.read()), [Code::DiskFailed]);
    head.step(Input::Chain(chain(3, &[(2, Serving), (1, Offline)])));
    assert!(!head.target.may_return());
}

#[test]
fn what_becomes_of_a_forward() {
    let mut tail = tail_of_two();
    let out = tail.forward(1, id(2, 1), None);
    assert_eq!(stores(&out), ["prepare"]);
    assert!(tail.forward(1, id(2, 1), None).is_empty(), "the same is pending: both wait");
    assert_eq!(versions_done(&tail.stored()), [1, 1]);
    assert_eq!(versions_done(&tail.forward(1, id(2, 1), None)), [1], "durable already");
    // The next one says that the one before was committed.
    let out = tail.forward(1, id(2, 2), Some(id(2, 1)));
    assert_eq!(stores(&out), ["commit"]);
    assert_eq!(stores(&tail.stored()), ["prepare"]);
    assert_eq!(versions_done(&tail.stored()), [2]);
    assert_eq!(versions_done(&tail.forward(1, id(2, 1), None)), [1], "committed");
    assert_eq!(refusals(&tail.forward(1, id(2, 9), Some(id(2, 8)))), [Code::MissingUpdate]);
    assert_eq!(refusals(&tail.forward(3, id(2, 9), None)), [Code::StaleRouting], "from a stranger");
    let call = tail.call();
    let mut forward = tail.forward_of(1, id(2, 9), None, write(1));
    forward.chain_version = cv(1);
    let out = tail.step(Input::Forward { call, forward });
    assert_eq!(refusals(&out), [Code::StaleRouting]);
}

#[test]
fn a_missing_base_is_answered_with_the_whole_chunk() {
    let mut head = head_of_two().with_one_write();
    let attempt = sent(&head.write(2)).unwrap();
    let out = head.forwarded(attempt, Err(Code::MissingUpdate));
    assert_eq!(sent(&out), None, "it must be durable before it can be read back");
    let out = head.stored();
    let whole = out.iter().find_map(|output| match output {
        Output::ForwardFull { attempt, copy, .. } => Some((*attempt, copy.id, copy.length)),
        _ => None,
    });
    let (attempt, named, length) = whole.expect("the whole chunk goes");
    assert_eq!((named, length), (id(2, 2), 1));
    assert_eq!(versions_done(&head.forwarded(attempt, Ok(()))), [2]);
}

#[test]
fn a_failed_forward_is_sent_again_and_goes_to_the_next_successor() {
    let three = chain(2, &[(1, Serving), (2, Serving), (3, Serving)]);
    let mut head = Bench::new(1, three);
    let attempt = sent(&head.write(1)).unwrap();
    head.stored();
    assert_eq!(sent(&head.forwarded(attempt, Err(Code::Unreachable))), None);
    let again = sent(&head.later(limits::FORWARD_RETRY_FIRST)).expect("again after a pause");
    let out = head.step(Input::Chain(chain(3, &[(1, Serving), (3, Serving), (2, Offline)])));
    let next = out.iter().find_map(|output| match output {
        Output::Forward { to, attempt, .. } => Some((to.target, *attempt)),
        _ => None,
    });
    let (to, attempt) = next.expect("to the new successor");
    assert_eq!(to, 3);
    assert!(versions_done(&head.forwarded(again, Ok(()))).is_empty(), "under the old version");
    assert_eq!(versions_done(&head.forwarded(attempt, Ok(()))), [1]);
}

#[test]
fn a_successor_that_does_not_answer_is_spoken_of() {
    let mut head = head_of_two();
    let mut attempt = sent(&head.write(1)).unwrap();
    head.stored();
    for silence in [Code::Timeout, Code::Unreachable] {
        head.later(limits::SUCCESSOR_SILENT / 2);
        assert_eq!(head.target.report().silent_successor, 0, "that may pass");
        head.forwarded(attempt, Err(silence));
        attempt = sent(&head.later(limits::FORWARD_RETRY_LAST)).expect("again after a pause");
    }
    head.forwarded(attempt, Err(Code::Unreachable));
    assert_eq!(head.target.report().silent_successor, 2);
    let attempt = sent(&head.later(limits::FORWARD_RETRY_LAST)).unwrap();
    head.forwarded(attempt, Err(Code::Busy));
    assert_eq!(head.target.report().silent_successor, 0, "that was an answer");
}

#[test]
fn who_becomes_the_only_member_commits_what_is_pending() {
    let mut tail = tail_of_two();
    tail.forward(1, id(2, 1), None);
    let out = tail.step(Input::Chain(chain(3, &[(2, Serving), (1, Offline)])));
    assert_eq!(refusals(&out), [Code::StaleRouting], "the old predecessor");
    assert!(!tail.target.records().contains_key(&place()), "not before it is durable");
    assert_eq!(stores(&tail.stored()), ["commit"]);
    assert_eq!(tail.target.records()[&place()].id, id(2, 1));
}

#[test]
fn a_restarted_target_serves_only_under_a_newer_chain_version() {
    let pending = LoadedPending {
        id: id(2, 5),
        removes: false,
        length: 3,
        chunk_size: SIZE,
        tags: Tags::default(),
        keeping: Default::default(),
    };
    let loaded = Loaded { chunk: place(), committed: None, pending: Some(pending) };
    let mut bench = Bench::with(1, chain(4, &[(1, Serving)]), 4, [loaded]);
    assert_eq!(bench.target.role(), Role::Out);
    let report = bench.target.report();
    assert_eq!((report.local_state, report.chain_version), (LocalState::Online, 0));
    bench.step(Input::Chain(chain(5, &[(1, Lastsrv)])));
    assert_eq!(refusals(&bench.read()), [Code::StaleRouting]);
    let out = bench.step(Input::Chain(chain(6, &[(1, Serving)])));
    assert_eq!(stores(&out), ["commit"], "the last-serving target keeps what it had");
    assert_eq!(bench.target.records()[&place()].id, id(2, 5));
    assert_eq!(bench.target.report().local_state, LocalState::UpToDate);
}

#[test]
fn a_read_of_a_pending_chunk_asks_the_head_once() {
    let mut tail = tail_of_two();
    assert!(matches!(tail.read()[..], [Output::Reply { reply: Reply::Read(Ok(_)), .. }]));
    tail.forward(1, id(2, 1), None);
    tail.stored();
    let out = tail.read();
    let asked = |out: &[Output<Bytes>]| {
        out.iter().find_map(|output| match output {
            Output::Query { attempt, to, .. } => Some((*attempt, to.target)),
            _ => None,
        })
    };
    let (attempt, head) = asked(&out).expect("it asks");
    assert_eq!(head, 1);
    assert!(tail.read().is_empty(), "one question at a time");
    let standing = Standing { committed: None, pending: Some(id(2, 1)) };
    let out = tail.step(Input::Queried { chunk: place(), attempt, result: Ok(standing) });
    let answers = out.iter().filter(|o| matches!(o, Output::Reply { .. })).count();
    assert_eq!(answers, 1, "the second read came after the question");
    let (attempt, _) = asked(&out).expect("it asks again for the second read");
    let standing = Standing { committed: Some(id(2, 1)), pending: None };
    let out = tail.step(Input::Queried { chunk: place(), attempt, result: Ok(standing) });
    assert_eq!(stores(&out), ["commit"], "the answer settles the update");
    assert!(!reads_disk(&out), "the disk must know it first");
    assert!(reads_disk(&tail.stored()));
}

#[test]
fn a_read_gives_up_when_the_head_does_not_answer() {
    let mut tail = tail_of_two();
    tail.forward(1, id(2, 1), None);
    tail.read();
    assert_eq!(refusals(&tail.later(limits::READ_WAIT)), [Code::PendingVersion]);
}

#[test]
fn the_lease_is_checked_again_after_the_disk_read() {
    let mut head = alone().with_one_write();
    let out = head.read();
    let call = out.iter().find_map(|output| match output {
        Output::Read { call, .. } => Some(*call),
        _ => None,
    });
    head.lease = false;
    let out = head.step(Input::ReadDone { call: call.unwrap(), result: Ok(()) });
    assert_eq!(refusals(&out), [Code::Fenced]);
}

#[test]
fn a_new_head_answers_reads_only_when_its_inheritance_is_settled() {
    let mut bench = Bench::new(2, chain(2, &[(1, Serving), (2, Serving), (3, Serving)]));
    bench.forward(1, id(2, 1), None);
    bench.stored();
    let out = bench.step(Input::Chain(chain(3, &[(2, Serving), (3, Serving), (1, Offline)])));
    let attempt = sent(&out).expect("sent again");
    assert!(bench.read().is_empty(), "the old head may have committed it");
    let call = bench.call();
    let query = Input::Query { call, chain_version: cv(3), chunk: place() };
    assert!(bench.step(query).is_empty());
    let out = bench.forwarded(attempt, Ok(()));
    assert_eq!(stores(&out), ["commit"]);
    let asked = Standing { committed: Some(id(2, 1)), pending: None };
    let is_answered = out.iter().any(
        |o| matches!(o, Output::Reply { reply: Reply::Query(Ok(standing)), .. } if *standing == asked),
    );
    assert!(is_answered);
    assert!(reads_disk(&bench.stored()));
}

#[test]
fn outcomes_come_down_the_chain() {
    for committed in [true, false] {
        let mut tail = tail_of_two();
        tail.forward(1, id(2, 1), None);
        tail.stored();
        let outcome = Outcome { chunk: place(), id: id(2, 1), committed };
        let settle = |chain_version| Input::Settle {
            chain_version,
            from: TargetId(1),
            outcomes: vec![outcome],
        };
        assert!(tail.step(settle(cv(1))).is_empty(), "of an older chain version: ignored");
        let out = tail.step(settle(cv(2)));
        assert_eq!(stores(&out), [if committed { "commit" } else { "abort" }]);
        assert_eq!(tail.target.records().len(), usize::from(committed));
    }
}

#[test]
fn a_listing_shows_chunks_that_are_coming() {
    let mut head = head_of_two();
    head.write(1);
    let list = |head: &mut Bench| {
        let call = head.call();
        let last = ff2_proto::ChunkId { index: u32::MAX, ..place() };
        let input = Input::List { call, from: place(), last, limit: 10, clones: false };
        match head.step(input).pop() {
            Some(Output::Reply { reply: Reply::List(page), .. }) => {
                page.map(|page| page.chunks).map_err(|status| status.code)
            }
            other => panic!("{other:?}"),
        }
    };
    let coming = pb::ChunkInfo { chunk: Some(place().into()), length: 0, version: 0, since: 0 };
    assert_eq!(list(&mut head), Ok(vec![coming]));
    let mut tail = tail_of_two();
    tail.forward(1, id(2, 1), None);
    assert_eq!(list(&mut tail), Err(Code::PendingVersion), "it may be committed or not");
}

#[test]
fn queues_are_bounded() {
    let mut head = head_of_two();
    let mut refused = 0;
    for channel in 0..2 * limits::WAITING_UPDATES_PER_CHUNK as u32 {
        let tag = Some(pb::UpdateTag { session: 1, channel, seq: 1, ack_below: 0 });
        let update = Update {
            chain_version: cv(2),
            chunk: place(),
            change: write(1),
            chunk_size: SIZE,
            tag,
        };
        let call = head.call();
        let out = head.step(Input::Update { call, update });
        refused += refusals(&out).iter().filter(|code| **code == Code::Busy).count();
    }
    assert_eq!(refused, limits::WAITING_UPDATES_PER_CHUNK - 1, "one is pending, the rest waits");

    let mut tail = tail_of_two();
    let count = limits::LIVE_CHUNKS_PER_TARGET as u32 + 1;
    let last = (0..count).map(|index| {
        let forward =
            Forward { chunk: chunk(7, index), ..tail.forward_of(1, id(2, 1), None, write(1)) };
        let (at, call, mut out) = (tail.at, tail.call(), Vec::new());
        tail.target.step(Now { at, lease: true }, Input::Forward { call, forward }, &mut out);
        refusals(&out)
    });
    let refused: Vec<Code> = last.flatten().collect();
    assert_eq!(refused, [Code::Busy], "all but one begin");
}

#[test]
fn a_syncing_target_without_room_leaves_the_chain() {
    let mut bench = Bench::new(2, chain(2, &[(1, Serving), (2, Syncing)]));
    bench.forward(1, id(2, 1), None);
    let out = bench.step(Input::Stored { chunk: place(), result: Err(Code::NoSpace.into()) });
    assert_eq!(refusals(&out), [Code::NotServing], "the writer waits for the chain to change");
    assert_eq!(bench.target.report().local_state, LocalState::LocalOffline);
    assert!(!bench.target.may_return(), "the cluster must have seen it go");
    bench.step(Input::Chain(chain(3, &[(1, Serving), (2, Offline)])));
    assert!(bench.target.may_return());
}

#[test]
fn an_update_that_is_taken_again_is_durable_by_its_own_prepare() {
    let mut bench = Bench::new(2, chain(2, &[(1, Serving), (2, Serving), (3, Serving)]));
    let out = bench.forward(1, id(2, 1), None);
    let attempt = sent(&out).unwrap();
    let out = bench.forwarded(attempt, Err(Code::NoSpace));
    assert_eq!(refusals(&out), [Code::NoSpace], "dropped while its prepare runs");
    bench.step(Input::Chain(chain(3, &[(1, Serving), (2, Serving), (3, Offline)])));
    assert!(bench.forward(1, id(2, 1), None).is_empty(), "taken again, queued behind the abort");
    let out = bench.stored();
    assert_eq!((stores(&out), versions_done(&out)), (vec!["abort"], vec![]));
    assert_eq!(stores(&bench.stored()), ["prepare"]);
    assert_eq!(versions_done(&bench.stored()), [1]);
}

#[test]
fn only_a_word_about_the_update_ends_it() {
    let rows = [
        (Code::NoSpace, true),
        (Code::FileTooBig, true),
        (Code::InvalidArgument, true),
        (Code::StaleUpdate, true),
        (Code::WrongCluster, false),
        (Code::Unauthenticated, false),
        (Code::Forbidden, false),
        (Code::BadFrame, false),
        (Code::BadProtocolVersion, false),
        (Code::Internal, false),
        (Code::Timeout, false),
        (Code::NoSuchTarget, false),
        (Code::DiskFailed, false),
    ];
    for (code, ends) in rows {
        let mut head = head_of_two();
        let attempt = sent(&head.write(1)).unwrap();
        head.stored();
        let out = head.forwarded(attempt, Err(code));
        assert_eq!(refusals(&out), if ends { vec![code] } else { vec![] }, "{code:?}");
        let again = sent(&head.later(limits::FORWARD_RETRY_FIRST));
        assert_eq!(again.is_some(), !ends, "{code:?}");
    }
}

#[test]
fn a_commit_waits_for_space_in_the_index() {
    let mut head = alone();
    head.write(1);
    assert_eq!(stores(&head.stored()), ["commit"]);
    let full = || Input::Stored { chunk: place(), result: Err(Code::NoSpace.into()) };
    assert!(head.step(full()).is_empty(), "not at once");
    assert!(head.target.failure().is_none() && !reads_disk(&head.read()));
    let call = head.call();
    let elsewhere = head.step(Input::Read { call, chunk: chunk(8, 0) });
    assert!(matches!(elsewhere[..], [Output::Reply { reply: Reply::Read(Ok(_)), .. }]));
    assert_eq!(stores(&head.later(limits::FORWARD_RETRY_FIRST)), ["commit"]);
    assert!(reads_disk(&head.stored()), "the read that waited");
}

/// Payloads that the machine holds are counted by the clones of one `Bytes`.
#[test]
fn a_large_payload_is_let_go_once_nobody_needs_it_from_memory() {
    let write = |payload: &Bytes| Change::Write {
        offset: 0,
        length: payload.len() as u32,
        payload: payload.clone(),
    };
    let size = 2 * SIZE;
    let forward_of = |tail: &Bench, payload: &Bytes| Forward {
        chunk_size: size,
        ..tail.forward_of(1, id(2, 1), None, write(payload))
    };
    // Behind the head: once it holds here and behind.
    let payload = Bytes::from(vec![7; SIZE as usize + 1]);
    let mut tail = tail_of_two();
    let (call, forward) = (tail.call(), forward_of(&tail, &payload));
    tail.step(Input::Forward { call, forward });
    assert!(!payload.is_unique());
    assert_eq!(versions_done(&tail.stored()), [1]);
    assert!(payload.is_unique(), "only the test has it");

    // At the head: while the successor has no memory for it. Then the store's bytes are sent.
    let payload = Bytes::from(vec![7; SIZE as usize + 1]);
    let mut head = head_of_two();
    let update = Update {
        chain_version: cv(2),
        chunk: place(),
        change: write(&payload),
        chunk_size: size,
        tag: None,
    };
    let call = head.call();
    let attempt = sent(&head.step(Input::Update { call, update })).unwrap();
    head.stored();
    head.forwarded(attempt, Err(Code::Busy));
    assert!(payload.is_unique());
    let out = head.later(limits::FORWARD_RETRY_FIRST);
    assert!(matches!(out[..], [Output::ForwardFull { .. }]), "{out:?}");
    assert_eq!(versions_done(&head.forwarded(sent(&out).unwrap(), Ok(()))), [1]);
}

#[test]
fn a_full_queue_of_writers_leaves_every_entry_for_a_retry() {
    let mut head = alone();
    let admitted = limits::WAITING_UPDATES_PER_CHUNK as u32 + 1;
    let ask = |head: &mut Bench, channel| {
        let tag = Some(pb::UpdateTag { session: 1, channel, seq: 1, ack_below: 0 });
        let (chunk, change, chunk_size) = (place(), write(1), SIZE);
        let update = Update { chain_version: cv(2), chunk, change, chunk_size, tag };
        let call = head.call();
        head.step(Input::Update { call, update })
    };
    for channel in 0..admitted {
        ask(&mut head, channel);
    }
    let mut done = 0;
    while head.target.live_chunks() > 0 {
        done += versions_done(&head.stored()).len();
    }
    assert_eq!(done, admitted as usize);
    for channel in 0..admitted {
        let out = ask(&mut head, channel);
        let version = u64::from(channel) + 1;
        assert_eq!((versions_done(&out), stores(&out)), (vec![version], vec![]), "{channel}");
    }
}
