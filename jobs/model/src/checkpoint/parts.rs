//! Bytes of files into tensors, by several threads at once: each goes through its share of the files from front to
//! back, reads runs of neighbours with one call and puts their numbers into their places.

use std::{
    io, iter,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use safetensors::{Dtype, tensor::TensorInfo};

use super::{memory::populate, numbers::decode, reader::Reader, shard::Shard};
use crate::{ModelError, Tensor};

/// What one call reads, between multiples of it in the file: a request of a mount has no more, and chunks begin there.
const RUN_BYTES: u64 = 1 << 20;
/// Threads that read. More than there may be cores: a reader mostly waits.
const READERS: usize = 4;

/// Neighbouring numbers of one tensor, as far as they lie in one run.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// In the file.
    at: u64,
    len: usize,
    dtype: Dtype,
    into: Place<'a>,
}

/// Where numbers go.
#[derive(Debug)]
enum Place<'a> {
    F32(&'a mut [f32]),
    /// They stay as they are stored.
    Fp8(&'a mut [u8]),
}

impl Place<'_> {
    /// Its first numbers, taken from it; None if there are none left.
    fn split_off(&mut self, count: usize) -> Option<Self> {
        match self {
            Self::F32(rest) => {
                let count = count.min(rest.len());
                rest.split_off_mut(..count).filter(|it| !it.is_empty()).map(Self::F32)
            }
            Self::Fp8(rest) => {
                let count = count.min(rest.len());
                rest.split_off_mut(..count).filter(|it| !it.is_empty()).map(Self::Fp8)
            }
        }
    }

    /// Count of numbers.
    fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Fp8(bytes) => bytes.len(),
        }
    }

    fn fill(self, dtype: Dtype, bytes: &[u8]) {
        match self {
            Self::F32(numbers) => {
                populate(numbers);
                decode(dtype, bytes, numbers);
            }
            Self::Fp8(place) => {
                populate(place);
                place.copy_from_slice(bytes);
            }
        }
    }
}

/// Cuts a tensor that lies in a file as `info` says. A number across the border of two runs is of the first.
/// `fp8_block`: it stays as it is stored, with a scale for each block of so many rows and columns.
pub(super) fn parts<'a>(
    shard: &Shard,
    info: &TensorInfo,
    into: &'a mut Tensor,
    fp8_block: Option<[usize; 2]>,
) -> impl Iterator<Item = Part<'a>> + use<'a> {
    let (dtype, size) = (info.dtype, info.dtype.bitsize() / 8);
    let begin = shard.data_at + info.data_offsets.0 as u64;
    let mut rest = match fp8_block {
        None => Place::F32(into.data_mut()),
        Some(block) => Place::Fp8(into.become_fp8(block)),
    };
    let mut number = 0;
    iter::from_fn(move || {
        let at = begin + (number * size) as u64;
        let to_border = (RUN_BYTES - at % RUN_BYTES).div_ceil(size as u64);
        let into = rest.split_off(usize::try_from(to_border).expect("a run is short"))?;
        let count = into.len();
        number += count;
        Some(Part { at, len: count * size, dtype, into })
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
        let number = run.parts[0].at / RUN_BYTES;
        while let Some(part) = parts.next_if(|part| part.at / RUN_BYTES == number) {
            run.parts.push(part);
        }
        Some(run)
    })
}

/// Fills all tensors; `done` grows by the bytes that are in their places.
///
/// # Errors
/// The first that a reader meets; the others then stop.
pub(super) fn fill<'a>(mut runs: Vec<Run<'a>>, done: &AtomicU64) -> Result<(), ModelError> {
    let each = runs.len().div_ceil(READERS).max(1);
    let mut shares = Vec::new();
    while !runs.is_empty() {
        shares.push(runs.split_off(runs.len().saturating_sub(each)));
    }
    let failed = AtomicBool::new(false);
    let failed = &failed;
    thread::scope(|scope| {
        let start = |share: Vec<Run<'a>>| {
            let read = move || {
                let filled = fill_share(share, failed, done);
                failed.fetch_or(filled.is_err(), Ordering::Relaxed);
                filled
            };
            thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, read)
        };
        let started: Result<Vec<_>, io::Error> = shares.into_iter().map(start).collect();
        let started = started.map_err(ModelError::Threads)?;
        let ends = started.into_iter().map(|reader| reader.join().expect("readers do not panic"));
        ends.collect()
    })
}

fn fill_share(
    share: Vec<Run<'_>>,
    failed: &AtomicBool,
    done: &AtomicU64,
) -> Result<(), ModelError> {
    let mut open: Option<Reader> = None;
    for run in share {
        if failed.load(Ordering::Relaxed) {
            break;
        }
        let reader = match open.take().filter(|reader| reader.path() == run.shard.path) {
            Some(reader) => reader,
            None => Reader::open(&run.shard.path)?,
        };
        run.fill(open.insert(reader), done)?;
    }
    Ok(())
}

impl Run<'_> {
    fn fill(self, reader: &mut Reader, done: &AtomicU64) -> Result<(), ModelError> {
        let (Some(first), Some(last)) = (self.parts.first(), self.parts.last()) else {
            return Ok(());
        };
        let begin = first.at;
        let place = |at: u64| usize::try_from(at - begin).expect("a run is short");
        let bytes = reader.read(begin, place(last.at) + last.len)?;
        for part in self.parts {
            part.into.fill(part.dtype, &bytes[place(part.at)..][..part.len]);
            done.fetch_add(part.len as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Of f32, f32 and bf16, from a place that is no multiple of anything.
    fn file(numbers: &[f32], small: &[f32]) -> (tempfile::TempDir, Shard) {
        let (long, short) = (numbers.len() * 4, small.len() * 4);
        let mut header = format!(
            r#"{{"a": {{"dtype": "F32", "shape": [{}], "data_offsets": [0, {long}]}},
            "b": {{"dtype": "F32", "shape": [{}], "data_offsets": [{long}, {}]}},
            "c": {{"dtype": "BF16", "shape": [{}], "data_offsets": [{}, {}]}}}}"#,
            numbers.len(),
            small.len(),
            long + short,
            numbers.len(),
            long + short,
            long + short + long / 2,
        );
        while header.len() % 4 != 3 {
            header.push(' ');
        }
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(numbers.iter().chain(small).flat_map(|x| x.to_le_bytes()));
        bytes.extend(numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (folder, Shard::open(&path).unwrap())
    }

    #[test]
    fn numbers_across_the_borders_of_runs_come_whole_and_all_are_counted() {
        let numbers: Vec<f32> = (0..700_001u32).map(|at| (at % 251) as f32 / 256.0).collect();
        let (folder, shard) = file(&numbers, &numbers[..3]);
        let mut tensors = [numbers.len(), 3, numbers.len()].map(|len| Tensor::zeros(&[len]));
        let places = shard.tensors().zip(&mut tensors);
        let all = places.flat_map(|((_, info), into)| parts(&shard, info, into, None));
        let all: Vec<_> = runs(&shard, all).collect();
        // 2.8 MB, 12 bytes and 1.4 MB; of these runs one has the ends of two tensors and the small one between.
        assert_eq!(all.len(), 5);
        assert!(all.iter().any(|run| run.parts.len() == 3));
        let done = AtomicU64::new(0);
        fill(all, &done).unwrap();
        assert_eq!(done.into_inner() as usize, numbers.len() * 6 + 12);
        assert!(tensors[0].data() == numbers && tensors[2].data() == numbers);
        assert_eq!(tensors[1].data(), &numbers[..3]);

        // The file becomes shorter behind its header's back.
        let short = std::fs::OpenOptions::new().write(true).open(&shard.path).unwrap();
        short.set_len(2_000_000).unwrap();
        let places = shard.tensors().zip(&mut tensors);
        let all = places.flat_map(|((_, info), into)| parts(&shard, info, into, None));
        let error = fill(runs(&shard, all).collect(), &AtomicU64::new(0)).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        drop(folder);
    }
}
