//! The bytes of an open small file: what the namespace said last, and own writes over it.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use ff2_proto::{limits::INLINE_BYTES_MAX, pb};

use super::OpenInode;

/// What the namespace said.
#[derive(Debug)]
pub(super) struct Base {
    bytes: Bytes,
    /// Of the attributes that came with it.
    version: u64,
}

/// Where a file's bytes lie, as far as this client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Chunks,
    Namespace,
    /// In chunks, but there are writes that were meant for the namespace: they come first.
    Leaving,
}

impl OpenInode {
    pub(crate) fn place(&self) -> Place {
        let state = self.state.lock();
        match (state.attr.inline, state.inline_writes.is_empty()) {
            (true, _) => Place::Namespace,
            (false, true) => Place::Chunks,
            (false, false) => Place::Leaving,
        }
    }

    /// Keeps a write until the namespace is told of it. False: it does not belong there.
    pub(crate) fn write_inline(&self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset.saturating_add(bytes.len() as u64);
        let mut state = self.state.lock();
        let fits = state.attr.inline && end <= u64::from(INLINE_BYTES_MAX);
        if fits {
            state.inline_writes.write(offset as u32, bytes);
        }
        fits
    }

    /// What the namespace must be told, and the number that [`Self::inline_told`] wants.
    pub(crate) fn inline_writes(&self) -> (Vec<pb::InlineWrite>, u64) {
        let state = self.state.lock();
        let piece =
            |(offset, bytes)| pb::InlineWrite { offset, bytes: Bytes::copy_from_slice(bytes) };
        (state.inline_writes.pieces().map(piece).collect(), state.inline_writes.number())
    }

    /// The namespace took the writes up to `number` in. Later ones are told with the next report, all of
    /// them once more.
    pub(crate) fn inline_told(&self, number: u64, reply: &pb::NsReply) {
        let mut state = self.state.lock();
        if state.inline_writes.number() != number || state.inline_writes.is_empty() {
            return;
        }
        let version = reply.attr.map_or(0, |attr| attr.version);
        // With nobody else's change between, the new content is known.
        let base = state.inline_base.take().filter(|base| base.version + 1 == version);
        if let Some(base) = base {
            let mut bytes = base.bytes.to_vec();
            state.inline_writes.over(&mut bytes);
            state.inline_base = Some(Base { bytes: bytes.into(), version });
        }
        state.inline_writes.clear();
    }

    /// Takes in what the namespace said that the bytes are.
    pub(crate) fn took_inline(&self, reply: &pb::NsReply) {
        let mut state = self.state.lock();
        let Some(attr) = reply.attr else { return };
        state.take_attr(&attr);
        if state.attr.version == attr.version && attr.inline {
            let bytes = reply.inline_data.clone();
            state.inline_base = Some(Base { bytes, version: attr.version });
        }
    }

    /// The bytes of a range within the file, if they are known and their attributes, with their age, will
    /// do.
    pub(crate) fn read_inline(
        &self,
        range: &Range<u64>,
        will_do: impl FnOnce(&(pb::Attr, Duration)) -> bool,
    ) -> Option<Bytes> {
        let state = self.state.lock();
        let base = state.inline_base.as_ref().filter(|base| base.version == state.attr.version)?;
        if !state.attr.inline || !will_do(&(state.attr, state.attr_at.elapsed())) {
            return None;
        }
        let mut bytes = base.bytes.to_vec();
        state.inline_writes.over(&mut bytes);
        let length = bytes.len() as u64;
        let (start, end) = (range.start.min(length), range.end.min(length));
        let mut part = bytes[start as usize..end as usize].to_vec();
        // The rest of the file is a hole.
        part.resize((range.end - range.start) as usize, 0);
        Some(part.into())
    }

    /// The file lies in chunks, and so do the writes that were kept.
    pub(crate) fn left_inline(&self, attr: Option<&pb::Attr>) {
        let mut state = self.state.lock();
        if let Some(attr) = attr {
            state.take_attr(attr);
        }
        state.attr.inline = false;
        state.inline_writes.clear();
        state.inline_base = None;
        state.epoch += 1;
    }
}
