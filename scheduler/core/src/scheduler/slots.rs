//! Gives running jobs the slots of their checkpoints.
//!
//! A job that starts gets the best place for it, and keeps that as long as it runs. Only where somewhere too much
//! would be written, because others came or left, jobs have other slots: of those that write there, the largest
//! first, until it is little enough. A job that is to make room has a slot for its last save, until it is gone.

use std::cmp::Reverse;

use crate::{
    job::{Job, JobId, State},
    scheduler::Scheduler,
    slots::{
        CELL_MS, CheckpointSlot, Demand,
        stops::{Stop, spread},
        wheel::Wheel,
    },
};

impl Scheduler {
    /// A run began: it has a slot when the step is done.
    pub(crate) fn want_slot(&mut self, id: JobId) {
        if let Some(demand) = Demand::of(&self.jobs[&id]) {
            self.wheel.join(&demand);
            self.without_slot.insert(id);
            self.is_uneven = true;
        }
    }

    /// A run is to save for the last time: it has a slot for that when the step is done. Call it while it still runs.
    pub(crate) fn want_last_slot(&mut self, id: JobId) {
        self.give_up_slot(id);
        if Demand::of(&self.jobs[&id]).is_some() {
            self.without_last_slot.insert(id);
        }
    }

    /// A run is killed or gone. Call it before its state says so.
    pub(crate) fn give_up_slot(&mut self, id: JobId) {
        self.without_last_slot.remove(&id);
        let job = self.jobs.get_mut(&id).expect("the caller has it");
        let Some(demand) = Demand::of(job) else { return };
        match (job.slot.take(), &job.state) {
            (Some(slot), State::Stopping { .. }) => return self.wheel.gone(&demand, &slot),
            (Some(slot), _) => self.wheel.give(&demand, &slot),
            // It was killed before.
            (None, _) if !self.without_slot.remove(&id) => return,
            (None, _) => {}
        }
        self.wheel.leave(&demand);
        self.is_uneven = true;
    }

    pub(crate) fn set_calm(&mut self, bytes_per_s: u64) {
        self.wheel.set_calm(bytes_per_s);
        self.is_uneven = true;
    }

    /// After a step: what came and left in it is known as a whole.
    pub(crate) fn give_slots(&mut self) {
        self.give_slots_to_running();
        self.give_last_slots();
    }

    /// To those that were told to stop in this step, whose own slots are free by now.
    fn give_last_slots(&mut self) {
        if self.without_last_slot.is_empty() {
            return;
        }
        let new = std::mem::take(&mut self.without_last_slot).into_iter();
        let new: Vec<(JobId, Demand)> =
            new.filter_map(|id| Some((id, Demand::of(&self.jobs[&id])?))).collect();
        let stop = |(id, demand): &(JobId, Demand)| {
            let job = &self.jobs[id];
            // One that was killed meanwhile has no time.
            let grace_ms = job.killed_at_ms().unwrap_or(0).saturating_sub(self.now);
            demand.stop(&job.spec, grace_ms)
        };
        let stops: Vec<Stop> = new.iter().map(stop).collect();
        let mean = new.iter().map(|(_, demand)| demand.mean()).sum();
        let longest = stops.iter().map(|stop| stop.within_ms).max().unwrap_or(0);
        let lengths = spread(&stops, self.wheel.room_to_stop(self.now, longest, mean));
        for ((id, demand), length_ms) in new.into_iter().zip(lengths) {
            let slot = demand.last_slot(self.now, length_ms);
            self.wheel.stop(&demand, &slot);
            self.jobs.get_mut(&id).expect("it stops").slot = Some(slot);
        }
    }

    fn give_slots_to_running(&mut self) {
        if !std::mem::take(&mut self.is_uneven) {
            return;
        }
        let mut new: Vec<(Demand, JobId)> = std::mem::take(&mut self.without_slot)
            .into_iter()
            .filter_map(|id| Some((Demand::of(&self.jobs[&id])?, id)))
            .collect();
        // Small ones fit in between.
        new.sort_unstable_by_key(|(demand, id)| (Reverse(demand.mean()), *id));
        for (demand, id) in new {
            let slot = self.wheel.best(&demand, id.0);
            self.set_slot(id, &demand, slot);
        }
        self.even_out(|wheel, demand, id, _| wheel.best(demand, id.0));
        // If that was not enough those that are in the way write all the time, which at last always is: at least one
        // that did not comes to it each time.
        while self.wheel.over().is_some() {
            self.even_out(|_, demand, _, slot| {
                demand.slot(slot.phase_ms / CELL_MS, demand.longest())
            });
        }
    }

    /// Gives jobs other slots that write where too much is written, the largest first, until it is not.
    fn even_out(
        &mut self,
        other: impl Fn(&Wheel, &Demand, JobId, CheckpointSlot) -> CheckpointSlot,
    ) {
        let Some(mut highest) = self.wheel.over() else { return };
        let with_slot = self.running.iter().filter_map(|id| Some((self.jobs[id].slot?, *id)));
        let mut jobs: Vec<(CheckpointSlot, JobId)> = with_slot.collect();
        jobs.sort_unstable_by_key(|(slot, id)| (Reverse(slot.bytes_per_s), *id));
        for (slot, id) in jobs {
            let Some(demand) = Demand::of(&self.jobs[&id]) else { continue };
            if demand.writes_in(highest, &slot) {
                self.wheel.give(&demand, &slot);
                let other = other(&self.wheel, &demand, id, slot);
                self.set_slot(id, &demand, other);
                match self.wheel.over() {
                    Some(next) => highest = next,
                    None => return,
                }
            }
        }
    }

    fn set_slot(&mut self, id: JobId, demand: &Demand, slot: CheckpointSlot) {
        self.wheel.take(demand, &slot);
        self.jobs.get_mut(&id).expect("it runs").slot = Some(slot);
    }

    /// Makes the wheel anew from the slots of the jobs that run or stop.
    pub(crate) fn counted_slots(&self) -> Wheel {
        let mut wheel = Wheel::new(self.wheel.calm());
        let with_slot = |job: &Job| Some((Demand::of(job)?, job.slot?));
        for job in self.jobs.values() {
            match (with_slot(job), &job.state) {
                (Some((demand, slot)), State::Stopping { .. }) => wheel.stop(&demand, &slot),
                (Some((demand, slot)), _) => {
                    wheel.join(&demand);
                    wheel.take(&demand, &slot);
                }
                (None, _) => {}
            }
        }
        wheel
    }
}
