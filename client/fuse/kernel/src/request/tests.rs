use proptest::prelude::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::*;
use crate::abi::{self, InHeader, opcode};

fn header(operation: u32) -> InHeader {
    let mut header = InHeader::new_zeroed();
    (header.opcode, header.inode) = (operation, 42);
    header
}

fn decoded(operation: u32, args: &[u8], rest: &[u8]) -> Result<Operation, Malformed> {
    match decode(&header(operation), args, rest)? {
        Decoded::Operation(operation) => Ok(operation),
        Decoded::Notice(notice) => panic!("{notice:?}"),
    }
}

#[test]
fn names_end_with_a_nul() {
    let Ok(Operation::Lookup { name }) = decoded(opcode::LOOKUP, &[], b"a\0rest") else { panic!() };
    assert_eq!(name, b"a");
    let without = decoded(opcode::LOOKUP, &[], b"abc").unwrap_err();
    assert_eq!(without, Malformed::NameWithoutEnd { opcode: 1 });
    let args = [7_u64.to_ne_bytes(), 2_u64.to_ne_bytes()].concat();
    let rename = decoded(opcode::RENAME2, &args, b"old\0new\0").unwrap();
    let Operation::Rename { name, new_parent, new_name, flags } = rename else { panic!() };
    assert_eq!((&name[..], new_parent, &new_name[..], flags), (&b"old"[..], 7, &b"new"[..], 2));
    assert!(decoded(opcode::RENAME2, &args, b"old\0new").is_err(), "the second one as well");
}

#[test]
fn counts_must_hold() {
    let mut args = abi::WriteIn::new_zeroed();
    (args.handle, args.offset, args.size) = (3, 4096, 5);
    let write = decoded(opcode::WRITE, args.as_bytes(), b"12345").unwrap();
    let Operation::Write(write) = write else { panic!() };
    assert_eq!((write.handle, write.offset), (3, 4096));
    let short = decoded(opcode::WRITE, args.as_bytes(), b"1234").unwrap_err();
    assert_eq!(short, Malformed::WrongPayload { opcode: 16, has: 4, says: 5 });
    let args = decoded(opcode::READ, &[0; 39], &[]).unwrap_err();
    assert_eq!(args, Malformed::ShortArguments { opcode: 15, has: 39, needs: 40 });
    let mut set = abi::SetXattrIn::new_zeroed();
    set.size = 3;
    let xattr = decoded(opcode::SETXATTR, set.as_bytes(), b"user.a\0val").unwrap();
    let Operation::SetXattr { name, value, .. } = xattr else { panic!() };
    assert_eq!((&name[..], &value[..]), (&b"user.a"[..], &b"val"[..]));
    decoded(opcode::SETXATTR, set.as_bytes(), b"user.a\0va").unwrap_err();
}

#[test]
fn forgotten_inodes_are_counted() {
    let one = decode(&header(opcode::FORGET), &3_u64.to_ne_bytes(), &[]).unwrap();
    assert!(matches!(one, Decoded::Notice(Notice::Forget(list)) if list == [(42, 3)]));
    let list = [1_u64, 10, 2, 20].map(u64::to_ne_bytes).concat();
    let count = |count: u32| [count, 0].map(u32::to_ne_bytes).concat();
    let batch = header(opcode::BATCH_FORGET);
    let two = decode(&batch, &count(2), &list).unwrap();
    assert!(matches!(two, Decoded::Notice(Notice::Forget(list)) if list == [(1, 10), (2, 20)]));
    decode(&batch, &count(3), &list).unwrap_err();
    decode(&batch, &count(u32::MAX), &list).unwrap_err();
}

#[test]
fn what_is_not_marked_stays() {
    let mut args = abi::SetAttrIn::new_zeroed();
    (args.valid, args.mode, args.size) = (abi::setattr::MODE, 0o600, 9);
    let Ok(Operation::SetAttr(set)) = decoded(opcode::SETATTR, args.as_bytes(), &[]) else {
        panic!()
    };
    assert_eq!(set, SetAttr { mode: Some(0o600), ..SetAttr::default() });
    args.valid = abi::setattr::ATIME | abi::setattr::MTIME | abi::setattr::MTIME_NOW;
    (args.atime, args.atime_ns, args.mtime) = (-1, 5, i64::MAX);
    let Ok(Operation::SetAttr(set)) = decoded(opcode::SETATTR, args.as_bytes(), &[]) else {
        panic!()
    };
    assert_eq!((set.atime, set.mtime), (Some(SetTime::At(-999_999_995)), Some(SetTime::Now)));
}

#[test]
fn a_flock_is_told_from_a_range() {
    let mut args = abi::LockIn::new_zeroed();
    args.lock_flags = 1;
    let asked = decoded(opcode::SETLKW, args.as_bytes(), &[]).unwrap();
    assert!(matches!(asked, Operation::SetLock { lock, wait: true } if lock.is_flock));
    args.lock_flags = 0;
    let asked = decoded(opcode::SETLK, args.as_bytes(), &[]).unwrap();
    assert!(matches!(asked, Operation::SetLock { lock, wait: false } if !lock.is_flock));
}

#[test]
fn to_let_a_lock_go_never_waits() {
    let mut args = abi::LockIn::new_zeroed();
    for (kind, opcode, stays) in [
        (libc::F_WRLCK, opcode::SETLKW, true),
        (libc::F_RDLCK, opcode::SETLKW, true),
        (libc::F_UNLCK, opcode::SETLKW, false),
        (libc::F_WRLCK, opcode::SETLK, false),
    ] {
        args.kind = kind.cast_unsigned();
        let asked = decoded(opcode, args.as_bytes(), &[]).unwrap();
        assert_eq!(asked.may_stay(), stays, "{kind} {opcode}");
    }
}

proptest! {
    /// Whatever comes, it is an operation or an error.
    #[test]
    fn garbage_is_decoded_or_refused(
        operation in 0_u32..60,
        args in prop::collection::vec(any::<u8>(), 0..140),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Err(malformed) = decode(&header(operation), &args, &rest) {
            prop_assert!(!malformed.to_string().is_empty());
        }
    }
}

/// A message that lost its end is never taken for a shorter one of the same operation.
#[test]
fn truncated_arguments_are_refused() {
    // Nothing of these is looked at.
    let ignored = [opcode::OPENDIR, opcode::COPY_FILE_RANGE_64];
    let mut refused = 0;
    for operation in (0..60).filter(|operation| !ignored.contains(operation)) {
        for len in 0..args_bytes(operation) {
            let outcome = decode(&header(operation), &vec![0; len], b"a\0b\0");
            let needs = args_bytes(operation);
            let expected = Malformed::ShortArguments { opcode: operation, has: len, needs };
            assert_eq!(outcome.unwrap_err(), expected);
            refused += 1;
        }
    }
    assert!(refused > 500, "{refused}");
}

/// Messages as the device brings them.
fn messages() -> Vec<Vec<u8>> {
    let names = b"old\0new\0user.a\0value and more of it".as_slice();
    let message = |operation| {
        let args = vec![1; args_bytes(operation)];
        let len = size_of::<InHeader>() + args.len() + names.len();
        let mut header = header(operation);
        header.len = len as u32;
        [header.as_bytes(), &args, names].concat()
    };
    (0..60).map(message).collect()
}

/// The arguments lie in front of names and data on either way.
#[test]
fn damaged_requests() {
    ff2_fuzz::target!(messages(), |bytes| {
        let Ok((header, behind)) = InHeader::read_from_prefix(bytes) else { return };
        let (args, rest) = behind.split_at(args_bytes(header.opcode).min(behind.len()));
        let decoded = ff2_fuzz::bounded(bytes, || decode(&header, args, rest));
        let names: Vec<Vec<u8>> = match decoded {
            Err(malformed) => return assert!(!malformed.to_string().is_empty()),
            Ok(Decoded::Notice(Notice::Forget(list))) => {
                return assert!(list.len() <= 1 + rest.len() / 16, "each was sent");
            }
            Ok(Decoded::Operation(Operation::Lookup { name })) => vec![name],
            Ok(Decoded::Operation(Operation::Symlink { name, target })) => vec![name, target],
            Ok(Decoded::Operation(Operation::Rename { name, new_name, .. })) => {
                vec![name, new_name]
            }
            Ok(Decoded::Operation(Operation::SetXattr { name, value, .. })) => {
                assert!(value.len() <= rest.len());
                vec![name]
            }
            Ok(_) => vec![],
        };
        assert!(names.iter().all(|name| !name.contains(&0)), "{names:?}");
    });
}
