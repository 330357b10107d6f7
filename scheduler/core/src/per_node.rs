//! What a job takes of each node that it lies on.

use crate::job::Resources;

/// Counts, or whole nodes of whatever size. Equal for all nodes of a job in what it asks, not in what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PerNode {
    /// Of each task; where a node is taken whole, what it has at least.
    pub(crate) task: Resources,
    /// It is alone there, with all that the node has, as with Slurm's `--exclusive`: then it has one task on a node.
    pub(crate) whole: bool,
}

impl PerNode {
    /// What so many tasks take of a node with a capacity.
    pub(crate) fn takes(self, tasks: u32, capacity: Resources) -> Resources {
        if self.whole { capacity } else { self.task.times(tasks) }
    }

    /// Tasks for which `free` of a node's capacity has room.
    pub(crate) fn room(self, free: Resources, capacity: Resources) -> u32 {
        match self.whole {
            true => u32::from(free == capacity && self.task.fits_in(capacity)),
            false => free.room(self.task),
        }
    }

    /// What has to be free of a node for one task more than `free` has room for; none: that cannot be.
    pub(crate) fn for_one_more(self, free: Resources, capacity: Resources) -> Option<Resources> {
        let room = self.room(free, capacity);
        match self.whole {
            true => (room == 0 && self.task.fits_in(capacity)).then_some(capacity),
            false => Some(self.task.times(room + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_node_is_taken_whatever_its_size_if_it_has_the_least_and_nobody_is_there() {
        let of = |gpus| Resources { gpus, cpus: 8, memory: 100 };
        let whole = PerNode { task: Resources { gpus: 4, cpus: 1, memory: 0 }, whole: true };
        assert_eq!(whole.takes(1, of(6)), of(6));
        assert_eq!([3, 4, 6].map(|gpus| whole.room(of(gpus), of(gpus))), [0, 1, 1]);
        assert_eq!(whole.room(of(6).without(of(1)), of(6)), 0, "somebody is there");
        assert_eq!(whole.for_one_more(of(4), of(6)), Some(of(6)));
        assert_eq!(whole.for_one_more(of(6), of(6)), None, "it has one task there");
        let counts = PerNode { whole: false, ..whole };
        assert_eq!((counts.takes(2, of(9)), counts.room(of(9), of(9))), (counts.task.times(2), 2));
    }
}
