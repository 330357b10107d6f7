//! DeepSeek's fp8 weights: e4m3 numbers, and one scale for each block of rows and columns.

/// The 256 values of e4m3 (Micikevicius et al. 2022, table 1): bias 7, no infinities, 0x7f is no number.
pub(super) fn e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let magnitude = match (exponent, bits & 0x7f) {
        (_, 0x7f) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// Multiplies each block of a [rows, cols] weight with its scale; `scales` is [ceil(rows/b0), ceil(cols/b1)].
pub(super) fn scale_blocks(weight: &mut [f32], cols: usize, block: [usize; 2], scales: &[f32]) {
    let scale_cols = cols.div_ceil(block[1]);
    for (row, numbers) in weight.chunks_mut(cols).enumerate() {
        let scales = &scales[row / block[0] * scale_cols..][..scale_cols];
        for (numbers, scale) in numbers.chunks_mut(block[1]).zip(scales) {
            numbers.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

#[cfg(test)]
mod tests {
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
    }

    #[test]
    fn blocks_at_the_edges_are_smaller() {
        let mut weight = vec![1.0; 3 * 5];
        scale_blocks(&mut weight, 5, [2, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let expected =
            [[1.0, 1.0, 2.0, 2.0, 3.0], [1.0, 1.0, 2.0, 2.0, 3.0], [4.0, 4.0, 5.0, 5.0, 6.0]];
        assert_eq!(weight, expected.concat());
    }
}
