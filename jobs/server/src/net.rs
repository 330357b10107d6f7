//! Connections: a bounded number of them, and none that may be slow for ever.

pub mod body;
pub mod paced;
pub mod serve;
pub mod tls;
