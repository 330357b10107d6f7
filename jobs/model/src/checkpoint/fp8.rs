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

/// Multiplies numbers of a weight with `cols` columns, from its number `from` on, with the scales of their blocks;
/// `scales` is [ceil(rows/b0), ceil(cols/b1)].
pub(super) fn scale_blocks(
    mut numbers: &mut [f32],
    mut from: usize,
    cols: usize,
    block: [usize; 2],
    scales: &[f32],
) {
    while !numbers.is_empty() {
        let (row, col) = (from / cols, from % cols);
        let to_border = (block[1] - col % block[1]).min(cols - col).min(numbers.len());
        let scale = scales[row / block[0] * cols.div_ceil(block[1]) + col / block[1]];
        for x in numbers.split_off_mut(..to_border).unwrap_or_default() {
            *x *= scale;
        }
        from += to_border;
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
        let expected =
            [[1.0, 1.0, 2.0, 2.0, 3.0], [1.0, 1.0, 2.0, 2.0, 3.0], [4.0, 4.0, 5.0, 5.0, 6.0]];
        // Wherever it is cut in two.
        for cut in 0..=15 {
            let mut weight = vec![1.0; 3 * 5];
            let (first, second) = weight.split_at_mut(cut);
            let scales = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            scale_blocks(first, 0, 5, [2, 2], &scales);
            scale_blocks(second, cut, 5, [2, 2], &scales);
            assert_eq!(weight, expected.concat(), "{cut}");
        }
    }
}
