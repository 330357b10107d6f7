//! Numbers with a shape.

use crate::{
    fp8::Fp8,
    view::{View, ViewMut},
};

/// A contiguous row-major array of f32. The last dimension is the columns, all others together the rows.
#[derive(Debug, Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    /// Empty if there is `fp8`.
    data: Vec<f32>,
    /// Of a weight that was loaded so and that nobody has changed.
    fp8: Option<Box<Fp8>>,
}

/// What a tensor consists of in memory.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    F32(&'a [f32]),
    /// e4m3 numbers, and the scales of their blocks.
    Fp8(&'a [u8], &'a [f32]),
}

impl Tensor {
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()], fp8: None }
    }

    /// None if the shape does not hold as many numbers as there are.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Option<Self> {
        let fits = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) == Some(data.len());
        fits.then(|| Self { shape: shape.to_vec(), data, fp8: None })
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Count of numbers.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All numbers, row by row. Of a weight that is stored in a smaller form the first call makes them, which then stay
    /// beside it; products do not need that.
    pub fn data(&self) -> &[f32] {
        self.fp8.as_ref().map_or(&self.data, |fp8| fp8.numbers())
    }

    /// As [`Self::data`]; a smaller form is given up.
    pub fn data_mut(&mut self) -> &mut [f32] {
        if let Some(fp8) = self.fp8.take() {
            self.data = fp8.into_numbers();
        }
        &mut self.data
    }

    pub fn stored(&self) -> Stored<'_> {
        match &self.fp8 {
            None => Stored::F32(&self.data),
            Some(fp8) => Stored::Fp8(fp8.bytes(), fp8.scales()),
        }
    }

    /// None if it is stored as f32.
    pub(crate) fn fp8(&self) -> Option<&Fp8> {
        self.fp8.as_deref()
    }

    pub(crate) fn fp8_mut(&mut self) -> Option<&mut Fp8> {
        self.fp8.as_deref_mut()
    }

    /// Of the same shape, in memory for e4m3 numbers, to be filled as the scales of their blocks are.
    pub(crate) fn become_fp8(&mut self, block: [usize; 2]) -> &mut [u8] {
        let memory = std::mem::take(&mut self.data);
        let fp8 = Fp8::new(self.rows(), self.cols(), block, memory);
        self.fp8.insert(Box::new(fp8)).bytes_mut()
    }

    pub(crate) fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    pub(crate) fn rows(&self) -> usize {
        self.len().checked_div(self.cols()).unwrap_or(0)
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.data()[row * self.cols()..][..self.cols()]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let cols = self.cols();
        &mut self.data_mut()[row * cols..][..cols]
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(self.data(), self.rows(), self.cols(), self.cols())
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_> {
        let (rows, cols) = (self.rows(), self.cols());
        ViewMut::new(self.data_mut(), rows, cols, cols)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        assert_eq!(self.len(), other.len(), "sums are of equal shapes");
        self.data_mut().iter_mut().zip(other.data()).for_each(|(a, b)| *a += b);
    }
}

/// Of numbers, whatever their form.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.data() == other.data()
    }
}
