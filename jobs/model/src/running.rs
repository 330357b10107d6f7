//! A softmax over columns that come in parts: what has been summed is scaled down whenever a larger score appears.

use crate::{
    vector::{exp, maximum, sum, vectorized},
    view::{Into, View, ViewMut, matmul},
};

/// Weighted sums of values, one a row, with weights from scores by softmax.
#[derive(Debug)]
pub(crate) struct Running {
    /// Largest score of each row so far, and the sum of e^(score - largest).
    largest: Vec<f32>,
    total: Vec<f32>,
    /// [rows, width]
    sums: Vec<f32>,
    width: usize,
    /// [rows, columns] of the part at hand.
    scores: Vec<f32>,
    columns: usize,
}

impl Running {
    pub(crate) fn new(rows: usize, width: usize) -> Self {
        Self {
            largest: vec![f32::NEG_INFINITY; rows],
            total: vec![0.0; rows],
            sums: vec![0.0; rows * width],
            width,
            scores: Vec::new(),
            columns: 0,
        }
    }

    /// Where the scores of the next part go, [rows, columns]; what was written is kept until [`Running::add`].
    pub(crate) fn scores(&mut self, columns: usize) -> ViewMut<'_> {
        let rows = self.largest.len();
        self.columns = columns;
        self.scores.resize(rows * columns, 0.0);
        ViewMut::new(&mut self.scores, rows, columns, columns)
    }

    /// Adds `values`, [columns, width], by the scores at hand. A row sees its first `seen(row)` columns.
    pub(crate) fn add(&mut self, seen: impl Fn(usize) -> usize, values: View<'_>) {
        let (columns, width) = (self.columns, self.width);
        let rows = self.scores.chunks_mut(columns).zip(self.sums.chunks_mut(width));
        let states = self.largest.iter_mut().zip(&mut self.total);
        vectorized(
            #[inline(always)]
            || {
                for (row, ((scores, sums), (largest, total))) in rows.zip(states).enumerate() {
                    let (scores, later) = scores.split_at_mut(seen(row).min(columns));
                    later.fill(0.0);
                    let new = maximum(scores).max(*largest);
                    scores.iter_mut().for_each(|x| *x = exp(*x - new));
                    if *largest < new {
                        let shrink = if *total == 0.0 { 0.0 } else { exp(*largest - new) };
                        *total *= shrink;
                        sums.iter_mut().for_each(|x| *x *= shrink);
                        *largest = new;
                    }
                    *total += sum(scores);
                }
            },
        );
        let rows = self.largest.len();
        let scores = View::new(&self.scores, rows, columns, columns);
        let sums = ViewMut::new(&mut self.sums, rows, width, width);
        matmul(sums, Into::Add, 1.0, scores, values);
    }

    /// [rows, width]
    pub(crate) fn finish(mut self) -> Vec<f32> {
        for (sums, total) in self.sums.chunks_mut(self.width).zip(&self.total) {
            let scale = 1.0 / total;
            sums.iter_mut().for_each(|x| *x *= scale);
        }
        self.sums
    }
}
