//! What a step does beside computing where several ranks train one model.

use std::fmt;

use crate::{ModelError, Parameters};

/// The ranks that share the experts of each layer, rank r with the r-th of equal parts. They all call it at the same
/// moments: twice in the forward of each layer with experts, twice in its backward.
pub trait Exchange: Sync + fmt::Debug {
    fn ranks(&self) -> usize;

    /// `out[r]` goes to the rank r. Returns what each rank sent here, in order of ranks.
    ///
    /// # Errors
    /// [`ModelError::Ranks`] if one of them is gone.
    fn all_to_all(&self, out: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, ModelError>;
}

/// What a step tells of its gradients, and what it asks of others.
pub struct Among<'a> {
    /// None: all experts are here.
    pub exchange: Option<&'a dyn Exchange>,
    /// Told of each part of the gradient as soon as nothing is added to it any more, with its name: the head, modules
    /// for multi-token prediction, the last norm, the layers from last to first, the embedding.
    pub ready: &'a mut dyn FnMut(&str, &dyn Parameters),
}

impl fmt::Debug for Among<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Among").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
