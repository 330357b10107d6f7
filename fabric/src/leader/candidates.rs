//! Whom to ask next: the pure part of finding a leader.

use std::time::Duration;

/// First pause after nobody answered as leader; doubles to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// An election takes about a second: longer pauses would only be felt by users.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Hints followed one after the other without a pause: two metads that each name the other know
/// nothing, and must not be asked in a tight loop.
const HINTS_IN_A_ROW_MAX: u32 = 2;

/// What to do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask this one at once.
    Ask(String),
    /// Everybody was asked: wait this long, then go on with this one.
    Pause(Duration, String),
}

/// The round of one call over the members of a group.
#[derive(Clone, Debug)]
pub(super) struct Candidates {
    members: Vec<String>,
    /// The member asked last, as an index; hints outside the list do not move it.
    position: usize,
    /// Members asked since the last pause.
    asked: usize,
    hints: u32,
    pauses: u32,
}

impl Candidates {
    /// `start` spreads the first questions of many callers.
    pub(super) fn new(members: Vec<String>, start: usize) -> Self {
        let position = if members.is_empty() { 0 } else { start % members.len() };
        Self { members, position, asked: 0, hints: 0, pauses: 0 }
    }

    /// The first to ask: whoever led last, or the next of the list.
    pub(super) fn first(&mut self, leader: Option<String>) -> Option<String> {
        match leader {
            Some(leader) => {
                self.hints = 1;
                Some(leader)
            }
            None => self.members.get(self.position).cloned().inspect(|_| self.asked = 1),
        }
    }

    /// `address` does not lead; it may know who does.
    pub(super) fn not_leader(&mut self, address: &str, hint: Option<String>) -> Next {
        match hint {
            Some(hint) if hint != address && self.hints < HINTS_IN_A_ROW_MAX => {
                self.hints += 1;
                Next::Ask(hint)
            }
            _ => self.advance(address),
        }
    }

    /// `address` did not answer, or not usefully.
    pub(super) fn silent(&mut self, address: &str) -> Next {
        self.advance(address)
    }

    /// `address` is the right one, but busy.
    pub(super) fn busy(&mut self, address: &str) -> Next {
        self.hints = 0;
        Next::Pause(self.pause(), address.to_owned())
    }

    fn advance(&mut self, address: &str) -> Next {
        self.hints = 0;
        if self.members.is_empty() {
            return Next::Pause(self.pause(), address.to_owned());
        }
        if self.members[self.position] == address || self.asked > 0 {
            self.position = (self.position + 1) % self.members.len();
        }
        let next = self.members[self.position].clone();
        if self.asked >= self.members.len() {
            self.asked = 1;
            return Next::Pause(self.pause(), next);
        }
        self.asked += 1;
        Next::Ask(next)
    }

    fn pause(&mut self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1 << self.pauses.min(10)).min(PAUSE_MAX);
        self.pauses = self.pauses.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Candidates {
        Candidates::new(vec!["a".into(), "b".into(), "c".into()], 0)
    }

    fn ask(address: &str) -> Next {
        Next::Ask(address.into())
    }

    #[test]
    fn a_hint_is_followed_at_once() {
        let mut round = three();
        assert_eq!(round.first(None).as_deref(), Some("a"));
        assert_eq!(round.not_leader("a", Some("c".into())), ask("c"));
    }

    #[test]
    fn two_that_name_each_other_are_not_asked_in_a_tight_loop() {
        let mut round = three();
        assert_eq!(round.first(None).as_deref(), Some("a"));
        let mut at = "a".to_owned();
        let mut questions = 0;
        loop {
            let other = if at == "a" { "b" } else { "a" };
            match round.not_leader(&at, Some(other.into())) {
                Next::Ask(next) => at = next,
                Next::Pause(pause, _) => {
                    assert_eq!(pause, PAUSE_MIN);
                    break;
                }
            }
            questions += 1;
            assert!(questions < 12, "no pause after {questions} questions");
        }
    }

    #[test]
    fn everybody_is_asked_before_a_pause_and_pauses_grow_to_the_limit() {
        let mut round = three();
        assert_eq!(round.first(None).as_deref(), Some("a"));
        assert_eq!(round.silent("a"), ask("b"));
        assert_eq!(round.silent("b"), ask("c"));
        assert_eq!(round.silent("c"), Next::Pause(PAUSE_MIN, "a".into()));
        assert_eq!(round.silent("a"), ask("b"));
        assert_eq!(round.silent("b"), ask("c"));
        assert_eq!(round.silent("c"), Next::Pause(PAUSE_MIN * 2, "a".into()));
        for _ in 0..40 {
            round.silent("a");
        }
        assert_eq!(round.busy("a"), Next::Pause(PAUSE_MAX, "a".into()));
    }

    #[test]
    fn a_known_leader_that_went_silent_leads_to_all_the_others() {
        let mut round = three();
        assert_eq!(round.first(Some("b".into())).as_deref(), Some("b"));
        assert_eq!(round.silent("b"), ask("a"));
        assert_eq!(round.silent("a"), ask("b"));
        assert_eq!(round.silent("b"), ask("c"));
        assert!(matches!(round.silent("c"), Next::Pause(..)));
    }

    #[test]
    fn an_address_outside_the_list_or_an_empty_list_does_no_harm() {
        let mut round = three();
        assert_eq!(round.first(Some("elsewhere".into())).as_deref(), Some("elsewhere"));
        assert_eq!(round.silent("elsewhere"), ask("a"));
        let mut empty = Candidates::new(Vec::new(), 7);
        assert_eq!(empty.first(None), None);
        assert!(matches!(empty.silent("x"), Next::Pause(..)));
    }
}
