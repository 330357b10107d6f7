//! What this program knows of the releases of others (docs/design/0010): feature levels, and versions of the protocol.

use std::sync::LazyLock;

use ff2_proto::{LEVEL, PROTOCOL_VERSIONS};

/// As `ff2ctl status` shows it where members differ.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// For tests of upgrades: the program takes part as one of this level, and of the protocol from before there were
/// levels.
const AS_LEVEL: &str = "FF2_TEST_AS_LEVEL";

static KNOWN: LazyLock<u32> = LazyLock::new(|| {
    let told = std::env::var(AS_LEVEL).ok().and_then(|text| text.parse().ok());
    told.map_or(LEVEL, |level: u32| level.clamp(1, LEVEL))
});

/// The highest feature level that this program knows.
pub fn known() -> u32 {
    *KNOWN
}

/// The lowest and the highest version of the protocol that it speaks.
pub(crate) fn protocols() -> [u32; 2] {
    let [lowest, highest] = PROTOCOL_VERSIONS;
    if known() < LEVEL { [lowest, lowest] } else { [lowest, highest] }
}
