//! What hosts add to the network, calibrated on figures published for real clusters.
//!
//! Each constant says what it was calibrated on; what was only predicted, tests compare with what was measured.

/// Part of a storage node's wire that is payload. Calibrated on one figure: 8 TB/s read of 360 ports of 25 GB/s on
/// a quiet cluster (arXiv 2408.14158, VI-B2).
pub const READ_EFFICIENCY: f64 = 8.0 / 9.0;

/// Nodes' reads under way at once, as they bind: calibrated on the public 3FS stress test, 6.6 TiB/s for 500 clients
/// with training beside them (README of 3FS). That figure is fitted, not predicted.
pub const READ_WINDOW: usize = 3;
