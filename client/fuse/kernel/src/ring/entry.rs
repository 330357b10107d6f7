//! One entry of a queue: the memory by which a request comes and its answer goes.

use std::sync::Arc;

use ff2_fabric::{Buf, BufPool};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    abi::{InHeader, OutHeader, RingEntry, opcode, uring},
    reply::Reply,
    request::{self, Decoded, Malformed, Operation, Payload},
};

#[derive(Debug)]
pub(super) struct Entry {
    /// Its place among those of the ring.
    pub(super) queue: usize,
    header: Buf,
    /// Of one buffer.
    pool: Arc<BufPool>,
    /// Here whenever the kernel has the entry.
    payload: Option<Buf>,
    payload_bytes: usize,
    payload_at: usize,
    /// What the kernel is told of both at the start.
    parts: Box<[libc::iovec; 2]>,
}

// SAFETY: the addresses in `parts` are those of `header` and of the pool's slab, which the entry keeps
// wherever it is; nobody but the kernel follows them.
unsafe impl Send for Entry {}

/// An answer on its way into an entry.
#[derive(Debug)]
pub(super) struct Commit {
    error: i32,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// The payload begins with it already.
    InPlace(usize),
    Elsewhere(Reply),
}

impl Entry {
    /// `payload_bytes`: at least what the largest request has.
    pub(super) fn new(queue: usize, payload_bytes: usize) -> Self {
        let payload_bytes = payload_bytes.next_power_of_two();
        let pool = BufPool::new(payload_bytes as u64);
        let mut payload = pool.try_get(payload_bytes).expect("nobody else has the pool");
        let mut header = Buf::unpooled(uring::HEADER_BYTES);
        let part =
            |buf: &mut Buf| libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let parts = Box::new([part(&mut header), part(&mut payload)]);
        let payload_at = payload.as_ptr().addr();
        Self { queue, header, pool, payload: Some(payload), payload_bytes, payload_at, parts }
    }

    /// Address of the array that names header and payload.
    pub(super) fn parts(&self) -> u64 {
        self.parts.as_ptr().addr() as u64
    }

    pub(super) fn room(&self) -> Arc<BufPool> {
        self.pool.clone()
    }

    pub(super) fn unique(&self) -> u64 {
        InHeader::read_from_prefix(&self.header).map_or(0, |(header, _)| header.unique)
    }

    pub(super) fn commit_id(&self) -> u64 {
        self.told().commit_id
    }

    fn told(&self) -> RingEntry {
        let bytes = &self.header[uring::ENTRY_AT..uring::HEADER_BYTES];
        RingEntry::read_from_bytes(bytes).expect("32 bytes")
    }

    /// The request that has arrived. The payload's memory is free after it, but for a write's.
    pub(super) fn take(&mut self) -> Result<(InHeader, Decoded), Malformed> {
        let payload = self.payload.take().expect("the kernel had the entry");
        let header = InHeader::read_from_prefix(&self.header).expect("it is larger").0;
        let follows = self.told().payload_bytes as usize;
        let args = &self.header[uring::OP_AT..uring::ENTRY_AT];
        let args = &args[..request::args_bytes(header.opcode).min(uring::OP_BYTES)];
        let (has, says) = (payload.len(), follows);
        let wrong = Malformed::WrongPayload { opcode: header.opcode, has, says };
        let rest = payload.get(..follows).ok_or(wrong)?;
        let mut decoded = request::decode(&header, args, rest)?;
        if header.opcode == opcode::WRITE
            && let Decoded::Operation(Operation::Write(write)) = &mut decoded
        {
            let bytes = payload.freeze().slice(..follows);
            write.payload = Payload { bytes, _share: None };
        }
        Ok((header, decoded))
    }

    pub(super) fn prepare(&self, reply: Reply) -> Commit {
        let error = reply.error;
        let body = match &reply.pieces[..] {
            [piece] if reply.head.is_empty() && piece.as_ptr().addr() == self.payload_at => {
                Body::InPlace(piece.len())
            }
            _ => Body::Elsewhere(reply),
        };
        Commit { error, body }
    }

    /// Puts an answer in, or gives it back while an operation still has the payload.
    pub(super) fn put(&mut self, commit: Commit) -> Result<(), Commit> {
        let unique = self.unique();
        let mut error = commit.error;
        let (mut payload, follows) = match commit.body {
            Body::InPlace(len) => match self.pool.try_get(self.payload_bytes) {
                Some(payload) => (payload, len),
                None => return Err(Commit { error, body: Body::InPlace(len) }),
            },
            Body::Elsewhere(mut reply) => {
                self.keep_apart(&mut reply);
                let Some(mut payload) = self.pool.try_get(self.payload_bytes) else {
                    return Err(Commit { error, body: Body::Elsewhere(reply) });
                };
                let follows = reply.len();
                if follows > payload.len() {
                    tracing::error!(follows, "an answer is larger than what was asked for");
                    error = -libc::EIO;
                } else {
                    fill(&mut payload, &reply);
                }
                (payload, if error == 0 { follows } else { 0 })
            }
        };
        payload.set_len(self.payload_bytes);
        self.payload = Some(payload);
        let len =
            u32::try_from(size_of::<OutHeader>() + follows).expect("below the payload's size");
        let out = OutHeader { len, error, unique };
        self.header[..size_of::<OutHeader>()].copy_from_slice(out.as_bytes());
        let told = RingEntry { payload_bytes: len - 16, ..self.told() };
        self.header[uring::ENTRY_AT..uring::HEADER_BYTES].copy_from_slice(told.as_bytes());
        Ok(())
    }

    /// Pieces that lie in the payload, but not at the start of it, would be overwritten by those before
    /// them, and would keep it from coming home.
    fn keep_apart(&self, reply: &mut Reply) {
        let memory = self.payload_at..self.payload_at + self.payload_bytes;
        for piece in &mut reply.pieces {
            if memory.contains(&piece.as_ptr().addr()) {
                *piece = piece.to_vec().into();
            }
        }
    }
}

fn fill(payload: &mut [u8], reply: &Reply) {
    payload[..reply.head.len()].copy_from_slice(&reply.head);
    let mut at = reply.head.len();
    for piece in &reply.pieces {
        payload[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ff2_fabric::SharedBuf;

    const BYTES: usize = 64 << 10;

    /// As the kernel would put a request there.
    fn arrived(entry: &mut Entry, operation: u32, args: &[u8], rest: &[u8]) {
        let header = InHeader {
            len: 0,
            opcode: operation,
            unique: 77,
            inode: 5,
            uid: 1,
            gid: 2,
            pid: 3,
            extra_words: 0,
            padding: 0,
        };
        entry.header[..40].copy_from_slice(header.as_bytes());
        entry.header[uring::OP_AT..][..args.len()].copy_from_slice(args);
        let payload_bytes = u32::try_from(rest.len()).unwrap();
        let told = RingEntry { flags: 0, commit_id: 77, payload_bytes, padding: 0, reserved: 0 };
        entry.header[uring::ENTRY_AT..uring::HEADER_BYTES].copy_from_slice(told.as_bytes());
        entry.payload.as_mut().unwrap()[..rest.len()].copy_from_slice(rest);
    }

    fn answered(entry: &Entry) -> (OutHeader, &[u8]) {
        let header = OutHeader::read_from_prefix(&entry.header).unwrap().0;
        let len = entry.told().payload_bytes as usize;
        (header, &entry.payload.as_ref().unwrap()[..len])
    }

    #[test]
    fn a_name_comes_and_an_answer_goes() {
        let mut entry = Entry::new(0, BYTES);
        arrived(&mut entry, opcode::LOOKUP, &[], b"name\0");
        let (header, decoded) = entry.take().unwrap();
        assert_eq!((header.unique, header.inode), (77, 5));
        let Decoded::Operation(Operation::Lookup { name }) = decoded else { panic!("{decoded:?}") };
        assert_eq!(name, b"name");
        let commit = entry.prepare(Reply::bytes(b"answer".to_vec()));
        entry.put(commit).unwrap();
        let (header, body) = answered(&entry);
        assert_eq!((header.len, header.error, header.unique), (22, 0, 77));
        assert_eq!((body, entry.commit_id()), (&b"answer"[..], 77));
    }

    #[test]
    fn a_payload_that_is_longer_than_the_memory_is_refused() {
        let mut entry = Entry::new(0, BYTES);
        arrived(&mut entry, opcode::LOOKUP, &[], b"name\0");
        entry.header[uring::ENTRY_AT + 16..][..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(entry.take(), Err(Malformed::WrongPayload { .. })));
    }

    #[test]
    fn an_entry_waits_for_whoever_keeps_the_bytes_of_a_write() {
        let mut entry = Entry::new(0, BYTES);
        let mut args = [0; 40];
        args[16..20].copy_from_slice(&5_u32.to_ne_bytes());
        arrived(&mut entry, opcode::WRITE, &args, b"bytes");
        let (_, decoded) = entry.take().unwrap();
        let Decoded::Operation(Operation::Write(write)) = decoded else { panic!("{decoded:?}") };
        assert_eq!(&write.payload.bytes[..], b"bytes");
        assert_eq!(write.payload.bytes.as_ptr().addr(), entry.payload_at, "no copy");
        let commit = entry.prepare(Reply::error(crate::Errno::EINTR));
        let commit = entry.put(commit).unwrap_err();
        drop(write);
        entry.put(commit).unwrap();
        assert_eq!(answered(&entry).0.error, -libc::EINTR);
    }

    #[test]
    fn what_was_read_into_the_room_is_not_copied() {
        let mut entry = Entry::new(0, BYTES);
        arrived(&mut entry, opcode::STATFS, &[], b"");
        entry.take().unwrap();
        let mut read = entry.room().try_get(5000).unwrap();
        read.fill(9);
        let commit = entry.prepare(Reply::data(vec![read.freeze()]));
        assert!(matches!(commit.body, Body::InPlace(5000)));
        entry.put(commit).unwrap();
        assert!(
            answered(&entry).1.iter().all(|byte| *byte == 9) && answered(&entry).1.len() == 5000
        );
    }

    #[test]
    fn pieces_are_put_together_wherever_they_lie() {
        let mut entry = Entry::new(0, BYTES);
        arrived(&mut entry, opcode::STATFS, &[], b"");
        entry.take().unwrap();
        let room = entry.room();
        let (mut first, mut second) = (room.try_get(4096).unwrap(), room.try_get(4096).unwrap());
        first.fill(1);
        second.fill(2);
        let ahead = SharedBuf::from(vec![3; 10]);
        // The other way round: the first would be overwritten by the second.
        let pieces = vec![second.freeze(), ahead, first.freeze()];
        let commit = entry.prepare(Reply::data(pieces));
        entry.put(commit).unwrap();
        let expected = [&[2; 4096][..], &[3; 10], &[1; 4096]].concat();
        assert_eq!(answered(&entry).1, expected);
    }
}
