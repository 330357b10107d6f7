//! Numbers with a shape.

use crate::view::{View, ViewMut};

/// A contiguous row-major array of f32. The last dimension is the columns, all others together the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// None if the shape does not hold as many numbers as there are.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Option<Self> {
        let fits = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) == Some(data.len());
        fits.then(|| Self { shape: shape.to_vec(), data })
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn data(&self) -> &[f32] {
        &self.data
    }

    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    pub(crate) fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(crate) fn rows(&self) -> usize {
        self.data.len().checked_div(self.cols()).unwrap_or(0)
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols()..][..self.cols()]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let cols = self.cols();
        &mut self.data[row * cols..][..cols]
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.data, self.rows(), self.cols(), self.cols())
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_> {
        let (rows, cols) = (self.rows(), self.cols());
        ViewMut::new(&mut self.data, rows, cols, cols)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        assert_eq!(self.data.len(), other.data.len(), "sums are of equal shapes");
        self.data.iter_mut().zip(&other.data).for_each(|(a, b)| *a += b);
    }
}
