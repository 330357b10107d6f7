//! Windows into tensors, and the one matrix product under all blocks.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::{
    fp8::Fp8,
    precision::{is_bf16, round_rows, with_spare},
    skinny::{self, Many, Rows},
};

/// A matrix inside a slice. Rows and columns lie `row_stride` and `col_stride` numbers apart, so heads of an
/// attention and transposed weights need no copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    pub(crate) fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// The same numbers rounded to bf16, in `memory`.
    fn rounded(self, memory: &mut Vec<f32>) -> View<'_> {
        // As they lie: the other way round if it is transposed.
        match self.col_stride {
            1 => {
                round_rows(self.data, self.rows, self.cols, self.row_stride, memory);
                View::new(memory, self.rows, self.cols, self.cols)
            }
            _ => {
                round_rows(self.data, self.cols, self.rows, self.col_stride, memory);
                View::new(memory, self.cols, self.rows, self.rows).t()
            }
        }
    }
}

/// Like [`View`], to be written; its columns are always adjacent.
#[derive(Debug)]
pub(crate) struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> ViewMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check(data.len(), rows, cols, row_stride);
        // Overlapping rows would be written twice.
        assert!(rows <= 1 || row_stride >= cols, "rows of a result do not overlap");
        Self { data, rows, cols, row_stride }
    }

    /// `cols` of its columns, from `from` on.
    fn columns(&mut self, from: usize, cols: usize) -> ViewMut<'_> {
        assert!(from + cols <= self.cols, "columns of a result");
        ViewMut::new(&mut self.data[from..], self.rows, cols, self.row_stride)
    }
}

fn check(len: usize, rows: usize, cols: usize, row_stride: usize) {
    let last = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols };
    assert!(
        last <= len,
        "a view of {rows} x {cols} (stride {row_stride}) ends after {len} numbers"
    );
}

/// Whether a product replaces what is there or adds to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Into {
    Replace,
    Add,
}

/// `out = scale * a * b`, or `out += scale * a * b`, in the precision of this process. Shapes [m,n] = [m,k] [k,n].
pub(crate) fn matmul(out: ViewMut<'_>, into: Into, scale: f32, a: View<'_>, b: View<'_>) {
    if !is_bf16() {
        return matmul_f32(out, into, scale, a, b);
    }
    with_spare(|[of_a, of_b]| matmul_f32(out, into, scale, a.rounded(of_a), b.rounded(of_b)));
}

/// As [`matmul`], always of the numbers as they are.
pub(crate) fn matmul_f32(out: ViewMut<'_>, into: Into, scale: f32, a: View<'_>, b: View<'_>) {
    assert_eq!(a.rows, out.rows, "rows of a product");
    assert_eq!(b.cols, out.cols, "columns of a product");
    assert_eq!(a.cols, b.rows, "inner dimension of a product");
    let stride = |s: usize| isize::try_from(s).expect("strides are within a slice");
    let threads = threads(out.rows * out.cols * a.cols);
    if a.rows <= skinny::ROWS_MAX && a.col_stride == 1 && b.row_stride == 1 {
        // The transpose of rows that lie one behind the other, as weights are.
        let many = Rows { data: b.data, rows: b.cols, len: b.rows, stride: b.col_stride };
        return few_rows(out, into, scale, (a, Many::F32(many)), threads);
    }
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: the constructors checked that every element of the views lies in its slice (a transposed view has
    // the same elements), the shapes agree, and `out` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            stride(out.row_stride),
            into == Into::Add,
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The threads for a product of so many multiplications: of too few a thread costs more than it saves.
fn threads(work: usize) -> usize {
    if work > 1 << 20 { rayon::current_num_threads() } else { 1 }
}

/// Numbers of an fp8 weight that are made at once for many rows: of the second cache, and enough to be worth a general
/// product.
const PANEL: usize = 1 << 18;

/// `out = x * weight^T`, in the precision of this process. Shapes [m,n] = [m,k] [n,k]^T.
pub(crate) fn matmul_fp8(mut out: ViewMut<'_>, x: View<'_>, weight: &Fp8) {
    assert_eq!((x.rows, weight.rows()), (out.rows, out.cols), "rows and columns of a product");
    assert_eq!(x.cols, weight.cols(), "inner dimension of a product");
    // An expert that no token chose.
    if out.rows == 0 {
        return;
    }
    let threads = threads(out.rows * out.cols * x.cols);
    if !is_bf16() && x.rows <= skinny::ROWS_MAX && x.col_stride == 1 {
        return few_rows(out, Into::Replace, 1.0, (x, Many::Fp8(weight)), threads);
    }
    let (rows, cols) = (weight.rows(), weight.cols());
    let at_once = (PANEL / cols.max(1)).max(1);
    with_spare(|[panel, _]| {
        for from in (0..rows).step_by(at_once) {
            let rows = at_once.min(rows - from);
            panel.resize(rows * cols, 0.0);
            let each = rows.div_ceil(threads);
            panel.par_chunks_mut((each * cols).max(1)).enumerate().for_each(|(part, into)| {
                weight.decode(from + part * each, into);
            });
            let made = View::new(panel, rows, cols, cols);
            matmul(out.columns(from, rows), Into::Replace, 1.0, x, made.t());
        }
    });
}

/// The product of a few rows with a weight's.
fn few_rows(
    out: ViewMut<'_>,
    into: Into,
    scale: f32,
    (a, many): (View<'_>, Many<'_>),
    threads: usize,
) {
    let few = Rows { data: a.data, rows: a.rows, len: a.cols, stride: a.row_stride };
    let put = |place: &mut f32, product: f32| match into {
        Into::Replace => *place = scale * product,
        Into::Add => *place += scale * product,
    };
    let rows = many.rows();
    if threads == 1 {
        let stride = out.row_stride;
        return many.products(few, (0, rows), |m, n, product| {
            put(&mut out.data[m * stride + n], product);
        });
    }
    // Each thread has columns of the result, which do not lie together.
    let each = rows.div_ceil(threads).next_multiple_of(4);
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(each))
        .into_par_iter()
        .map(|part| {
            let rows = each.min(rows - part * each);
            let mut made = vec![0.0; few.rows * rows];
            many.products(few, (part * each, rows), |m, n, product| {
                made[m * rows + n] = product;
            });
            made
        })
        .collect();
    for (part, made) in parts.iter().enumerate() {
        for (m, made) in made.chunks(made.len() / few.rows).enumerate() {
            let row = &mut out.data[m * out.row_stride + part * each..][..made.len()];
            row.iter_mut().zip(made).for_each(|(place, product)| put(place, *product));
        }
    }
}
