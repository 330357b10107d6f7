//! Small files: bytes beside the inode, and the move to chunks.

use bytes::Bytes;
use ff2_proto::{
    limits::INLINE_BYTES_MAX,
    pb::{self, Code, ns_request::Op},
};

use crate::{
    ops::*,
    volume::{Volume, Who},
};

const ROOT: u64 = 1;

fn write(offset: u32, text: &str) -> pb::InlineWrite {
    pb::InlineWrite { offset, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn tell(inode: u64, writes: &[pb::InlineWrite]) -> Op {
    let inline_writes = writes.to_vec();
    Op::ReportLength(pb::ReportLengthOp { inode, inline_writes, ..Default::default() })
}

fn close_with(inode: u64, writes: &[pb::InlineWrite]) -> Op {
    let inline_writes = writes.to_vec();
    Op::Close(pb::CloseOp { inode, inline_writes, wrote: true, ..Default::default() })
}

fn spill(inode: u64) -> Op {
    Op::Spill(pb::SpillOp { inode })
}

/// Size, and the bytes that there are.
fn read(v: &mut Volume, who: &Who, inode: u64) -> (u64, Bytes) {
    let op = Op::ReadInline(pb::ReadInlineOp { inode, ..Default::default() });
    let reply = v.ask(who, op).unwrap();
    (reply.attr.unwrap().size, reply.inline_data)
}

/// A volume with an inline file that its maker has open for writing.
fn inline_file() -> (Volume, Who, u64) {
    let (mut v, root) = Volume::with_root();
    let op = pb::CreateOp { write: true, inline: true, ..open_or_create(ROOT, "f", 0o644) };
    let attr = v.ask(&root, Op::Create(op)).unwrap().attr.unwrap();
    assert!(attr.inline && attr.layout.is_some());
    (v, root, attr.inode)
}

#[test]
fn writes_of_several_sessions_meet_in_the_bytes() {
    let (mut v, root, file) = inline_file();
    let other = v.user(0, 0, &[]);
    v.ask(&other, open_write(file)).unwrap();
    v.ask(&root, tell(file, &[write(0, "aaaa"), write(6, "bb")])).unwrap();
    assert_eq!(read(&mut v, &root, file), (8, Bytes::from_static(b"aaaa\0\0bb")));
    let attr = v.ask(&other, close_with(file, &[write(2, "cccc")])).unwrap().attr.unwrap();
    assert!(attr.inline && attr.size == 8);
    assert_eq!(read(&mut v, &root, file).1, b"aaccccbb".as_slice());
    assert_eq!(v.ask(&other, tell(file, &[write(0, "x")])), Err(Code::BadHandle));
    let reply = v.ask(&root, open_read(file)).unwrap();
    assert_eq!(reply.inline_data, b"aaccccbb".as_slice(), "an open brings them");
}

#[test]
fn what_is_too_long_is_refused_as_a_whole() {
    let (mut v, root, file) = inline_file();
    let last = write(INLINE_BYTES_MAX - 1, "x");
    v.ask(&root, tell(file, &[last])).unwrap();
    let beyond = [write(0, "y"), write(INLINE_BYTES_MAX, "x")];
    assert_eq!(v.ask(&root, tell(file, &beyond)), Err(Code::InvalidArgument));
    let far = [write(u32::MAX, "x")];
    assert_eq!(v.ask(&root, tell(file, &far)), Err(Code::InvalidArgument));
    let (size, bytes) = read(&mut v, &root, file);
    assert_eq!((size, bytes[0]), (INLINE_BYTES_MAX.into(), 0));
}

#[test]
fn cutting_and_growing_need_no_chunk() {
    let (mut v, root, file) = inline_file();
    v.ask(&root, tell(file, &[write(0, "abcdef")])).unwrap();
    for (size, bytes) in [(3, "abc"), (1 << 30, "abc"), (5, "abc"), (0, ""), (9, "")] {
        let reply = v.ask(&root, truncate(file, size)).unwrap();
        assert_eq!(reply.truncation, None, "{size}");
        assert_eq!(read(&mut v, &root, file), (size, Bytes::from(bytes)), "{size}");
    }
    v.ask(&root, tell(file, &[write(2, "x")])).unwrap();
    assert_eq!(read(&mut v, &root, file), (9, Bytes::from_static(b"\0\0x")));
}

#[test]
fn an_empty_file_moves_to_chunks_at_once() {
    let (mut v, root, file) = inline_file();
    let reply = v.ask(&root, spill(file)).unwrap();
    assert_eq!((reply.attr.unwrap().inline, reply.truncation), (false, None));
    assert!(!v.attr(file).inline);
    assert_eq!(v.ask(&root, tell(file, &[write(0, "x")])), Err(Code::NotInline));
    v.ask(&root, report(file, 1 << 20)).unwrap();
    let again = v.ask(&root, spill(file)).unwrap();
    assert_eq!((again.attr.unwrap().size, again.truncation), (1 << 20, None), "nothing to do");
}

#[test]
fn bytes_move_to_the_first_chunk_before_anybody_looks() {
    let (mut v, root, file) = inline_file();
    let other = v.user(0, 0, &[]);
    v.ask(&other, open_write(file)).unwrap();
    v.ask(&root, tell(file, &[write(0, "abc")])).unwrap();
    let before = v.attr(file).version;
    let reply = v.ask(&other, spill(file)).unwrap();
    assert!(!reply.attr.unwrap().inline, "so it is when the answer leaves");
    let truncation = reply.truncation.unwrap();
    assert_eq!((truncation.spill.as_ref(), truncation.uncertain), (b"abc".as_slice(), false));
    for op in [tell(file, &[write(0, "x")]), open_write(file), truncate(file, 0), spill(file)] {
        assert_eq!(v.ask(&root, op), Err(Code::Busy));
    }
    let list = pb::ListTruncatingOp { after_inode: 0, limit: 0 };
    let listed = v.lead(Op::ListTruncating(list)).unwrap().truncations;
    assert_eq!(listed, std::slice::from_ref(&truncation), "a new leader finds it");
    v.lead(finish_truncate(file, truncation.truncate_version)).unwrap();
    let attr = v.attr(file);
    assert_eq!((attr.inline, attr.size), (false, 3));
    assert!(attr.version > before, "what others remember of it is void");
    assert_eq!(v.ask(&root, tell(file, &[write(0, "x")])), Err(Code::NotInline));
    v.lead(finish_truncate(file, truncation.truncate_version)).unwrap();
    v.ask(&root, close(file, 3)).unwrap();
    v.ask(&other, close(file, 3)).unwrap();
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    let orphan = v.orphans().remove(0);
    assert_eq!((orphan.size, orphan.layout.is_some()), (3, true), "its chunk is collected");
}

#[test]
fn a_removed_inline_file_leaves_nothing() {
    let (mut v, root, file) = inline_file();
    v.ask(&root, tell(file, &[write(0, "abc")])).unwrap();
    v.ask(&root, unlink(ROOT, "f")).unwrap();
    let orphan = v.orphans().remove(0);
    assert_eq!((orphan.layout, orphan.uncertain), (None, false), "no chunk can exist");
    v.ask(&root, tell(file, &[write(3, "d")])).unwrap();
    assert_eq!(read(&mut v, &root, file).1, b"abcd".as_slice(), "while it is open");
    v.lead(collect(&[file])).unwrap();
    assert!(v.kv.pairs().all(|(key, _)| key[0] != b'B'), "the bytes are gone");
}

#[test]
fn only_writers_move_a_file() {
    let (mut v, root, file) = inline_file();
    let other = v.user(0, 0, &[]);
    assert_eq!(v.ask(&other, spill(file)), Err(Code::BadHandle));
    v.ask(&root, close_with(file, &[write(0, "x")])).unwrap();
    assert_eq!(v.ask(&root, spill(file)), Err(Code::BadHandle));
}
