//! How fast jobs save that are to make room, so that they do not all write at once what they have.

/// One that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) bytes: u64,
    /// Its last save may take so long, ms.
    pub(crate) within_ms: u64,
}

/// Nobody is told to be faster than this, ms.
const LENGTH_MIN_MS: u64 = 1_000;

/// How long each of them writes, ms: all for equally long, as long as it takes with `room` bytes/s for all together.
/// Who has not so much time writes for as long as it has, and the others for longer, as far as they have the time.
pub(crate) fn spread(stops: &[Stop], room: u64) -> Vec<u64> {
    let mut lengths = vec![0; stops.len()];
    let mut by_time: Vec<usize> = (0..stops.len()).collect();
    by_time.sort_by_key(|at| stops[*at].within_ms);
    let mut bytes: u128 = stops.iter().map(|stop| u128::from(stop.bytes)).sum();
    let mut room = u128::from(room);
    for at in by_time {
        let Stop { bytes: own, within_ms } = stops[at];
        let even = if room == 0 { u128::MAX } else { (bytes * 1_000).div_ceil(room) };
        let even = u64::try_from(even).unwrap_or(u64::MAX);
        lengths[at] = even.min(within_ms).max(LENGTH_MIN_MS);
        let own = u128::from(own);
        bytes -= own;
        // Rounded down: by a byte/s, which the others need not be slower for.
        room = room.saturating_sub(own * 1_000 / u128::from(lengths[at]));
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(bytes: u64, within_ms: u64) -> Stop {
        Stop { bytes, within_ms }
    }

    #[test]
    fn all_write_for_equally_long() {
        let stops = [stop(4_000_000, 60_000), stop(8_000_000, 300_000), stop(1_000_000, 50_000)];
        assert_eq!(spread(&stops, 1_000_000), [13_000; 3]);
        assert_eq!(spread(&stops, 100_000_000), [LENGTH_MIN_MS; 3]);
    }

    #[test]
    fn who_has_time_makes_up_for_who_has_not() {
        let stops = [stop(6_000_000, 300_000), stop(6_000_000, 10_000)];
        // 600,000 bytes/s of the second leave 400,000.
        assert_eq!(spread(&stops, 1_000_000), [15_000, 10_000]);
        // Nothing is left: each as slowly as it may.
        assert_eq!(spread(&stops, 600_000), [300_000, 10_000]);
        assert_eq!(spread(&stops, 0), [300_000, 10_000]);
    }

    #[test]
    fn the_largest_jobs_can_be_counted() {
        let stops = vec![stop(1 << 50, 1 << 40); 100_000];
        assert_eq!(spread(&stops, 1).len(), stops.len());
        assert_eq!(spread(&[], 7), [0; 0]);
    }
}
