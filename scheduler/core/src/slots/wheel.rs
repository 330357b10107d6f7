//! How much checkpoints write in each cell of an hour.

use crate::slots::{CELL_MS, CheckpointSlot, Demand, PEAK_PERCENT, WHEEL};

/// It follows from the slots of jobs. All rates in bytes/s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    /// At most, with each job as early and as late as it may be.
    cells: Vec<u64>,
    /// Of all jobs that run and have a slot or are to have one.
    mean: u64,
    /// What those wrote in the mean that stop, and what they may write now.
    stopping_mean: u64,
    stopping: u128,
    /// Up to this nobody minds how uneven it is.
    calm: u64,
}

impl Wheel {
    pub(crate) fn new(calm: u64) -> Self {
        Self { cells: vec![0; WHEEL as usize], mean: 0, stopping_mean: 0, stopping: 0, calm }
    }

    pub(crate) fn calm(&self) -> u64 {
        self.calm
    }

    pub(crate) fn set_calm(&mut self, calm: u64) {
        self.calm = calm;
    }

    /// A job is to have a slot.
    pub(crate) fn join(&mut self, demand: &Demand) {
        self.mean += demand.mean();
    }

    pub(crate) fn leave(&mut self, demand: &Demand) {
        self.mean -= demand.mean();
    }

    pub(crate) fn take(&mut self, demand: &Demand, slot: &CheckpointSlot) {
        cells_of(demand, slot).for_each(|cell| self.cells[cell] += slot.bytes_per_s);
    }

    pub(crate) fn give(&mut self, demand: &Demand, slot: &CheckpointSlot) {
        cells_of(demand, slot).for_each(|cell| self.cells[cell] -= slot.bytes_per_s);
    }

    /// A job saves for the last time, until it is gone.
    pub(crate) fn stop(&mut self, demand: &Demand, slot: &CheckpointSlot) {
        self.stopping_mean += demand.mean();
        self.stopping += u128::from(slot.bytes_per_s);
    }

    pub(crate) fn gone(&mut self, demand: &Demand, slot: &CheckpointSlot) {
        self.stopping_mean -= demand.mean();
        self.stopping -= u128::from(slot.bytes_per_s);
    }

    /// What jobs may write for the last time that are told to stop now, for `ms` from now on, and wrote so much in the
    /// mean: what all may write, without those that run and those that stop already; at least what they had.
    pub(crate) fn room_to_stop(&self, now_ms: u64, ms: u64, mean: u64) -> u64 {
        let first = now_ms / CELL_MS;
        let cells = (first..=first + (ms / CELL_MS).min(WHEEL)).map(|cell| (cell % WHEEL) as usize);
        let others = cells.map(|cell| self.cells[cell]).max().unwrap_or(0);
        let all = at_most(self.mean + self.stopping_mean + mean).max(self.calm);
        let room = u128::from(all).saturating_sub(u128::from(others) + self.stopping);
        u64::try_from(room).unwrap_or(u64::MAX).max(at_most(mean))
    }

    /// What no cell should have more of.
    pub(crate) fn limit(&self) -> u64 {
        at_most(self.mean).max(self.calm)
    }

    pub(crate) fn mean(&self) -> u64 {
        self.mean
    }

    pub(crate) fn peak(&self) -> u64 {
        self.cells.iter().copied().max().unwrap_or(0)
    }

    /// The cell that has most, if that is too much.
    pub(crate) fn over(&self) -> Option<u64> {
        let (cell, most) = (0..).zip(&self.cells).max_by_key(|(_, most)| **most)?;
        (*most > self.limit()).then_some(cell)
    }

    /// The shortest slot that fits, where the least is written otherwise; if none fits, the longest. Among equal places
    /// the first from a cell on that differs by job: those that write all the time shall not all begin at once.
    pub(crate) fn best(&self, demand: &Demand, from: u64) -> CheckpointSlot {
        // One of several hours would be counted in each of them, as if it wrote so many times as much.
        let limit = if demand.every > WHEEL { self.calm } else { self.limit() };
        let others = self.folded(demand.turn());
        let mut place = None;
        for length in demand.lengths() {
            let highest = highest_of(&others, demand.reach(length));
            let phases = (from..from + demand.turn()).map(|phase| phase % demand.turn());
            let phase = phases.min_by_key(|phase| highest[*phase as usize]).unwrap_or(0);
            let slot = demand.slot(phase, length);
            place = Some(slot);
            if highest[phase as usize] + slot.bytes_per_s <= limit {
                break;
            }
        }
        place.expect("there is a longest slot")
    }

    /// Cells that a slot has together, as one with their highest.
    fn folded(&self, turn: u64) -> Vec<u64> {
        let mut folded = vec![0; turn as usize];
        for turn in self.cells.chunks(turn as usize) {
            folded.iter_mut().zip(turn).for_each(|(most, cell)| *most = (*most).max(*cell));
        }
        folded
    }
}

/// The most that there should be at any moment, of jobs that write so much in the mean.
fn at_most(mean: u64) -> u64 {
    // The mean of many large jobs, a hundred times, is more than there are numbers.
    let (hundreds, rest) = (mean / 100, mean % 100);
    hundreds * PEAK_PERCENT + rest * PEAK_PERCENT / 100
}

fn cells_of(demand: &Demand, slot: &CheckpointSlot) -> impl Iterator<Item = usize> + use<> {
    let turn = demand.turn();
    let (phase, reach) = (slot.phase_ms / CELL_MS, demand.reach(slot.length_ms / CELL_MS));
    let first = (0..WHEEL / turn).map(move |times| times * turn + phase);
    first.flat_map(move |first| (first..first + reach).map(|cell| (cell % WHEEL) as usize))
}

/// The highest of so many neighbours on a circle, by the first of them.
fn highest_of(circle: &[u64], neighbours: u64) -> Vec<u64> {
    let mut highest = circle.to_vec();
    let mut reach = 1;
    while reach < neighbours as usize {
        let further = reach.min(neighbours as usize - reach);
        let both = |at: usize| highest[at].max(highest[(at + further) % circle.len()]);
        highest = (0..circle.len()).map(both).collect();
        reach += further;
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, JobSpec};

    fn demand(minutes: u64, gib: u64, step_s: u64) -> Demand {
        let checkpoint =
            Checkpoint { interval_ms: minutes * 60_000, bytes: gib << 30, step_ms: step_s * 1_000 };
        Demand::of_spec(&JobSpec { checkpoint: Some(checkpoint), ..JobSpec::default() }, 1).unwrap()
    }

    /// Gives all of them slots, in this order.
    fn filled(demands: &[Demand]) -> (Wheel, Vec<CheckpointSlot>) {
        let mut wheel = Wheel::new(0);
        demands.iter().for_each(|demand| wheel.join(demand));
        let slots = demands.iter().zip(0..).map(|(demand, from)| {
            let slot = wheel.best(demand, from);
            wheel.take(demand, &slot);
            slot
        });
        let slots = slots.collect();
        (wheel, slots)
    }

    #[test]
    fn the_highest_of_neighbours_goes_round() {
        let circle = [3, 1, 4, 1, 5, 9, 2, 6];
        assert_eq!(highest_of(&circle, 1), circle);
        assert_eq!(highest_of(&circle, 3), [4, 4, 5, 9, 9, 9, 6, 6]);
        assert_eq!(highest_of(&circle, 8), [9; 8]);
    }

    #[test]
    fn one_job_writes_all_the_time() {
        let (wheel, slots) = filled(&[demand(5, 300, 20)]);
        assert_eq!((slots[0].every_ms, slots[0].length_ms), (300_000, 285_000));
        assert_eq!(slots[0].bytes_per_s, (300_u64 << 30).div_ceil(285));
        assert_eq!(wheel.peak(), slots[0].bytes_per_s);
    }

    #[test]
    fn the_largest_jobs_can_be_counted() {
        let mut wheel = Wheel::new(0);
        let checkpoint = Checkpoint { interval_ms: 0, bytes: u64::MAX, step_ms: 0 };
        let spec = JobSpec { tasks: u32::MAX, checkpoint: Some(checkpoint), ..JobSpec::default() };
        let demand = Demand::of_spec(&spec, spec.gpus()).unwrap();
        for _ in 0..crate::limits::JOBS_MAX {
            wheel.join(&demand);
            wheel.take(&demand, &demand.slot(0, demand.longest()));
        }
        assert!(wheel.over().is_none() && wheel.peak() > wheel.mean());
    }

    #[test]
    fn small_jobs_have_short_slots_one_beside_the_other() {
        let (wheel, slots) = filled(&[demand(5, 10, 5); 300]);
        assert!(wheel.over().is_none(), "{} of {}", wheel.peak(), wheel.mean());
        let short = slots.iter().filter(|slot| slot.length_ms == 150_000).count();
        assert!(short > 280, "{short}");
    }

    #[test]
    fn others_write_while_a_large_job_does_not() {
        // A twentieth of all is one job's.
        let demands: Vec<Demand> =
            [demand(5, 200, 5)].into_iter().chain([demand(5, 10, 5); 360]).collect();
        let (wheel, slots) = filled(&demands);
        assert!(slots[0].length_ms < 200_000, "{:?}", slots[0]);
        assert!(wheel.over().is_none(), "{} of {}", wheel.peak(), wheel.mean());
    }

    #[test]
    fn other_intervals_fit_in() {
        let demands: Vec<Demand> =
            (0..400).map(|at| demand([5, 10, 15, 30, 60, 120][at % 6], 10, 10)).collect();
        let (mut wheel, slots) = filled(&demands);
        assert!(wheel.over().is_none(), "{} of {}", wheel.peak(), wheel.mean());
        for (demand, slot) in demands.iter().zip(&slots) {
            wheel.give(demand, slot);
            wheel.leave(demand);
        }
        assert_eq!(wheel, Wheel::new(0), "all is given back");
    }

    #[test]
    fn below_what_nobody_minds_slots_are_short() {
        let mut wheel = Wheel::new(50 << 30);
        let demand = demand(60, 100, 20);
        wheel.join(&demand);
        assert_eq!(wheel.best(&demand, 0).length_ms, 600_000);
        wheel.set_calm(0);
        assert!(wheel.best(&demand, 0).length_ms > 3_000_000);
    }
}
