//! Is memory fast, and does it keep what is written?

pub(crate) mod bandwidth;
pub(crate) mod pattern;
