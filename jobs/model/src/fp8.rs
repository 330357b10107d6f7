//! DeepSeek's fp8 weights: e4m3 numbers, and one scale for each block of rows and columns. They stay as they were
//! stored: a quarter of the memory to fill at the start and to read in each step. Products make f32 of a few rows at a
//! time, which the first cache holds.

use std::sync::OnceLock;

use zerocopy::IntoBytes;

use crate::vector::vectorized;

/// A matrix of blocks with a scale each.
#[derive(Debug, Clone)]
pub(crate) struct Fp8 {
    rows: usize,
    cols: usize,
    /// Rows and columns of a block; those at the edges have fewer.
    block: [usize; 2],
    /// [rows, cols], e4m3, from the first byte on.
    memory: Vec<f32>,
    /// [ceil(rows/block), ceil(cols/block)]
    scales: Vec<f32>,
    /// All of them, once somebody asked for a slice.
    numbers: OnceLock<Vec<f32>>,
}

impl Fp8 {
    /// To be filled, and the scales too. `memory` was meant for the same numbers in f32 and was not touched yet: its
    /// first quarter is used, which costs less than to have other memory in its place.
    pub(crate) fn new(rows: usize, cols: usize, block: [usize; 2], mut memory: Vec<f32>) -> Self {
        memory.resize((rows * cols).div_ceil(size_of::<f32>()), 0.0);
        memory.shrink_to_fit();
        let scales = vec![0.0; rows.div_ceil(block[0]) * cols.div_ceil(block[1])];
        Self { rows, cols, block, memory, scales, numbers: OnceLock::new() }
    }

    pub(crate) fn set_scales(&mut self, scales: &[f32]) {
        assert_eq!(scales.len(), self.scales.len(), "a scale a block");
        self.numbers.take();
        self.scales.copy_from_slice(scales);
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory.as_bytes()[..self.rows * self.cols]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.numbers.take();
        &mut self.memory.as_mut_bytes()[..self.rows * self.cols]
    }

    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// [rows, cols]. The first call makes them, and from then on they are kept beside what is stored.
    pub(crate) fn numbers(&self) -> &[f32] {
        self.numbers.get_or_init(|| {
            let mut numbers = vec![0.0; self.rows * self.cols];
            self.decode(0, &mut numbers);
            numbers
        })
    }

    pub(crate) fn into_numbers(mut self) -> Vec<f32> {
        self.numbers();
        self.numbers.take().unwrap_or_default()
    }

    /// The numbers of whole rows, from row `from` on, as many as `into` holds.
    pub(crate) fn decode(&self, from: usize, into: &mut [f32]) {
        if into.is_empty() {
            return;
        }
        let across = self.cols.div_ceil(self.block[1]);
        vectorized(
            #[inline(always)]
            || {
                for (row, into) in into.chunks_exact_mut(self.cols).enumerate() {
                    let row = from + row;
                    let bytes = &self.bytes()[row * self.cols..][..self.cols];
                    let scales = &self.scales[row / self.block[0] * across..][..across];
                    let (into, bytes) =
                        (into.chunks_mut(self.block[1]), bytes.chunks(self.block[1]));
                    for ((into, bytes), scale) in into.zip(bytes).zip(scales) {
                        for (x, bits) in into.iter_mut().zip(bytes) {
                            *x = e4m3(*bits) * scale;
                        }
                    }
                }
            },
        );
    }
}

/// One of the 256 numbers of e4m3 (Micikevicius et al. 2022, table 1): bias 7, no infinities, 0x7f is no number.
/// Without branches, so that loops over it have vectors.
#[inline(always)]
fn e4m3(bits: u8) -> f32 {
    /// Of f32: places of its mantissa beyond the three here, and the difference of the biases in its exponent.
    const PLACES: u32 = 20;
    const BIAS: u32 = (127 - 7) << 23;
    /// What the last place of numbers with the lowest exponent, 0, is worth.
    const LOWEST: f32 = 1.0 / 512.0;
    let bits = u32::from(bits);
    let magnitude = bits & 0x7f;
    let normal = (magnitude << PLACES) + BIAS;
    let small = (magnitude as f32 * LOWEST).to_bits();
    let number = if magnitude < 8 { small } else { normal };
    let number = if magnitude == 0x7f { f32::NAN.to_bits() } else { number };
    f32::from_bits(number | (bits & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "all of these have an exact form")]

    use super::*;

    #[test]
    fn known_values() {
        let cases = [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 7.0 * 2f32.powi(-9)),
            (0x08, 2f32.powi(-6)),
        ];
        let more = [(0x38, 1.0), (0x39, 1.125), (0x7e, 448.0), (0xb8, -1.0), (0xfe, -448.0)];
        for (bits, value) in cases.into_iter().chain(more) {
            assert_eq!(e4m3(bits), value, "{bits:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        // All others by the table's rule.
        for bits in (0..=0xffu8).filter(|bits| bits & 0x7f != 0x7f) {
            let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
            let magnitude = match exponent {
                0 => mantissa * 2f32.powi(-6),
                _ => (1.0 + mantissa) * 2f32.powi(exponent - 7),
            };
            assert_eq!(e4m3(bits).abs(), magnitude, "{bits:#x}");
            assert_eq!(e4m3(bits).is_sign_negative(), bits & 0x80 != 0, "{bits:#x}");
        }
    }

    #[test]
    fn blocks_at_the_edges_are_smaller() {
        let mut matrix = Fp8::new(3, 5, [2, 2], Vec::new());
        matrix.set_scales(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        matrix.bytes_mut().fill(0x38);
        let expected =
            [[1.0, 1.0, 2.0, 2.0, 3.0], [1.0, 1.0, 2.0, 2.0, 3.0], [4.0, 4.0, 5.0, 5.0, 6.0]];
        assert_eq!(matrix.numbers(), expected.concat());
        for from in 0..3 {
            for rows in 0..=3 - from {
                let mut found = vec![0.0; rows * 5];
                matrix.decode(from, &mut found);
                assert_eq!(found, expected[from..from + rows].concat(), "{from}, {rows}");
            }
        }
        matrix.bytes_mut().fill(0xb8);
        assert_eq!(matrix.into_numbers(), expected.concat().iter().map(|x| -x).collect::<Vec<_>>());
    }
}
