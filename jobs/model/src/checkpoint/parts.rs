//! Bytes of files into tensors, by several threads at once: each takes a run of neighbours, reads it with one call and
//! puts its numbers into their places.

use std::{
    io, iter,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use safetensors::{Dtype, tensor::TensorInfo};

use super::{
    fp8::scale_blocks,
    numbers::decode,
    shard::{Buffer, Shard},
};
use crate::{ModelError, Tensor};

/// What one call reads: enough to keep a server busy, and it stays in a core's cache until it is decoded.
const RUN_BYTES: usize = 1 << 20;
/// Reads under way at once. More than there are cores: a reader mostly waits.
const READERS: usize = 8;

/// Whole rows of one tensor.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// Behind the file's header.
    offset: u64,
    len: usize,
    dtype: Dtype,
    cols: usize,
    into: &'a mut [f32],
    scales: Option<Scales<'a>>,
}

/// Of a weight in fp8: one number for each block of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) block: [usize; 2],
}

/// Cuts a tensor that lies in a file as `info` says.
pub(super) fn parts<'a>(
    info: &TensorInfo,
    into: &'a mut Tensor,
    scales: Option<Scales<'a>>,
) -> impl Iterator<Item = Part<'a>> + use<'a> {
    let (dtype, offset) = (info.dtype, info.data_offsets.0);
    let (cols, size) = (into.cols(), dtype.bitsize() / 8);
    let rows = (RUN_BYTES / (cols * size)).max(1);
    // A block of fp8 is not cut: its scale is looked up once.
    let rows = scales.map_or(rows, |scales| rows.next_multiple_of(scales.block[0]));
    into.data_mut().chunks_mut(rows * cols).enumerate().map(move |(number, into)| {
        let begin = offset + number * rows * cols * size;
        let scales = scales.map(|scales| {
            let above = number * rows / scales.block[0] * cols.div_ceil(scales.block[1]);
            Scales { numbers: &scales.numbers[above..], ..scales }
        });
        Part { offset: begin as u64, len: into.len() * size, dtype, cols, into, scales }
    })
}

/// Parts of one file that one call reads.
#[derive(Debug)]
pub(super) struct Run<'a> {
    shard: &'a Shard,
    parts: Vec<Part<'a>>,
}

/// Puts neighbours together. The parts come in the order of the file.
pub(super) fn runs<'a>(
    shard: &'a Shard,
    parts: impl Iterator<Item = Part<'a>>,
) -> impl Iterator<Item = Run<'a>> {
    let mut parts = parts.peekable();
    iter::from_fn(move || {
        let mut run = Run { shard, parts: vec![parts.next()?] };
        let begin = run.parts[0].offset;
        let fits = |part: &Part<'_>| part.offset + part.len as u64 <= begin + RUN_BYTES as u64;
        while let Some(part) = parts.next_if(fits) {
            run.parts.push(part);
        }
        Some(run)
    })
}

/// Fills all tensors; `done` grows by the bytes that are in their places.
///
/// # Errors
/// The first that a reader meets; the others then stop.
pub(super) fn fill(runs: Vec<Run<'_>>, done: &AtomicU64) -> Result<(), ModelError> {
    let readers = READERS.min(runs.len());
    let queue = Mutex::new(runs.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let read = || {
        let mut buffer = Buffer::default();
        while let Some(run) = next() {
            let filled = run.fill(&mut buffer, done);
            if filled.is_err() {
                iter::from_fn(next).for_each(drop);
            }
            filled?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let started: Result<Vec<_>, io::Error> = (0..readers)
            .map(|_| thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, read))
            .collect();
        let started = started.map_err(ModelError::Threads)?;
        let ends = started.into_iter().map(|reader| reader.join().expect("readers do not panic"));
        ends.collect()
    })
}

impl Run<'_> {
    fn fill(self, buffer: &mut Buffer, done: &AtomicU64) -> Result<(), ModelError> {
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else {
            return Ok(());
        };
        let begin = first.offset;
        let place = |offset: u64| usize::try_from(offset - begin).expect("a run is short");
        let len = place(last.offset) + last.len;
        let bytes = self.shard.read(buffer, begin, len)?;
        for part in self.parts {
            decode(part.dtype, &bytes[place(part.offset)..][..part.len], part.into);
            if let Some(Scales { numbers, block }) = part.scales {
                scale_blocks(part.into, part.cols, block, numbers);
            }
            done.fetch_add(part.len as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}
