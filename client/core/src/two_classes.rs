//! Which of the waiting operations of a ring goes next.

use std::collections::VecDeque;

use crate::limits::HIGH_BEFORE_LOW_MAX;

/// Two lines: the high one goes first, but after some of it one of the low line goes, so that this is not
/// held up for ever. Within a line the order stays.
#[derive(Debug)]
pub struct TwoClasses<T> {
    high: VecDeque<T>,
    low: VecDeque<T>,
    /// High ones that went while a low one waited.
    passed: u32,
}

impl<T> Default for TwoClasses<T> {
    fn default() -> Self {
        Self { high: VecDeque::new(), low: VecDeque::new(), passed: 0 }
    }
}

impl<T> TwoClasses<T> {
    pub fn push_high(&mut self, item: T) {
        self.high.push_back(item);
    }

    pub fn push_low(&mut self, item: T) {
        self.low.push_back(item);
    }

    /// The next one, which stays.
    pub fn peek(&self) -> Option<&T> {
        if self.is_turn_of_low() { self.low.front() } else { self.high.front() }
    }

    pub fn pop(&mut self) -> Option<T> {
        if self.is_turn_of_low() {
            self.passed = 0;
            return self.low.pop_front();
        }
        if !self.low.is_empty() {
            self.passed += 1;
        }
        self.high.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.high.is_empty() && self.low.is_empty()
    }

    fn is_turn_of_low(&self) -> bool {
        let waits = !self.low.is_empty();
        waits && (self.high.is_empty() || self.passed >= HIGH_BEFORE_LOW_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(high: u32, low: u32) -> String {
        let mut classes = TwoClasses::default();
        (0..low).for_each(|number| classes.push_low(('l', number)));
        (0..high).for_each(|number| classes.push_high(('h', number)));
        let (mut order, mut next) = (String::new(), [0, 0]);
        while let Some(&peeked) = classes.peek() {
            assert_eq!(classes.pop(), Some(peeked));
            let (class, number) = peeked;
            let next = &mut next[usize::from(class == 'l')];
            assert_eq!(number, *next, "within a class the order stays");
            *next += 1;
            order.push(class);
        }
        assert!(classes.is_empty() && classes.pop().is_none());
        order
    }

    #[test]
    fn high_goes_first_and_low_is_not_held_up_for_ever() {
        assert_eq!(order(3, 2), "hhhll");
        assert_eq!(order(10, 1), "hhhhhhhhlhh");
        assert_eq!(order(18, 4), "hhhhhhhhlhhhhhhhhlhhll");
        assert_eq!(order(0, 2), "ll");
    }
}
