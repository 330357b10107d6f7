//! When a read changes an access time, as Linux has it by default: not each time, but if it tells something new.

use crate::pb;

/// A time that is so old is renewed in any case, ns.
const DAY_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Whether a read at this time (ns since 1970) changes the access time of what has these attributes: if the last one is
/// not after the last change, or a day old.
pub fn is_due(attr: &pb::Attr, at_ns: i64) -> bool {
    let is_news = attr.atime_ns <= attr.mtime_ns.max(attr.ctime_ns);
    at_ns > attr.atime_ns && (is_news || at_ns.saturating_sub(attr.atime_ns) >= DAY_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_once_after_a_change_and_once_a_day() {
        let attr = |atime_ns, mtime_ns, ctime_ns| pb::Attr {
            atime_ns,
            mtime_ns,
            ctime_ns,
            ..Default::default()
        };
        assert!(is_due(&attr(5, 5, 5), 6), "nobody read it since it was made");
        assert!(is_due(&attr(5, 7, 4), 8) && is_due(&attr(5, 4, 7), 8), "it was changed since");
        assert!(!is_due(&attr(9, 7, 8), 10), "that it was read since is known");
        assert!(is_due(&attr(9, 7, 8), 9 + DAY_NS));
        assert!(!is_due(&attr(9, 9, 9), 9), "time never goes back");
        assert!(!is_due(&attr(9, i64::MAX, 0), 8));
        assert!(is_due(&attr(i64::MIN, 0, 0), i64::MAX));
    }
}
