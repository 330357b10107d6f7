use super::*;

/// A scheduler and its replicas: what is ordered is there a few steps later.
struct World {
    fleet: Fleet,
    now: Instant,
    plan: Plan,
    members: Vec<Member>,
    /// Of each job.
    sizes: BTreeMap<u64, u32>,
    /// Jobs whose replicas never become ready.
    broken: BTreeSet<u64>,
    /// Requests at each replica.
    in_flight: usize,
    drain: BTreeSet<String>,
    orders: Vec<Order>,
}

const OPTIONS: FleetOptions = FleetOptions {
    up: Duration::from_secs(5),
    down: Duration::from_secs(20),
    drain: Duration::from_secs(30),
};

fn world(min: u32, max: u32) -> World {
    let now = Instant::now();
    let plan = Plan { min, max, jobs: vec![1], scheduler: Vec::new() };
    World {
        fleet: Fleet::new(OPTIONS, now),
        now,
        plan,
        members: Vec::new(),
        sizes: BTreeMap::from([(1, min)]),
        broken: BTreeSet::new(),
        in_flight: 0,
        drain: BTreeSet::new(),
        orders: Vec::new(),
    }
}

impl World {
    /// A second passes.
    fn second(&mut self) {
        self.now += Duration::from_secs(1);
        // Who was there since the last second is ready now; who should not be is gone, and who should be comes.
        for member in &mut self.members {
            member.is_ready = !self.broken.contains(&member.job);
        }
        let sizes = self.sizes.clone();
        let lost: Vec<&Member> = self
            .members
            .iter()
            .filter(|it| it.index >= sizes[&it.job] && it.in_flight > 0)
            .collect();
        assert!(lost.is_empty(), "requests were cut: {lost:?}");
        self.members.retain(|it| it.index < sizes[&it.job]);
        for (&job, &size) in &sizes {
            for index in 0..size {
                let id = format!("{job}-{index}");
                if !self.members.iter().any(|it| it.id == id) {
                    let new = Member { id, job, index, is_ready: false, in_flight: 0, slots: 2 };
                    self.members.push(new);
                }
            }
        }
        for member in &mut self.members {
            // Those that drain finish one a second.
            member.in_flight = match self.drain.contains(&member.id) {
                true => member.in_flight.saturating_sub(1),
                false if member.is_ready => self.in_flight,
                false => 0,
            };
        }
        let decision = self.fleet.step(self.now, &self.plan, &self.members);
        for order in &decision.orders {
            match *order {
                Order::Scale { job, max, .. } => self.sizes.insert(job, max),
                Order::Cancel { job } => self.sizes.insert(job, 0),
            };
        }
        self.orders.extend(decision.orders);
        self.drain = decision.drain;
    }

    fn seconds(&mut self, count: u32) {
        (0..count).for_each(|_| self.second());
    }

    /// That take requests.
    fn serving(&self) -> usize {
        self.members.iter().filter(|it| it.is_ready && !self.drain.contains(&it.id)).count()
    }
}

#[test]
fn queues_make_it_grow_and_idleness_makes_it_shrink_each_after_a_while() {
    let mut world = world(1, 3);
    world.seconds(8);
    assert_eq!((world.fleet.wanted(), world.serving()), (Some(1), 1));
    world.in_flight = 3;
    world.seconds(4);
    assert_eq!(world.fleet.wanted(), Some(1), "a moment's queue is nothing");
    world.seconds(4);
    assert_eq!(world.fleet.wanted(), Some(2));
    world.seconds(20);
    assert_eq!((world.fleet.wanted(), world.serving()), (Some(3), 3), "no more than the most");
    world.in_flight = 1;
    world.seconds(30);
    assert_eq!(world.fleet.wanted(), Some(3), "half the slots of two would not be free");
    world.in_flight = 0;
    world.seconds(19);
    assert_eq!(world.fleet.wanted(), Some(3));
    world.seconds(30);
    assert_eq!((world.fleet.wanted(), world.serving()), (Some(1), 1));
    let scales = world.orders.iter().map(|order| match order {
        Order::Scale { job: 1, min: 1, max } => *max,
        other => panic!("{other:?}"),
    });
    assert_eq!(scales.collect::<Vec<_>>(), [1, 2, 3, 2, 1]);
}

#[test]
fn a_replica_goes_when_nothing_runs_there() {
    let mut world = world(1, 3);
    world.seconds(6);
    world.in_flight = 5;
    world.seconds(30);
    assert_eq!(world.serving(), 3);
    // `second` itself fails if one goes earlier.
    world.in_flight = 0;
    for member in &mut world.members {
        member.in_flight = 5;
    }
    world.seconds(60);
    assert_eq!(world.serving(), 1);
}

#[test]
fn an_update_never_has_fewer_ready_and_ends_with_the_new_alone() {
    let mut world = world(3, 5);
    world.in_flight = 1;
    world.seconds(10);
    world.plan.jobs.push(2);
    world.sizes.insert(2, 1);
    for _ in 0..60 {
        world.second();
        assert!(world.serving() >= 3, "{:?}", world.members);
        assert!(world.members.len() <= 5, "one more, and one that drains");
    }
    assert!(world.members.iter().all(|it| it.job == 2) && world.serving() == 3);
    assert!(world.orders.contains(&Order::Cancel { job: 1 }));
    assert_eq!(world.sizes, BTreeMap::from([(1, 0), (2, 3)]));
}

#[test]
fn a_version_that_never_becomes_ready_replaces_nothing_and_another_one_does() {
    let mut world = world(2, 2);
    world.seconds(10);
    world.plan.jobs.push(2);
    world.sizes.insert(2, 1);
    world.broken.insert(2);
    world.seconds(60);
    assert_eq!((world.serving(), world.sizes[&1], world.sizes[&2]), (2, 2, 1));
    world.plan.jobs.push(3);
    world.sizes.insert(3, 1);
    for _ in 0..60 {
        world.second();
        assert!(world.serving() >= 2);
    }
    assert_eq!(world.sizes, BTreeMap::from([(1, 0), (2, 0), (3, 2)]));
}

#[test]
fn a_router_that_starts_anew_leaves_what_there_is() {
    let mut world = world(1, 4);
    world.seconds(6);
    world.in_flight = 3;
    world.seconds(40);
    assert_eq!(world.serving(), 4);
    world.fleet = Fleet::new(OPTIONS, world.now);
    world.in_flight = 2;
    for _ in 0..30 {
        world.second();
        assert_eq!(world.serving(), 4);
    }
}

#[test]
fn what_failed_is_ordered_again_and_nonsense_decides_nothing() {
    let mut world = world(1, 1);
    world.seconds(10);
    let first = world.orders.clone();
    assert_eq!(first, [Order::Scale { job: 1, min: 1, max: 1 }]);
    world.fleet.failed(first[0]);
    world.seconds(2);
    assert_eq!(world.orders, [first[0], first[0]]);
    let now = world.now;
    for (min, max, jobs) in [(0, 1, vec![1]), (2, 1, vec![1]), (1, 1, vec![])] {
        let plan = Plan { min, max, jobs, scheduler: Vec::new() };
        assert_eq!(world.fleet.step(now, &plan, &world.members), Decision::default());
    }
}
