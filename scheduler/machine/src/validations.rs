//! Which nodes are to look at themselves, and who measures the way between them meanwhile.
//!
//! A node that looks at itself is given another one to measure the way to: that one is asked first, and says where it
//! waits. If it does not in time, the node goes without.

use std::collections::BTreeMap;

use ff2_topology::NodeId;

use crate::limits;

/// See the module. Times are of the leader's monotonic clock, ms.
#[derive(Clone, Debug, Default)]
pub(crate) struct Validations {
    /// Newest of each node.
    asked: BTreeMap<NodeId, Asked>,
    secret: String,
}

#[derive(Clone, Debug, Default)]
struct Asked {
    number: u64,
    /// The last that is done.
    done: u64,
    pair: Option<Pair>,
}

#[derive(Clone, Debug)]
struct Pair {
    with: NodeId,
    since_ms: u64,
    /// Empty: it could not.
    address: Option<String>,
}

/// What a node is told to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validate {
    /// 0: nothing.
    pub number: u64,
    /// Of the node that waits for it; empty: none does.
    pub address: String,
    pub token: String,
}

impl Validations {
    /// `secret` is drawn anew by each leader.
    pub(crate) fn new(secret: String) -> Self {
        Self { asked: BTreeMap::new(), secret }
    }

    pub(crate) fn ask(&mut self, node: NodeId, number: u64) {
        let asked = self.asked.entry(node).or_default();
        (asked.number, asked.pair) = (number, None);
    }

    pub(crate) fn number(&self, node: NodeId) -> u64 {
        self.asked.get(&node).map_or(0, |asked| asked.number)
    }

    /// A node says what it did last, and where it waits for another one.
    pub(crate) fn hear(&mut self, node: NodeId, done: u64, waits: Option<(u64, &str)>) {
        let asked = self.asked.entry(node).or_insert(Asked { number: done, ..Asked::default() });
        asked.done = done;
        let Some((number, address)) = waits else { return };
        for asked in self.asked.values_mut().filter(|asked| asked.number == number) {
            if let Some(pair) = asked.pair.as_mut().filter(|pair| pair.with == node) {
                pair.address = Some(address.to_owned());
            }
        }
    }

    /// For whom a node is to wait, and the token of the two.
    pub(crate) fn serves(&self, node: NodeId) -> Option<(u64, String)> {
        let mut open = self.asked.iter().filter(|(_, asked)| asked.number > asked.done);
        let (of, asked) =
            open.find(|(_, asked)| asked.pair.as_ref().is_some_and(|pair| pair.with == node))?;
        Some((asked.number, self.token(*of, asked.number)))
    }

    /// What a node is to do now. `others` are those that may be paired with it, the best first.
    pub(crate) fn order(
        &mut self,
        now_ms: u64,
        node: NodeId,
        others: impl Iterator<Item = NodeId>,
    ) -> Validate {
        let Some(asked) = self.asked.get(&node).filter(|asked| asked.number > asked.done) else {
            return Validate::default();
        };
        let number = asked.number;
        // One after the other: who waits for another one does not measure itself.
        if asked.pair.is_none() && self.serves(node).is_some() {
            return Validate::default();
        }
        if asked.pair.is_none() {
            let is_free = |other: &NodeId| {
                let begun = self
                    .asked
                    .get(other)
                    .is_some_and(|of| of.number > of.done && of.pair.is_some());
                !begun && self.serves(*other).is_none()
            };
            let Some(with) = others.filter(|other| *other != node).find(is_free) else {
                return Validate { number, ..Validate::default() };
            };
            let asked = self.asked.get_mut(&node).expect("it was there");
            asked.pair = Some(Pair { with, since_ms: now_ms, address: None });
            return Validate::default();
        }
        let pair = asked.pair.as_ref().expect("it has one");
        match &pair.address {
            Some(address) if !address.is_empty() => {
                Validate { number, address: address.clone(), token: self.token(node, number) }
            }
            None if now_ms.saturating_sub(pair.since_ms) < limits::PAIR_WAIT_MS => {
                Validate::default()
            }
            Some(_) | None => Validate { number, ..Validate::default() },
        }
    }

    fn token(&self, node: NodeId, number: u64) -> String {
        format!("{}-{}-{number}", self.secret, node.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(0), NodeId(1), NodeId(2)];

    fn order(of: &mut Validations, now_ms: u64, node: NodeId) -> Validate {
        of.order(now_ms, node, NODES.into_iter())
    }

    #[test]
    fn a_node_measures_the_way_to_one_that_waits() {
        let mut of = Validations::new("secret".into());
        NODES.iter().for_each(|node| of.hear(*node, 3, None));
        assert_eq!(order(&mut of, 0, NODES[0]), Validate::default(), "nobody asked");
        of.ask(NODES[0], 10);
        assert_eq!(order(&mut of, 0, NODES[0]).number, 0, "the other one is asked first");
        let (number, token) = of.serves(NODES[1]).expect("the first other one");
        assert_eq!((number, of.serves(NODES[2])), (10, None));
        of.hear(NODES[1], 3, Some((10, "host:1")));
        let told = order(&mut of, 1, NODES[0]);
        assert_eq!((told.number, told.address.as_str()), (10, "host:1"));
        assert_eq!(told.token, token);
        of.hear(NODES[0], 10, None);
        assert_eq!((order(&mut of, 2, NODES[0]).number, of.serves(NODES[1])), (0, None));
    }

    #[test]
    fn a_node_goes_alone_if_nobody_waits_for_it() {
        let mut of = Validations::new("secret".into());
        of.ask(NODES[0], 10);
        assert_eq!(of.order(0, NODES[0], [].into_iter()).number, 10, "there is none");
        of.ask(NODES[0], 11);
        assert_eq!(order(&mut of, 0, NODES[0]).number, 0);
        assert_eq!(order(&mut of, limits::PAIR_WAIT_MS, NODES[0]).number, 11, "it was silent");
        of.ask(NODES[0], 12);
        assert_eq!(order(&mut of, 0, NODES[0]).number, 0);
        of.hear(NODES[1], 0, Some((12, "")));
        let told = order(&mut of, 1, NODES[0]);
        assert_eq!((told.number, told.address.as_str()), (12, ""), "it has no port");
    }

    #[test]
    fn of_all_that_are_asked_at_once_none_does_two_things() {
        let mut of = Validations::new("secret".into());
        NODES.iter().for_each(|node| of.ask(*node, 10));
        assert_eq!(order(&mut of, 0, NODES[0]).number, 0);
        assert_eq!(order(&mut of, 0, NODES[1]).number, 0, "it waits for the first");
        assert_eq!(order(&mut of, 0, NODES[2]).number, 10, "the others have each other");
        of.hear(NODES[1], 0, Some((10, "host:1")));
        assert_eq!(order(&mut of, 1, NODES[0]).address, "host:1");
        of.hear(NODES[0], 10, None);
        of.hear(NODES[2], 10, None);
        assert_eq!(order(&mut of, 2, NODES[1]).number, 0);
        assert!(of.serves(NODES[0]).is_some(), "now the other way round");
    }
}
