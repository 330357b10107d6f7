//! The table against a plain model: for each owner and byte, nothing, a shared or an exclusive lock.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BYTES: u64 = 12;

fn lock(owner: u64, start: u64, end: u64, exclusive: bool) -> Lock {
    Lock { session: 1 + owner / 2, owner, start, end, exclusive, pid: 7, ..Lock::default() }
}

fn ranges(table: &Table, owner: u64) -> Vec<(u64, u64, bool)> {
    let of = table.held().iter().filter(|lock| lock.owner == owner);
    of.map(|lock| (lock.start, lock.end, lock.exclusive)).collect()
}

#[test]
fn ranges_are_cut_and_joined() {
    let mut table = Table::default();
    let mut set = |start, end, exclusive| {
        assert_eq!(table.try_set(&lock(0, start, end, exclusive)), Outcome::Granted);
        ranges(&table, 0)
    };
    assert_eq!(set(10, 19, true), [(10, 19, true)]);
    assert_eq!(set(20, 29, true), [(10, 29, true)], "side by side");
    assert_eq!(set(15, 17, false), [(10, 14, true), (15, 17, false), (18, 29, true)], "downgrade");
    assert_eq!(set(0, u64::MAX, true), [(0, u64::MAX, true)], "upgrade of all");
    table.unlock(&lock(0, 5, 5, false));
    assert_eq!(ranges(&table, 0), [(0, 4, true), (6, u64::MAX, true)]);
    table.unlock(&lock(0, 0, u64::MAX, false));
    assert!(table.is_empty());
}

#[test]
fn who_appends_keeps_only_others_from_it() {
    let mut table = Table::default();
    let append = |owner| Lock { append: true, ..lock(owner, 0, u64::MAX, true) };
    assert_eq!(table.try_set(&append(0)), Outcome::Granted);
    assert_eq!(table.try_set(&append(2)), Outcome::Refused(append(0)));
    assert_eq!(table.try_set(&lock(2, 0, u64::MAX, true)), Outcome::Granted);
    let flock = Lock { flock: true, ..lock(2, 0, u64::MAX, true) };
    assert_eq!(table.try_set(&flock), Outcome::Granted);
    table.enqueue(Lock { ticket: 5, ..append(2) });
    table.unlock(&append(0));
    assert_eq!(table.grant(), [LockGrant { session: 2, ticket: 5 }]);
}

#[test]
fn whole_file_locks_are_a_world_of_their_own() {
    let mut table = Table::default();
    let flock = |owner, exclusive| Lock { flock: true, ..lock(owner, 0, u64::MAX, exclusive) };
    assert_eq!(table.try_set(&flock(0, true)), Outcome::Granted);
    assert_eq!(table.try_set(&lock(3, 0, 9, true)), Outcome::Granted);
    assert_eq!(table.try_set(&flock(3, false)), Outcome::Refused(flock(0, true)));
    table.unlock(&lock(0, 0, u64::MAX, true));
    assert_eq!(table.held().len(), 2, "its ranges are not its flock");
}

#[test]
fn waits_are_served_in_their_order() {
    let mut table = Table::default();
    let wait = |owner, exclusive, ticket| Lock { ticket, ..lock(owner, 0, 9, exclusive) };
    table.try_set(&lock(0, 0, 9, true));
    for want in [wait(2, false, 11), wait(4, true, 12), wait(6, false, 13), wait(6, false, 14)] {
        assert!(matches!(table.try_set(&want), Outcome::Refused(_)));
        table.enqueue(want);
    }
    assert!(table.grant().is_empty());
    assert!(table.cancel(4, 14) && !table.cancel(4, 14) && !table.cancel(9, 13));
    table.unlock(&lock(0, 0, 9, true));
    let tickets = |grants: Vec<LockGrant>| grants.iter().map(|g| g.ticket).collect::<Vec<_>>();
    assert_eq!(tickets(table.grant()), [11, 13], "readers share");
    table.unlock(&lock(2, 0, 9, true));
    assert!(table.grant().is_empty(), "one reader is left");
    table.drop_session(4);
    assert_eq!(tickets(table.grant()), [12]);
    assert_eq!(ranges(&table, 4), [(0, 9, true)]);
    assert!(table.waiting().is_empty());
}

/// Bytes of one owner: exclusive or not.
type Model = BTreeMap<(u64, u64), bool>;

#[derive(Clone, Debug)]
enum Step {
    Set(Lock),
    Unlock(Lock),
    DropSession(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = (0..4_u64, 0..BYTES, 0..BYTES, any::<bool>())
        .prop_map(|(owner, a, b, exclusive)| lock(owner, a.min(b), a.max(b), exclusive));
    let step = (0..10_u8, range).prop_map(|(action, lock)| match action {
        0..=5 => Step::Set(lock),
        6..=8 => Step::Unlock(lock),
        _ => Step::DropSession(lock.session),
    });
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn the_table_is_what_a_map_of_bytes_says(steps in steps()) {
        let mut table = Table::default();
        let mut model = Model::new();
        let session = |owner: u64| 1 + owner / 2;
        for step in steps {
            match step {
                Step::Set(want) => {
                    let free = (want.start..=want.end).all(|byte| (0..4).all(|owner| {
                        let other = owner != want.owner;
                        let held = model.get(&(owner, byte));
                        !other || held.is_none_or(|exclusive| !exclusive && !want.exclusive)
                    }));
                    let granted = table.try_set(&want) == Outcome::Granted;
                    prop_assert_eq!(granted, free);
                    if granted {
                        model.extend((want.start..=want.end).map(|b| ((want.owner, b), want.exclusive)));
                    }
                }
                Step::Unlock(range) => {
                    table.unlock(&range);
                    model.retain(|(owner, byte), _| {
                        *owner != range.owner || !(range.start..=range.end).contains(byte)
                    });
                }
                Step::DropSession(over) => {
                    table.drop_session(over);
                    model.retain(|(owner, _), _| session(*owner) != over);
                }
            }
            let mut found = Model::new();
            for lock in table.held() {
                for byte in lock.start..=lock.end {
                    let twice = found.insert((lock.owner, byte), lock.exclusive);
                    prop_assert_eq!(twice, None, "an owner's ranges overlap");
                }
            }
            prop_assert_eq!(&found, &model);
            // Joined as far as they can be.
            for owner in 0..4 {
                let ranges = ranges(&table, owner);
                prop_assert!(ranges.windows(2).all(|w| w[0].1 + 1 < w[1].0 || w[0].2 != w[1].2));
            }
        }
    }
}

#[test]
fn who_is_served_twice_and_keeps_less_lets_others_in() {
    let mut table = Table::default();
    let wait = |owner, exclusive, ticket| Lock { ticket, ..lock(owner, 0, 9, exclusive) };
    table.try_set(&lock(0, 0, 9, true));
    for want in [wait(2, true, 11), wait(4, false, 12), wait(2, false, 13)] {
        table.enqueue(want);
    }
    table.unlock(&lock(0, 0, 9, true));
    let tickets: Vec<u64> = table.grant().iter().map(|grant| grant.ticket).collect();
    assert_eq!(tickets, [11, 13, 12]);
    assert!(table.waiting().is_empty() && table.held().iter().all(|lock| !lock.exclusive));
}
