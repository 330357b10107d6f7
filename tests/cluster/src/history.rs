//! Whether what several mounts saw can have happened in one order: linearizability, decided by search.
//!
//! Wing and Gong (1993): a history of overlapping operations is linearizable if each can be given a moment
//! between its call and its return such that the outcomes, in the order of these moments, are those of
//! the sequential model. The search goes through the history's events in time. It keeps all
//! *configurations* that are still possible: a state of the model, and which of the operations in
//! progress took effect already (Lowe's and Horn's memoisation: equal configurations are one). When an
//! operation returns, those remain in which it has taken effect, or now does. None left: no order explains
//! what was seen. Objects that do not know of each other are checked apart, which keeps the search small.
//!
//! Pure: the models and the search know no files. [`workload`] makes histories on mounts.

pub mod contents;
pub mod names;
#[cfg(test)]
mod tests;
pub mod workload;

use std::{collections::BTreeSet, fmt::Debug};

/// A sequential object.
pub trait Model {
    type State: Clone + Debug + Ord;
    type Action: Debug;
    type Outcome: Debug;

    fn initial() -> Self::State;

    /// The state after an action with this outcome, `None` if it cannot have it. An outcome that nobody
    /// knows (`None`) allows all that the action may do, nothing aside: the search knows that one.
    fn step(
        state: &Self::State,
        action: &Self::Action,
        outcome: Option<&Self::Outcome>,
    ) -> Option<Self::State>;
}

/// One operation as a client saw it. Times are of one clock for all clients, in any unit.
#[derive(Clone, Debug)]
pub struct Operation<A, O> {
    pub client: usize,
    pub called: u64,
    pub action: A,
    /// When it returned, and with what. `None`: it failed in a way that does not tell whether it was
    /// done, and may take effect at any time after its call, or never.
    pub returned: Option<(u64, O)>,
}

/// Why a history is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No order explains it up to the return of this operation (an index of the history). The states
    /// are those that were possible before.
    NotLinearizable { operation: usize, states: Vec<String> },
    /// More configurations than the search may keep.
    TooWide { operation: usize },
}

/// The most configurations that are kept: far more than histories of a few clients have.
const CONFIGURATIONS_MAX: usize = 1 << 20;

/// A state, and the operations in progress that took effect.
type Configuration<S> = (S, BTreeSet<usize>);

/// Looks for an order of these operations on one object.
pub fn check<M: Model>(history: &[Operation<M::Action, M::Outcome>]) -> Result<(), Refusal> {
    let mut in_progress = BTreeSet::new();
    let mut possible = BTreeSet::from([(M::initial(), BTreeSet::new())]);
    for event in events(history) {
        match event {
            Event::Call(operation) => drop(in_progress.insert(operation)),
            Event::Return(operation) => {
                let next = after_return::<M>(history, &in_progress, &possible, operation)?;
                if next.is_empty() {
                    let states = possible.iter().map(|(state, _)| format!("{state:?}"));
                    let states = states.collect::<BTreeSet<_>>().into_iter().collect();
                    return Err(Refusal::NotLinearizable { operation, states });
                }
                possible = next;
                in_progress.remove(&operation);
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Before returns of the same moment: such operations overlap.
    Call(usize),
    Return(usize),
}

fn events<A, O>(history: &[Operation<A, O>]) -> Vec<Event> {
    let mut events = Vec::with_capacity(2 * history.len());
    for (index, operation) in history.iter().enumerate() {
        events.push((operation.called, Event::Call(index)));
        if let Some((at, _)) = operation.returned {
            events.push((at, Event::Return(index)));
        }
    }
    events.sort_unstable();
    events.into_iter().map(|(_, event)| event).collect()
}

/// The configurations in which `returned` has taken effect, with whatever else took effect before it.
fn after_return<M: Model>(
    history: &[Operation<M::Action, M::Outcome>],
    in_progress: &BTreeSet<usize>,
    possible: &BTreeSet<Configuration<M::State>>,
    returned: usize,
) -> Result<BTreeSet<Configuration<M::State>>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut after = BTreeSet::new();
    let mut open: Vec<Configuration<M::State>> = possible.iter().cloned().collect();
    while let Some((state, mut done)) = open.pop() {
        if done.contains(&returned) {
            done.remove(&returned);
            after.insert((state, done));
            continue;
        }
        if !seen.insert((state.clone(), done.clone())) {
            continue;
        }
        if seen.len() > CONFIGURATIONS_MAX {
            return Err(Refusal::TooWide { operation: returned });
        }
        for &next in in_progress.difference(&done) {
            let operation = &history[next];
            let outcome = operation.returned.as_ref().map(|(_, outcome)| outcome);
            if let Some(state) = M::step(&state, &operation.action, outcome) {
                let mut done = done.clone();
                done.insert(next);
                open.push((state, done));
            }
        }
    }
    Ok(after)
}
