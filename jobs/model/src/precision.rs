//! What products multiply: numbers as they are, or rounded to bf16 first (mixed precision; Micikevicius et al. 2018,
//! Kalamkar et al. 2019). A product of two bf16 numbers is exact in f32, and sums are f32, so that results are those of
//! hardware with bf16 products up to the order of sums. Weights, gradients and the optimizer stay f32: the master copy
//! is the only one, and is rounded where it is multiplied. Norms, softmax, the scores of gates and the loss are f32 in
//! either.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::vector::vectorized;

/// Of what is stored, or multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Bf16,
}

static BF16: AtomicBool = AtomicBool::new(false);

/// Decides what all products of this process multiply from now on. F32 if nobody decides.
pub fn multiply_in(precision: Precision) {
    BF16.store(precision == Precision::Bf16, Relaxed);
}

pub(crate) fn is_bf16() -> bool {
    BF16.load(Relaxed)
}

/// The nearest bf16 number, ties to even, as f32. No number stays none.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
    if x.is_nan() { x } else { rounded }
}

/// Numbers that a thread rounds at once: below twice as many a second thread costs more than it saves.
const RUN: usize = 1 << 15;

thread_local! {
    /// Memory of the last product's factors.
    static SPARE: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Calls `with` with memory for two rounded factors. A product inside of it gets other memory.
pub(crate) fn with_spare<R>(with: impl FnOnce(&mut [Vec<f32>; 2]) -> R) -> R {
    let mut spare = SPARE.take();
    let result = with(&mut spare);
    SPARE.set(spare);
    result
}

/// `rows` rows of `cols` numbers each, `stride` apart in `from`, rounded and behind each other.
pub(crate) fn round_rows(
    from: &[f32],
    rows: usize,
    cols: usize,
    stride: usize,
    into: &mut Vec<f32>,
) {
    into.resize(rows * cols, 0.0);
    if into.is_empty() {
        return;
    }
    let row = |(row, into): (usize, &mut [f32])| {
        vectorized(
            #[inline(always)]
            || {
                let from = &from[row * stride..][..cols];
                into.iter_mut().zip(from).for_each(|(to, x)| *to = round(*x));
            },
        );
    };
    match rows * cols >= 2 * RUN && rayon::current_num_threads() > 1 {
        true => {
            let rows_at_once = RUN.div_ceil(cols);
            into.par_chunks_mut(cols).enumerate().with_min_len(rows_at_once).for_each(row);
        }
        false => into.chunks_mut(cols).enumerate().for_each(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rounds_as_the_library_does() {
        for bits in (0..=u32::MAX).step_by(65_521).chain([0x7f7f_ffff, 0x7fff_ffff, 0xffff_ffff]) {
            let x = f32::from_bits(bits);
            let (found, expected) = (round(x), half::bf16::from_f32(x).to_f32());
            let is_right = found.to_bits() == expected.to_bits() || found.is_nan() && x.is_nan();
            assert!(is_right, "{x}: {found} for {expected}");
        }
    }

    #[test]
    fn rows_are_found_where_they_are() {
        let from: Vec<f32> = (0..12u8).map(|n| f32::from(n) + 1e-4).collect();
        let mut into = Vec::new();
        round_rows(&from, 2, 3, 5, &mut into);
        assert_eq!(into, [0.000_100_135_8, 1.0, 2.0, 5.0, 6.0, 7.0]);
    }
}
