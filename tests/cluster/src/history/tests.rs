//! What the search accepts, and above all what it refuses.

use super::{
    contents::{self, Register},
    names::{Action, Outcome, TwoNames},
    *,
};

fn write(
    client: usize,
    from: u64,
    to: u64,
    value: u64,
) -> Operation<contents::Action, Option<u64>> {
    let action = contents::Action::Write(value);
    Operation { client, called: from, action, returned: Some((to, None)) }
}

fn read(client: usize, from: u64, to: u64, value: u64) -> Operation<contents::Action, Option<u64>> {
    let action = contents::Action::Read;
    Operation { client, called: from, action, returned: Some((to, Some(value))) }
}

fn is_refused_at<M: Model>(history: &[Operation<M::Action, M::Outcome>], expected: usize) -> bool {
    matches!(
        check::<M>(history),
        Err(Refusal::NotLinearizable { operation, .. }) if operation == expected
    )
}

#[test]
fn a_read_after_a_write_that_returned_sees_it() {
    check::<Register>(&[write(0, 0, 10, 1), read(1, 11, 12, 1)]).unwrap();
    let stale = [write(0, 0, 10, 1), read(1, 11, 12, 0)];
    assert!(is_refused_at::<Register>(&stale, 1));
    // At the same time either is right.
    check::<Register>(&[write(0, 0, 10, 1), read(1, 9, 12, 0)]).unwrap();
    check::<Register>(&[write(0, 0, 10, 1), read(1, 9, 12, 1)]).unwrap();
    let never = [write(0, 0, 10, 1), read(1, 0, 12, 7)];
    assert!(is_refused_at::<Register>(&never, 1), "nobody wrote it");
}

#[test]
fn what_one_client_saw_no_other_sees_undone() {
    // The write takes long. One client sees it, and then another, which cached, does not.
    let history = [write(0, 0, 100, 1), read(1, 10, 20, 1), read(2, 30, 40, 0)];
    assert!(is_refused_at::<Register>(&history, 2));
    check::<Register>(&[write(0, 0, 100, 1), read(1, 10, 30, 1), read(2, 20, 40, 0)]).unwrap();
}

#[test]
fn two_readers_agree_on_the_order_of_two_writes() {
    let writes = [write(0, 0, 10, 1), write(1, 0, 10, 2)];
    let agree = [read(2, 20, 30, 2), read(3, 20, 30, 2)];
    let differ = [read(2, 20, 30, 2), read(3, 20, 30, 1)];
    let with = |reads: &[Operation<_, _>]| [&writes[..], reads].concat();
    check::<Register>(&with(&agree)).unwrap();
    assert!(matches!(check::<Register>(&with(&differ)), Err(Refusal::NotLinearizable { .. })));
}

#[test]
fn a_write_that_nobody_knows_of_may_happen_late_or_never() {
    let unknown = Operation { returned: None, ..write(0, 0, 0, 1) };
    check::<Register>(&[unknown.clone(), read(1, 10, 20, 0), read(1, 30, 40, 1)]).unwrap();
    check::<Register>(&[unknown.clone(), read(1, 10, 20, 0), read(1, 30, 40, 0)]).unwrap();
    let back = [unknown, read(1, 10, 20, 1), read(1, 30, 40, 0)];
    assert!(is_refused_at::<Register>(&back, 2), "but not be undone");
}

fn did(client: usize, from: u64, to: u64, action: Action, outcome: Outcome) -> NameOperation {
    Operation { client, called: from, action, returned: Some((to, outcome)) }
}

type NameOperation = Operation<Action, Outcome>;

#[test]
fn exclusive_creates_and_renames_have_one_winner() {
    let create = |client, file| did(client, 0, 10, Action::Create(0, file), Outcome::Created(file));
    assert!(is_refused_at::<TwoNames>(&[create(0, 7), create(1, 8)], 1));
    let loser = did(1, 0, 10, Action::Create(0, 8), Outcome::Exists);
    check::<TwoNames>(&[create(0, 7), loser]).unwrap();
    let rename = |client, outcome| did(client, 20, 30, Action::RenameTo(1), outcome);
    // Of a rename and a removal one finds nothing.
    let removal = did(1, 20, 30, Action::Unlink(0), Outcome::Done);
    assert!(is_refused_at::<TwoNames>(&[create(0, 7), rename(0, Outcome::Done), removal], 2));
    let one = [create(0, 7), rename(0, Outcome::Done), rename(1, Outcome::NotFound)];
    check::<TwoNames>(&one).unwrap();
}

#[test]
fn a_name_is_gone_when_its_removal_returned() {
    let create = did(0, 0, 10, Action::Create(0, 7), Outcome::Created(7));
    let link = did(0, 11, 20, Action::LinkTo(1), Outcome::Done);
    let unlink = did(1, 30, 40, Action::Unlink(0), Outcome::Done);
    let stat = |from, name, outcome| did(2, from, from + 1, Action::Stat(name), outcome);
    let history = |last: &[NameOperation]| {
        [&[create.clone(), link.clone(), unlink.clone()][..], last].concat()
    };
    let found = Outcome::Found(7);
    check::<TwoNames>(&history(&[stat(25, 0, found.clone()), stat(50, 1, found.clone())])).unwrap();
    assert!(is_refused_at::<TwoNames>(&history(&[stat(50, 0, found)]), 3), "a stale name");
    assert!(is_refused_at::<TwoNames>(&history(&[stat(50, 1, Outcome::NotFound)]), 3));
    assert!(is_refused_at::<TwoNames>(&history(&[stat(50, 1, Outcome::Found(8))]), 3));
}

#[test]
fn a_file_that_nobody_saw_made_is_known_from_its_first_look() {
    let unknown = Operation {
        client: 0,
        called: 0,
        action: Action::Create(0, 1),
        returned: None::<(u64, Outcome)>,
    };
    let stat = |from, file| did(1, from, from + 1, Action::Stat(0), Outcome::Found(file));
    check::<TwoNames>(&[unknown.clone(), stat(10, 7), stat(20, 7)]).unwrap();
    assert!(is_refused_at::<TwoNames>(&[unknown, stat(10, 7), stat(20, 8)], 2));
}

/// Histories that did happen in one order, whatever their overlaps, are accepted.
#[test]
fn true_histories_are_accepted() {
    let mut random = 1_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for _ in 0..50 {
        let mut names = TwoNames::initial();
        let mut history = Vec::new();
        for moment in 0..60_u64 {
            let name = below(2) as usize;
            let action = match below(5) {
                0 => Action::Create(name, moment),
                1 => Action::Unlink(name),
                2 => Action::RenameTo(name),
                3 => Action::LinkTo(name),
                _ => Action::Stat(name),
            };
            // The outcome that fits is the one that the model accepts.
            let mut outcomes = vec![Outcome::Done, Outcome::NotFound, Outcome::Exists];
            outcomes.push(Outcome::Created(100 + moment));
            outcomes.extend(names.into_iter().flatten().map(Outcome::Found));
            let mut outcomes = outcomes.into_iter();
            let fits = outcomes.find_map(|outcome| {
                Some((TwoNames::step(&names, &action, Some(&outcome))?, outcome))
            });
            let (after, outcome) = fits.expect("one fits");
            names = after;
            let (called, returned) =
                (100 * moment + 100 - below(90), 100 * moment + 100 + below(90));
            history.push(did(0, called, returned, action, outcome));
        }
        check::<TwoNames>(&history).unwrap();
    }
}
