//! What a run is made of besides its seed.

use crate::{mutation::Mutation, table::Table};

/// The default is the cluster as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting {
    /// An error that is planted into the nodes.
    pub mutation: Option<Mutation>,
    pub table: Table,
}

impl Setting {
    pub fn of(mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..Self::default() }
    }
}
