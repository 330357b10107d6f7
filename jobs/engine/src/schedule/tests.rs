use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn schedule(blocks: usize) -> Schedule {
    let limits = Limits { block_tokens: 4, max_running: 4, prefill_chunk: 8, draft_running_max: 4 };
    Schedule::new(limits, blocks, Key([0; 32]))
}

/// Carries out a plan as if each sequence's next token were its length.
fn carry_out(schedule: &mut Schedule, plan: &Plan) {
    for work in &plan.work {
        let known = work.tokens.len() - usize::from(work.drafted);
        schedule.computed(work.id, known);
        if work.samples {
            schedule.push(work.id, u32::try_from(work.from + known).unwrap());
        }
    }
}

#[test]
fn decodes_come_with_a_chunk_of_the_prompts() {
    let mut schedule = schedule(64);
    schedule.add(Sequence::new(Id(1), vec![9; 5], 0, true));
    schedule.add(Sequence::new(Id(2), (0..12).collect(), 0, true));
    let parts = |plan: &Plan| {
        plan.work.iter().map(|w| (w.id.0, w.from, w.tokens.len(), w.samples)).collect::<Vec<_>>()
    };
    let plan = schedule.plan();
    assert_eq!(parts(&plan), [(1, 0, 5, true), (2, 0, 3, false)]);
    carry_out(&mut schedule, &plan);
    let plan = schedule.plan();
    assert_eq!(parts(&plan), [(1, 5, 1, true), (2, 3, 8, false)]);
    carry_out(&mut schedule, &plan);
    let plan = schedule.plan();
    assert_eq!(parts(&plan), [(1, 6, 1, true), (2, 11, 1, true)]);
}

#[test]
fn a_prompt_seen_before_is_not_computed_again() {
    let mut schedule = schedule(64);
    schedule.add(Sequence::new(Id(1), (0..12).collect(), 0, true));
    for _ in 0..2 {
        let plan = schedule.plan();
        carry_out(&mut schedule, &plan);
    }
    schedule.finish(Id(1));
    schedule.add(Sequence::new(Id(2), (0..12).collect(), 0, true));
    schedule.add(Sequence::new(Id(3), (0..9).collect(), 0, false));
    let plan = schedule.plan();
    // Of three full blocks the last is computed again: its last token's logits are wanted.
    assert_eq!((plan.work[0].from, plan.work[1].from), (8, 0));
    assert_eq!(schedule.get(Id(2)).unwrap().cached, Some(8));
}

#[test]
fn forks_share_a_prompt_and_copy_the_block_they_write_to() {
    let mut schedule = schedule(64);
    schedule.add(Sequence::new(Id(1), vec![7; 6], 1, true));
    let plan = schedule.plan();
    carry_out(&mut schedule, &plan);
    let token = schedule.running[0].tokens.pop().unwrap();
    schedule.fork(Id(1), Id(2));
    schedule.push(Id(1), token);
    schedule.push(Id(2), 5);
    let shared = schedule.get(Id(2)).unwrap().blocks.clone();
    let plan = schedule.plan();
    assert_eq!(plan.copies.len(), 1);
    assert_eq!(plan.copies[0].0, shared[1]);
    let blocks = |id| schedule.get(Id(id)).unwrap().blocks.clone();
    assert_eq!(blocks(1)[0], blocks(2)[0]);
    assert_ne!(blocks(1)[1], blocks(2)[1]);
}

#[test]
fn the_newest_gives_way() {
    let mut schedule = schedule(4);
    schedule.add(Sequence::new(Id(1), vec![1; 7], 0, true));
    schedule.add(Sequence::new(Id(2), vec![2; 7], 0, true));
    let mut preempted = None;
    for step in 0..8 {
        let plan = schedule.plan();
        carry_out(&mut schedule, &plan);
        if schedule.counts.preemptions == 1 {
            preempted.get_or_insert(step);
            assert_eq!(plan.work.iter().map(|w| w.id).collect::<Vec<_>>(), [Id(1)]);
        }
    }
    assert!(preempted.is_some());
    schedule.finish(Id(1));
    assert_eq!(schedule.plan().work[0].id, Id(2));
}

/// What a test does beside the steps.
#[derive(Debug, Clone)]
enum Doing {
    Add { prompt: usize, alphabet: u32, answer: usize, forks: usize },
    Cancel(u64),
    Draft(u64),
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        (1..20usize, 1..3u32, 1..12usize, 0..3usize).prop_map(
            |(prompt, alphabet, answer, forks)| { Doing::Add { prompt, alphabet, answer, forks } }
        ),
        (0..24u64).prop_map(Doing::Cancel),
        (0..24u64).prop_map(Doing::Draft),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives and leaves: plans stay within their bounds, no block is written by two or while it may be
    /// found, each token is computed from all before it, everything ends, and no block is lost.
    #[test]
    fn everything_ends_and_no_block_is_lost(doings in prop::collection::vec(doing(), 1..30)) {
        let mut schedule = schedule(9);
        let mut wanted: BTreeMap<Id, usize> = BTreeMap::new();
        let mut doings = doings.into_iter();
        let mut next_id = 0;
        let mut steps = 0;
        loop {
            match doings.next() {
                Some(Doing::Add { prompt, alphabet, answer, forks }) => {
                    let tokens: Vec<u32> =
                        (0..prompt).map(|at| u32::try_from(at).unwrap() / 7 % alphabet).collect();
                    wanted.insert(Id(next_id), prompt + answer);
                    schedule.add(Sequence::new(Id(next_id), tokens, forks, true));
                    next_id += 1;
                }
                Some(Doing::Cancel(id)) => {
                    wanted.remove(&Id(id));
                    schedule.finish(Id(id));
                }
                Some(Doing::Draft(id)) => schedule.set_draft(Id(id), 0),
                None if schedule.is_idle() => break,
                None => {}
            }
            steps += 1;
            prop_assert!(steps < 3000, "no end: {schedule:?}");
            let plan = schedule.plan();
            schedule.check();
            prop_assert_eq!(plan.work.is_empty(), schedule.is_idle());
            let prefilled: usize =
                plan.work.iter().filter(|w| w.prefill).map(|w| w.tokens.len()).sum();
            prop_assert!(prefilled <= 8);
            let mut written = std::collections::BTreeSet::new();
            for work in &plan.work {
                prop_assert_eq!(work.from, schedule.get(work.id).unwrap().computed);
                let end = work.from + work.tokens.len();
                prop_assert!(work.blocks.len() * 4 >= end);
                for block in &work.blocks[work.from / 4..end.div_ceil(4)] {
                    prop_assert!(!schedule.blocks.is_shared(*block));
                    prop_assert!(written.insert(*block), "{block:?} is written by two");
                }
            }
            for work in &plan.work {
                let known = work.tokens.len() - usize::from(work.drafted);
                schedule.computed(work.id, known);
                if !work.samples {
                    continue;
                }
                while schedule.get(work.id).unwrap().forks > 0 {
                    schedule.fork(work.id, Id(next_id));
                    wanted.insert(Id(next_id), wanted[&work.id]);
                    schedule.push(Id(next_id), 1);
                    next_id += 1;
                }
                schedule.push(work.id, 0);
            }
            let ended = |id: &Id, len: &usize| schedule.get(*id).is_some_and(|s| s.tokens.len() >= *len);
            let done: Vec<Id> =
                wanted.iter().filter(|(id, len)| ended(id, len)).map(|(id, _)| *id).collect();
            for id in done {
                schedule.finish(id);
            }
        }
        prop_assert_eq!(schedule.blocks.available(), 9);
    }
}
