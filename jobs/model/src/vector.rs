//! Loops over many numbers, compiled for the widest vectors of the processor that runs them.

/// Runs `body` with the processor's vector instructions. `body` must be inlined code over slices.
pub(crate) fn vectorized<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// e^x to 2 units in the last place, in a form that compilers vectorize. Below -87 it is about 1e-38, not 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // e^x = 2^n e^r with |r| <= ln 2 / 2, e^r by its Taylor series; ln 2 in two parts keeps r exact.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = (p * r + 1.0) * r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Softmax of a row in place; the maximum is taken off first so that nothing overflows.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32]) {
    let max = maximum(row);
    row.iter_mut().for_each(|x| *x = exp(*x - max));
    let scale = 1.0 / sum(row);
    row.iter_mut().for_each(|x| *x *= scale);
}

#[inline(always)]
pub(crate) fn maximum(row: &[f32]) -> f32 {
    fold(row, f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
}

#[inline(always)]
pub(crate) fn sum(row: &[f32]) -> f32 {
    fold(row, 0.0, |a, b| a + b)
}

#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Independent partial results: floats may not be reordered, so a plain fold stays scalar.
const LANES: usize = 16;

#[inline(always)]
fn fold(row: &[f32], start: f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(start, |a, &b| join(a, b));
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = join(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().fold(rest, |a, &b| join(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_the_standard_library() {
        for step in -8000..8800 {
            let x = step as f32 * 0.01;
            let (ours, true_value) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / true_value - 1.0).abs() < 3e-7, "{x}: {ours} {true_value}");
        }
    }

    #[test]
    fn sums_take_every_element() {
        let row: Vec<f32> = (0..37u8).map(f32::from).collect();
        assert_eq!(sum(&row), 666.0);
        assert_eq!(dot(&row, &row), 16206.0);
        assert_eq!(maximum(&row), 36.0);
    }
}
