//! The ranks of a run: what all of them decide together. One rank alone decides without asking.

use anyhow::{Context, Result, bail};
use crc_fast::crc32_iscsi;
use ff2_collectives::{Communicator, Rendezvous};
use serde::Serialize;

use super::job::Request;

#[derive(Debug)]
pub(super) struct Ranks {
    world: Communicator,
}

/// What is to be done between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) save: bool,
    pub(super) request: Option<Request>,
}

impl Ranks {
    /// Meets the others, if the environment says that there are any. `encrypt`: what they exchange, between hosts.
    ///
    /// # Errors
    /// What is wrong with the environment, and who did not come.
    pub(super) fn meet(encrypt: bool) -> Result<Self> {
        let world = match Rendezvous::from_env()? {
            Some(mut rendezvous) => {
                rendezvous.network.encrypt = encrypt;
                Communicator::meet(rendezvous)
            }
            None => Communicator::alone(),
        };
        Ok(Self { world: world? })
    }

    pub(super) fn rank(&self) -> usize {
        self.world.rank()
    }

    pub(super) fn count(&self) -> usize {
        self.world.ranks()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.count() == 1
    }

    /// Rank 0 shows, saves and tells.
    pub(super) fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// A stream for the model's numbers.
    pub(super) fn stream(&self) -> Communicator {
        self.world.split(|_| 0)
    }

    /// Runs `work` on rank 0 first: what it changes on disk is done when the others look.
    ///
    /// # Errors
    /// The work's, and a rank that is gone.
    pub(super) fn first_alone<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.leads() {
            self.world.barrier().wait()?;
        }
        let done = work()?;
        if self.leads() {
            self.world.barrier().wait()?;
        }
        Ok(done)
    }

    /// # Errors
    /// Ranks that have another `thing` than rank 0.
    pub(super) fn have_same(&self, what: &str, thing: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(thing).with_context(|| format!("compare the {what}"))?;
        let sums = self.world.share(vec![crc32_iscsi(&text)]).wait()?;
        if let Some(rank) = sums.iter().position(|found| *found != sums[0]) {
            bail!("rank {rank} has another {what} than rank 0: start all ranks with the same");
        }
        Ok(())
    }

    /// # Errors
    /// Ranks that begin at other steps than rank 0.
    pub(super) fn begin_at(&self, step: u64) -> Result<()> {
        let steps = self.world.share(vec![step]).wait()?;
        if let Some(rank) = steps.iter().position(|found| *found != steps[0]) {
            bail!(
                "rank {rank} goes on from step {}, expected {} as rank 0 does: do all ranks see the same checkpoints?",
                steps[rank][0],
                steps[0][0],
            );
        }
        Ok(())
    }

    /// Who is asked to make room asks all; rank 0 knows when a checkpoint is due.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(super) fn decide(&self, request: Option<Request>, is_due: bool) -> Result<Decision> {
        if self.is_alone() {
            return Ok(Decision { save: is_due, request });
        }
        let word = request.map_or(0, Request::word);
        let words = self.world.share(vec![word, u32::from(is_due)]).wait()?;
        let asked = words.iter().map(|of_rank| of_rank[0]).max().unwrap_or(0);
        Ok(Decision { save: words[0][1] != 0, request: Request::of_word(asked) })
    }

    /// What rank 0 says.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(super) fn told(&self, own: bool) -> Result<bool> {
        Ok(self.decide(None, own)?.save)
    }

    /// Sums over all ranks, the same on each.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(super) fn sum<const N: usize>(&self, own: [f64; N]) -> Result<[f64; N]> {
        let all = self.world.share(own.to_vec()).wait()?;
        Ok(std::array::from_fn(|at| all.iter().map(|of_rank| of_rank[at]).sum()))
    }

    /// Tells the others why this rank ends.
    pub(super) fn fail(&self, error: &anyhow::Error) {
        self.world.fail(&format!("{error:#}"));
    }

    /// The end of all ranks, in order.
    ///
    /// # Errors
    /// A rank that failed before it came here.
    pub(super) fn close(&self) -> Result<()> {
        Ok(self.world.close()?)
    }
}
