//! The person who adds metads to the cluster and takes others out, one at a time and while it works.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    message::{Answer, Call, Message, RpcId},
    net::Place,
    rng::Rng,
    world::{Context, FOUNDERS, Later, METADS},
};

const ASK_AGAIN: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Place),
    Remove(Place),
}

#[derive(Clone, Debug)]
pub(crate) enum Timer {
    Next,
    Timeout(RpcId),
}

#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) place: Place,
    /// Who is in, as far as the operator was told; who is on its way out still is.
    pub(crate) members: BTreeSet<Place>,
    current: Option<(Change, u32)>,
    waiting: Option<RpcId>,
    metad: usize,
}

impl Operator {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, members: FOUNDERS.into(), current: None, waiting: None, metad: 0 }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// The next change: three metads or four, and each may be the one that goes.
    pub(crate) fn choose(&self, rng: &mut Rng) -> Change {
        let out: Vec<Place> = METADS.into_iter().filter(|m| !self.members.contains(m)).collect();
        let members: Vec<Place> = self.members.iter().copied().collect();
        match rng.pick(&out) {
            Some(&place) => Change::Add(place),
            None => Change::Remove(*rng.pick(&members).expect("a cluster has metads")),
        }
    }

    /// Says when to look whether it is done.
    pub(crate) fn begin(&mut self, change: Change) -> (Duration, Later) {
        assert!(self.is_idle(), "one change at a time");
        self.current = Some((change, 0));
        (ASK_AGAIN, Later::Operator(Timer::Next))
    }

    pub(crate) fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Next => self.attempt(cx),
            Timer::Timeout(rpc) => self.on_answer(cx, rpc, &Answer::Silence),
        }
    }

    fn attempt(&mut self, cx: &mut Context<'_>) {
        let Some((change, group)) = self.current else { return };
        let call = match change {
            Change::Add(node) => Call::Votes { group, node },
            Change::Remove(node) => Call::Remove { group, node },
        };
        let rpc = cx.next_rpc();
        self.waiting = Some(rpc);
        let to = cx.metads[self.metad % cx.metads.len()];
        cx.send(to, Message::Call { rpc, from: self.place, call });
        cx.after(TIMEOUT, Later::Operator(Timer::Timeout(rpc)));
    }

    /// Both groups are asked until they say that it is done.
    pub(crate) fn on_answer(&mut self, cx: &mut Context<'_>, rpc: RpcId, answer: &Answer) {
        if self.waiting.take_if(|waiting| *waiting == rpc).is_none() {
            return;
        }
        let Some((change, group)) = self.current else { return };
        match answer {
            Answer::Votes(Ok(true)) | Answer::Removed(Ok(())) if group == 0 => {
                self.current = Some((change, 1));
            }
            Answer::Votes(Ok(true)) | Answer::Removed(Ok(())) => {
                match change {
                    Change::Add(place) => self.members.insert(place),
                    Change::Remove(place) => self.members.remove(&place),
                };
                self.current = None;
                return cx.change_done(change);
            }
            Answer::Votes(Ok(false)) => {}
            _ => self.metad += 1,
        }
        cx.after(ASK_AGAIN, Later::Operator(Timer::Next));
    }
}
