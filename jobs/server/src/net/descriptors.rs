//! Room for connections among the descriptors that a process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;

/// Raises the limit of open files to what the administrator allows: the one that a shell inherits is made for other
/// programs. Returns how many connections fit, at most `wanted`, each with `each` descriptors.
pub fn room(wanted: usize, each: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // None: as many as there may be.
    let most = current.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
    let fits = most.saturating_sub(limits::DESCRIPTORS_KEPT) / each;
    if fits < wanted {
        tracing::warn!(
            wanted,
            fits,
            "fewer connections than asked for: the limit of open files (ulimit -Hn) is {most}"
        );
    }
    wanted.min(fits.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_no_more_than_files_may_be_open() {
        assert_eq!(room(3, 1), 3);
        let most = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |it| it as usize);
        assert!(room(usize::MAX, 2) <= most / 2);
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }
}
