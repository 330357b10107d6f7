//! Connections: a bounded number of them, and none that may be slow for ever.

pub mod body;
pub mod descriptors;
pub mod paced;
pub mod serve;
pub mod tls;
