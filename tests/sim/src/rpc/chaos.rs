//! What goes wrong, and when. Each seed has its own taste.

use std::sync::Arc;

use tokio::time::{Duration, Instant, sleep};

use super::{
    Process, World,
    node::Node,
    sky::{After, Silence},
};
use crate::rng::Rng;

#[derive(Debug)]
pub(super) struct Chaos {
    rng: Rng,
    /// Weights of: connections of one process break, some of all do, a crash, a stop, a silence, a
    /// parting, a fence, late news.
    weights: [u64; 8],
    pause_ms: u64,
    /// Everybody, to be cut and parted.
    processes: Vec<Process>,
}

impl Chaos {
    pub(super) fn new(seed: u64, processes: Vec<Process>) -> Self {
        let mut rng = Rng::new(seed, "chaos");
        let weights = std::array::from_fn(|_| rng.within(0..7));
        let pause_ms = rng.within(200..2_000);
        Self { rng, weights, pause_ms, processes }
    }

    /// One fault after the other; faults of nodes end by themselves.
    pub(super) async fn reign(
        mut self,
        world: Arc<World>,
        nodes: Arc<Vec<Arc<Node>>>,
        end: Instant,
    ) {
        while Instant::now() < end {
            self.strike(&world, &nodes);
            let pause = self.rng.within(self.pause_ms / 4..self.pause_ms * 2);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn strike(&mut self, world: &Arc<World>, nodes: &[Arc<Node>]) {
        let total: u64 = self.weights.iter().sum::<u64>().max(1);
        let mut draw = self.rng.within(0..total);
        let mut kind = 0;
        while kind < self.weights.len() - 1 && draw >= self.weights[kind] {
            draw -= self.weights[kind];
            kind += 1;
        }
        let process = *self.rng.pick(&self.processes).expect("there are processes");
        let node = self.rng.pick(nodes).expect("there are nodes").clone();
        match kind {
            0 => {
                let lines = world.sky.cut_lines_of(process);
                world.chronicle.log(format!("{lines} connections of {process} break"));
            }
            1 => {
                let percent = self.rng.within(5..60);
                let lines = world.sky.cut_some_lines(percent);
                world.chronicle.log(format!("{lines} connections break"));
            }
            2 => {
                let back_after = Duration::from_millis(self.rng.within(100..6_000));
                node.crash(world);
                self.come_back(world, node, back_after);
            }
            3 => {
                let (world, back_after) = (world.clone(), self.rng.within(100..3_000));
                tokio::spawn(async move {
                    node.stop(&world).await;
                    sleep(Duration::from_millis(back_after)).await;
                    bring_back(&world, &node).await;
                });
            }
            4 => {
                let silence = self.silence(100..8_000);
                world.chronicle.log(format!("{process} is silent: {}", describe(silence)));
                world.sky.silence(process, silence);
            }
            5 => {
                let (other, silence) = (node.id, self.silence(100..9_000));
                let both = self.rng.chance(60);
                let what = if both { "and" } else { "to" };
                world.chronicle.log(format!("{process} {what} {other}: {}", describe(silence)));
                world.sky.part(process, other, silence);
                if both {
                    world.sky.part(other, process, silence);
                }
            }
            6 => {
                let back_after = Duration::from_millis(self.rng.within(300..5_000));
                world.chronicle.log(format!("node {} is fenced", node.id));
                node.fence(world, true);
                let world = world.clone();
                tokio::spawn(async move {
                    sleep(back_after).await;
                    world.chronicle.log(format!("node {} has its lease again", node.id));
                    node.fence(&world, false);
                });
            }
            _ => {
                let until = Instant::now() + Duration::from_millis(self.rng.within(500..6_000));
                world.chronicle.log(format!("{process} hears of changes late"));
                world.cluster.delay_news(process, until);
            }
        }
    }

    fn come_back(&self, world: &Arc<World>, node: Arc<Node>, after: Duration) {
        let world = world.clone();
        tokio::spawn(async move {
            sleep(after).await;
            bring_back(&world, &node).await;
        });
    }

    fn silence(&mut self, millis: std::ops::Range<u64>) -> Silence {
        let until = Instant::now() + Duration::from_millis(self.rng.within(millis));
        let after = if self.rng.chance(60) { After::Late } else { After::Held };
        Silence { until, after }
    }
}

async fn bring_back(world: &World, node: &Node) {
    while node.is_stopping() {
        sleep(Duration::from_millis(50)).await;
    }
    if node.is_down() && !world.is_stopping() {
        node.start(world).await;
    }
}

fn describe(silence: Silence) -> String {
    let rest = silence.until.saturating_duration_since(Instant::now());
    format!("{:.1} s, then {:?}", rest.as_secs_f64(), silence.after)
}

/// Ends all faults: everything passes, everybody runs and has a lease.
pub(super) async fn heal(world: &World, nodes: &[Arc<Node>]) {
    world.chronicle.log("all is well again");
    world.sky.calm();
    for node in nodes {
        node.fence(world, false);
        bring_back(world, node).await;
    }
}
