//! The ranks that share the experts, as the model sees them.

use ff2_collectives::Communicator;
use ff2_model::{Exchange, ModelError};

/// A stream of its own, so that tokens wait for no gradients.
#[derive(Debug)]
pub(crate) struct ExpertRanks(pub(crate) Communicator);

impl Exchange for ExpertRanks {
    fn ranks(&self) -> usize {
        self.0.ranks()
    }

    fn all_to_all(&self, out: Vec<Vec<f32>>) -> Result<Vec<Vec<f32>>, ModelError> {
        let come = self.0.all_to_all(out).and_then(|started| started.wait());
        come.map_err(|error| ModelError::Ranks(Box::new(error)))
    }
}
