//! Numbers of the files' types as f32.

use safetensors::Dtype;

use crate::vector::vectorized;

/// As many numbers as `into` has, of a type that [`is_known`] and that has no scales.
pub(super) fn decode(dtype: Dtype, bytes: &[u8], into: &mut [f32]) {
    let (pairs, fours) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0);
    vectorized(
        #[inline(always)]
        || match dtype {
            Dtype::F32 => {
                fours.iter().zip(into).for_each(|(bytes, x)| *x = f32::from_le_bytes(*bytes));
            }
            Dtype::BF16 => pairs.iter().zip(into).for_each(|(bytes, x)| {
                *x = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }),
            _ => pairs
                .iter()
                .zip(into)
                .for_each(|(bytes, x)| *x = half::f16::from_le_bytes(*bytes).to_f32()),
        },
    );
}

pub(super) fn is_known(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F8_E4M3)
}
