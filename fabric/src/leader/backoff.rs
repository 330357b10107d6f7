//! Random pauses: so that many who failed together do not come back together.

use std::time::Duration;

/// A random number that is not 0.
pub(crate) fn random() -> u64 {
    // Without a random source the pauses of all nodes are equal, which is slow but not wrong.
    getrandom::u64().unwrap_or(1).max(1)
}

/// A random start for rounds over a list.
pub(crate) fn random_index() -> usize {
    usize::from(random() as u16)
}

/// Between half of `pause` and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let part = u32::from(random() as u16);
    half + half * part / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_half_and_all() {
        let pause = Duration::from_millis(100);
        for _ in 0..1_000 {
            let jittered = jittered(pause);
            assert!(jittered >= pause / 2 && jittered <= pause, "{jittered:?}");
        }
    }
}
