//! What hosts add to the network, calibrated on figures published for real clusters.
//!
//! Each constant says what it was calibrated on; what was only predicted, tests compare with what was measured.

/// Part of a storage node's wire that is payload. Calibrated on one figure: 8 TB/s read of 360 ports of 25 GB/s on
/// a quiet cluster (arXiv 2408.14158, VI-B2).
pub const READ_EFFICIENCY: f64 = 8.0 / 9.0;

/// Nodes' reads under way at once, as they bind: calibrated on the public 3FS stress test, 6.6 TiB/s for 500 clients
/// with training beside them (README of 3FS). That figure is fitted, not predicted.
pub const READ_WINDOW: usize = 3;

/// Seconds for each GB of HFReduce: `base` and one `level` for each doubling of the nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HfReduce {
    pub base: f64,
    pub level: f64,
}

impl HfReduce {
    /// Two terms calibrated together on the four points known by number, 16, 128, 1024 and 1440 GPUs (arXiv
    /// 2408.14158, Fig. 7; 186 MiB): none of the four is predicted.
    pub const PCIE: Self = Self { base: 0.1190, level: 0.0045 };

    /// Calibrated on 32 and 1024 GPUs of the curve with NVLink; 64 to 512 GPUs, and all points across zones, are
    /// predicted. Two nodes exchange directly, without a tree: they are outside the model.
    pub const NVLINK: Self = Self { base: 0.0576, level: 0.009_66 };

    /// GB/s of an allreduce over this many nodes. Crossing zones costs one level: the trees meet at one pair.
    pub fn gbyte_per_s(self, nodes: u32, across_zones: bool) -> f64 {
        let levels = f64::from(nodes.max(2)).log2() + f64::from(u8::from(across_zones));
        1.0 / (self.base + self.level * levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(model: f64, measured: f64) -> f64 {
        (model / measured - 1.0).abs()
    }

    #[test]
    fn hfreduce_is_within_a_tenth_of_the_known_points() {
        for (nodes, measured) in [(2, 8.10), (16, 7.78), (128, 6.31), (180, 6.99)] {
            let model = HfReduce::PCIE.gbyte_per_s(nodes, false);
            assert!(error(model, measured) < 0.10, "{nodes} nodes: {model:.2} for {measured}");
        }
        let nvlink = [(4, 13.0), (8, 12.07), (16, 10.3), (32, 9.66), (64, 8.56), (128, 7.99)];
        for (nodes, measured) in nvlink {
            let model = HfReduce::NVLINK.gbyte_per_s(nodes, false);
            assert!(error(model, measured) < 0.05, "{nodes} nodes: {model:.2} for {measured}");
        }
        for (nodes, measured) in [(16, 9.27), (32, 8.63), (64, 8.06), (128, 7.75)] {
            let model = HfReduce::NVLINK.gbyte_per_s(nodes, true);
            assert!(error(model, measured) < 0.05, "{nodes} across: {model:.2} for {measured}");
        }
    }
}
