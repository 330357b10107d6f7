//! The product of a few rows with many, both lying along the inner dimension: what a step of a server computes with
//! each of its weights. A general product first brings a weight into another order, which takes longer than such a
//! product itself; here each row of the weight is read once, as it lies, for four of the few rows at a time.

use pulp::{Arch, Simd, WithSimd};

use crate::{fp8::Fp8, precision::with_spare};

/// Up to so many rows; with more the general product is faster, whose order then pays.
pub(crate) const ROWS_MAX: usize = 32;

/// Rows of equal length inside a slice, `stride` numbers apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) len: usize,
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn range(self, from: usize, rows: usize) -> Self {
        Self { data: &self.data[from * self.stride..], rows, ..self }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.len]
    }
}

/// The rows of a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Many<'a> {
    F32(Rows<'a>),
    Fp8(&'a Fp8),
}

/// Numbers that are made of fp8 at once: half of a first cache, the other half is for the few rows.
const PANEL: usize = 4096;

impl Many<'_> {
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::F32(many) => many.rows,
            Self::Fp8(many) => many.rows(),
        }
    }

    /// Hands `put(row of few, row within the range, product)` each product of the few with `rows` rows from `from` on.
    pub(crate) fn products(
        self,
        few: Rows<'_>,
        (from, rows): (usize, usize),
        mut put: impl FnMut(usize, usize, f32),
    ) {
        let fp8 = match self {
            Self::F32(many) => return products(few, many.range(from, rows), put),
            Self::Fp8(fp8) => fp8,
        };
        let len = fp8.cols();
        // Four rows are multiplied at a time.
        let at_once = (PANEL / len.max(1)).next_multiple_of(4).max(4);
        with_spare(|[panel, _]| {
            for start in (0..rows).step_by(at_once) {
                let rows = at_once.min(rows - start);
                panel.resize(rows * len, 0.0);
                fp8.decode(from + start, panel);
                let many = Rows { data: panel, rows, len, stride: len };
                products(few, many, |m, n, product| put(m, start + n, product));
            }
        });
    }
}

/// Hands `put(row of few, row of many, product)` each product of a row with a row.
fn products(few: Rows<'_>, many: Rows<'_>, put: impl FnMut(usize, usize, f32)) {
    assert_eq!(few.len, many.len, "inner dimension of a product");
    Arch::new().dispatch(Products { few, many, put });
}

struct Products<'a, F> {
    few: Rows<'a>,
    many: Rows<'a>,
    put: F,
}

impl<F: FnMut(usize, usize, f32)> WithSimd for Products<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let whole = self.many.rows / 4 * 4;
        for at in (0..whole).step_by(4) {
            self.against::<S, 4>(simd, at);
        }
        for at in whole..self.many.rows {
            self.against::<S, 1>(simd, at);
        }
    }
}

impl<F: FnMut(usize, usize, f32)> Products<'_, F> {
    /// All of the few rows with N of the many.
    #[inline(always)]
    fn against<S: Simd, const N: usize>(&mut self, simd: S, at: usize) {
        let whole = self.few.rows / 4 * 4;
        for row in (0..whole).step_by(4) {
            self.tile::<S, 4, N>(simd, row, at);
        }
        for row in whole..self.few.rows {
            self.tile::<S, 1, N>(simd, row, at);
        }
    }

    /// M of the few rows with N of the many: the sums stay in registers.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, row: usize, at: usize) {
        let whole = self.few.len / S::F32_LANES * S::F32_LANES;
        let mut few: [&[S::f32s]; M] = [&[]; M];
        let mut many: [&[S::f32s]; N] = [&[]; N];
        for (number, few) in few.iter_mut().enumerate() {
            *few = S::as_simd_f32s(&self.few.row(row + number)[..whole]).0;
        }
        for (number, many) in many.iter_mut().enumerate() {
            *many = S::as_simd_f32s(&self.many.row(at + number)[..whole]).0;
        }
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for step in 0..whole / S::F32_LANES {
            for (sums, few) in sums.iter_mut().zip(&few) {
                let x = few[step];
                for (sum, many) in sums.iter_mut().zip(&many) {
                    *sum = simd.mul_add_e_f32s(x, many[step], *sum);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, sum) in sums.iter().enumerate() {
                let (x, y) = (&self.few.row(row + m)[whole..], &self.many.row(at + n)[whole..]);
                let rest: f32 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                (self.put)(row + m, at + n, simd.reduce_sum_f32s(*sum) + rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_comes_once_and_is_right_at_all_edges() {
        let numbers: Vec<f32> = (0..4000u16).map(|at| f32::from(at % 19 * 37 % 19) - 9.0).collect();
        for (few_rows, many_rows, len) in
            [(1, 1, 1), (1, 5, 16), (3, 9, 35), (5, 4, 64), (8, 7, 15)]
        {
            let few = Rows { data: &numbers, rows: few_rows, len, stride: len + 3 };
            let many = Rows { data: &numbers[7..], rows: many_rows, len, stride: len };
            let mut found = vec![Vec::new(); few_rows * many_rows];
            products(few, many, |m, n, product| found[m * many_rows + n].push(product));
            for (place, found) in found.iter().enumerate() {
                let (x, y) = (few.row(place / many_rows), many.row(place % many_rows));
                // Whole numbers: every order of adding gives the same.
                let expected: f32 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                assert_eq!(found, &[expected], "{few_rows} x {many_rows}, {len}: {place}");
            }
        }
    }
}
