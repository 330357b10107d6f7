//! Runs on RDMA devices: where there are none the tests fail, unless `FF2_TEST_ALLOW_SKIP` is 1 or names `rdma`. All of
//! them run in a virtual machine as well, which has two devices that do not reach each other (10.77.0.1 to .4 and
//! 10.77.1.1 to .4), with names that no driver gives.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::IpAddr,
    process::Command,
    ptr::NonNull,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ff2_verbs::{
    Access, Device, DeviceEvent, Direction, Domain, Error, Event, Exposed, Failure, Lendable,
    Memory, Pair, Place, Pool, Refused, Settings, Shared, Transfer, Why, place,
};

/// Generous: emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device with memory of its own, as a process has it.
struct Rail {
    place: Place,
    domain: Arc<Domain>,
    messages: Arc<Pool>,
    bulk: Arc<Pool>,
}

const MESSAGE_BYTES: u32 = 4 << 10;
const BULK_BYTES: u32 = 256 << 10;

impl Rail {
    /// The one that leads to this address; `None`: there are no devices, and the tests may be left out.
    fn toward(address: &str) -> Option<Self> {
        if let Err(missing) = ff2_verbs::available() {
            let value = std::env::var("FF2_TEST_ALLOW_SKIP").unwrap_or_default();
            let allowed = value.split(',').any(|word| ["1", "rdma"].contains(&word));
            assert!(allowed, "{missing}; FF2_TEST_ALLOW_SKIP=rdma leaves RDMA out");
            eprintln!("SKIPPED: rdma cannot be used: {missing}");
            return None;
        }
        let place = place::toward(&place::all().unwrap(), address.parse().unwrap()).unwrap();
        let domain = Domain::new(&Device::open(&place.device).unwrap()).unwrap();
        let domains = std::slice::from_ref(&domain);
        let messages = Pool::new(domains, 128, MESSAGE_BYTES, Access::Local).unwrap();
        let bulk = Pool::new(domains, 16, BULK_BYTES, Access::Peers).unwrap();
        Some(Self { place, domain, messages, bulk })
    }

    fn pair(&self, settings: Settings) -> Pair {
        Pair::new(&self.domain, &self.place, &self.messages, settings).unwrap()
    }

    /// Both ends of a connection; the second one lets the first reach its memory.
    fn connected(&self, settings: Settings) -> (Pair, Pair) {
        let mut ends =
            (self.pair(settings), self.pair(Settings { access: Access::Peers, ..settings }));
        let (first, second) = (ends.0.endpoint(), ends.1.endpoint());
        ends.0.connect(&second).unwrap();
        ends.1.connect(&first).unwrap();
        ends
    }

    /// A peer's buffer, full of a byte.
    fn exposed(&self, byte: u8) -> Exposed {
        let mut buffer = self.bulk.take().unwrap();
        buffer.fill(byte);
        buffer.expose(&self.domain).unwrap()
    }

    fn transfer(&self, peer: &Exposed, byte: u8) -> Transfer {
        let mut local = self.bulk.take().unwrap();
        local.fill(byte);
        Transfer { local: local.into(), remote: peer.remote() }
    }

    fn send(&self, from: &mut Pair, text: &str) -> Result<(), Why> {
        let mut message = self.messages.take().unwrap();
        message[..text.len()].copy_from_slice(text.as_bytes());
        message.truncate(text.len());
        from.send(message).map_err(|refused| refused.why)
    }
}

/// Waits for the next event.
fn next(pair: &mut Pair) -> Vec<Event> {
    let events = pair.poll_within(PATIENCE).unwrap();
    assert!(!events.is_empty(), "nothing happened");
    events
}

/// Waits until a batch is done or not, and has its buffers.
fn outcome(pair: &mut Pair) -> (Vec<Transfer>, Result<(), Failure>) {
    loop {
        for event in next(pair) {
            if let Event::Transferred { transfers, outcome, .. } = event {
                return (transfers, outcome);
            }
        }
    }
}

/// The messages that came, until there are so many.
fn texts(pair: &mut Pair, count: usize) -> Vec<String> {
    let (mut texts, end) = (Vec::new(), Instant::now() + PATIENCE);
    while texts.len() < count {
        texts.extend(arrived(pair, Duration::from_millis(100)));
        assert!(Instant::now() < end, "{count} messages are missing but for {texts:?}");
    }
    texts
}

fn arrived(pair: &mut Pair, time: Duration) -> Vec<String> {
    let text = |event| match event {
        Event::Received(message) => String::from_utf8(message.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    pair.poll_within(time).unwrap().into_iter().map(text).collect()
}

fn run(program: &str, arguments: &str) -> String {
    let out = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(
        out.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_place_is_chosen_by_route_or_subnet() {
    let Some(rail) = Rail::toward("10.77.1.200") else { return };
    assert_eq!(rail.place.gid.ip(), Some(IpAddr::from([10, 77, 1, 1])));
    let places = place::all().unwrap();
    let other = place::toward(&places, [10, 77, 0, 200].into()).unwrap();
    assert_ne!(other.device, rail.place.device);
    let error = place::toward(&places, [127, 0, 0, 1].into()).unwrap_err();
    assert!(matches!(error, Error::NoPlace(_)), "{error}");
    let inside = place::within(&places, &["10.77.1.0/24".parse().unwrap()]);
    assert_eq!(inside.len(), 4);
    assert!(inside.iter().all(|place| place.device == rail.place.device));
}

#[test]
fn batches_pull_and_push() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let (mut ours, _theirs) = rail.connected(Settings::default());
    let peers: Vec<Exposed> = (1..=4).map(|byte| rail.exposed(byte)).collect();
    let batch = peers.iter().map(|peer| rail.transfer(peer, 0)).collect();
    let id = ours.transfer(Direction::Pull, batch).unwrap();
    let events = next(&mut ours);
    let [Event::Transferred { id: done, transfers, outcome: Ok(()) }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(*done, id);
    for (byte, transfer) in (1..).zip(transfers) {
        assert!(transfer.local.iter().all(|is| *is == byte), "pulled {byte}");
    }
    drop(events);
    // Some bytes in the middle of theirs, and no others.
    let mut local = rail.bulk.take().unwrap();
    local.truncate(100);
    local.fill(9);
    let remote = peers[0].remote().part(1000, 100).unwrap();
    ours.transfer(Direction::Push, vec![Transfer { local: local.into(), remote }]).unwrap();
    assert_eq!(outcome(&mut ours).1, Ok(()));
    let buffer = peers.into_iter().next().unwrap().close();
    let changed: Vec<_> = (0..buffer.len()).filter(|at| buffer[*at] != 1).collect();
    assert_eq!(changed, (1000..1100).collect::<Vec<_>>());
    assert!(buffer[1000..1100].iter().all(|is| *is == 9));
}

#[test]
fn messages_wait_for_credit_and_none_is_lost() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    for messages in [2, 3, 8] {
        let (mut ours, mut theirs) = rail.connected(Settings { messages, ..Settings::default() });
        // Without a word from the other side there are so many, and then it is refused.
        let mut sent: Vec<String> =
            (0..messages).map(|number| format!("{number} of {messages}")).collect();
        for text in &sent {
            rail.send(&mut ours, text).unwrap();
        }
        assert!(matches!(rail.send(&mut ours, "too many"), Err(Why::Full)));
        let mut received = texts(&mut theirs, sent.len());
        // One way alone: only grants come back.
        for number in messages..10 * messages {
            let text = format!("{number} of {messages}");
            while let Err(why) = rail.send(&mut ours, &text) {
                assert!(matches!(why, Why::Full), "{why}");
                received.extend(arrived(&mut theirs, Duration::from_millis(1)));
                ours.poll_within(Duration::from_millis(1)).unwrap();
            }
            sent.push(text);
        }
        received.extend(texts(&mut theirs, sent.len() - received.len()));
        assert_eq!(received, sent);
        // What is owed is granted by itself, so long as it is half of all.
        let end = Instant::now() + PATIENCE;
        while ours.credits() == 0 && Instant::now() < end {
            ours.poll_within(Duration::from_millis(10)).unwrap();
        }
        // Both ways: each message brings credits with it.
        for number in 0..50 {
            rail.send(&mut ours, &format!("question {number}")).unwrap();
            assert_eq!(texts(&mut theirs, 1), [format!("question {number}")]);
            rail.send(&mut theirs, &format!("answer {number}")).unwrap();
            assert_eq!(texts(&mut ours, 1), [format!("answer {number}")]);
        }
    }
}

#[test]
fn a_receiver_without_buffers_slows_the_sender_and_breaks_nothing() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let few =
        Pool::new(std::slice::from_ref(&rail.domain), 6, MESSAGE_BYTES, Access::Local).unwrap();
    let settings = Settings { messages: 4, ..Settings::default() };
    let mut ours = rail.pair(settings);
    let mut theirs = Pair::new(&rail.domain, &rail.place, &few, settings).unwrap();
    ours.connect(&theirs.endpoint()).unwrap();
    theirs.connect(&ours.endpoint()).unwrap();
    for _ in 0..4 {
        rail.send(&mut ours, "kept").unwrap();
    }
    let mut kept = Vec::new();
    while kept.len() < 4 {
        kept.extend(next(&mut theirs));
    }
    assert_eq!(few.free(), 0);
    assert!(ours.poll_within(Duration::from_millis(200)).unwrap().is_empty());
    assert_eq!(ours.credits(), 0);
    drop(kept);
    // Now there is room, which its owner finds when it polls.
    theirs.poll().unwrap();
    let end = Instant::now() + PATIENCE;
    while ours.credits() == 0 && Instant::now() < end {
        ours.poll_within(Duration::from_millis(10)).unwrap();
    }
    rail.send(&mut ours, "again").unwrap();
    assert_eq!(texts(&mut theirs, 1), ["again"]);
}

#[test]
fn who_waits_is_woken_and_who_waits_in_vain_is_not() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let (mut ours, mut theirs) = rail.connected(Settings::default());
    let begun = Instant::now();
    assert!(theirs.poll_within(Duration::from_millis(100)).unwrap().is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(100));
    for number in 0..20 {
        let text = number.to_string();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| texts(&mut theirs, 1));
            thread::sleep(Duration::from_millis(number));
            rail.send(&mut ours, &text).unwrap();
            assert_eq!(waiting.join().unwrap(), [text.as_str()]);
        });
    }
}

#[test]
fn memory_that_was_not_shown_is_not_reached() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let peer = rail.exposed(1);
    let free = rail.bulk.free();
    let mut wrong_key = peer.remote();
    wrong_key.key ^= 1;
    let mut wrong_place = peer.remote();
    wrong_place.address += 1 << 40;
    for remote in [wrong_key, wrong_place] {
        for direction in [Direction::Pull, Direction::Push] {
            let (mut ours, _theirs) = rail.connected(Settings::default());
            let right = rail.transfer(&peer, 2);
            let wrong = Transfer { remote, ..rail.transfer(&peer, 2) };
            ours.transfer(direction, vec![right, wrong]).unwrap();
            ours.transfer(direction, vec![rail.transfer(&peer, 2)]).unwrap();
            let mut events = Vec::new();
            while events.len() < 3 {
                events.extend(next(&mut ours));
            }
            let [
                Event::Broken(Failure::RemoteAccess),
                Event::Transferred { outcome: Err(Failure::RemoteAccess), .. },
                Event::Transferred { outcome: Err(Failure::Flushed), .. },
            ] = &events[..]
            else {
                panic!("{events:?}")
            };
            let refused = ours.transfer(direction, vec![rail.transfer(&peer, 2)]).unwrap_err();
            assert!(matches!(refused.why, Why::Error(Error::Broken(Failure::RemoteAccess))));
            drop((events, refused));
            assert_eq!(rail.bulk.free(), free, "all buffers came back");
        }
    }
}

#[test]
fn memory_of_one_who_pulls_is_nobodys() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let (_ours, mut theirs) = rail.connected(Settings::default());
    // The end that was not made for it refuses even what is shown on another.
    let peer = rail.exposed(1);
    theirs.transfer(Direction::Push, vec![rail.transfer(&peer, 2)]).unwrap();
    let failure = outcome(&mut theirs).1.unwrap_err();
    assert!(matches!(failure, Failure::Remote | Failure::RemoteAccess), "{failure:?}");
    assert!(peer.close().iter().all(|is| *is == 1));
    let refused = rail.messages.take().unwrap().expose(&rail.domain);
    assert!(matches!(refused, Err(Error::ForeignBuffer)));
}

#[test]
fn a_peer_that_is_gone_is_noticed_and_another_way_serves() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let (mut ours, theirs) = rail.connected(Settings::default());
    let peer = rail.exposed(1);
    drop(theirs);
    let begun = Instant::now();
    ours.transfer(Direction::Pull, vec![rail.transfer(&peer, 0)]).unwrap();
    assert_eq!(outcome(&mut ours).1, Err(Failure::Unreachable));
    eprintln!("noticed after {} ms", begun.elapsed().as_millis());
    let other = Rail::toward("10.77.1.200").unwrap();
    let (mut ours, _theirs) = other.connected(Settings::default());
    let peer = other.exposed(5);
    ours.transfer(Direction::Pull, vec![other.transfer(&peer, 0)]).unwrap();
    let (transfers, outcome) = outcome(&mut ours);
    assert_eq!(outcome, Ok(()));
    assert!(transfers[0].local.iter().all(|is| *is == 5));
}

/// Memory of a process, of which it lends parts.
struct Board(NonNull<[u8]>);

// SAFETY: leaked, and never moved.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

// SAFETY: leaked, so it is mapped for ever.
unsafe impl Memory for Board {
    fn range(&self) -> (NonNull<u8>, usize) {
        (self.0.cast(), self.0.len())
    }
}

/// Some bytes of it: `ALONE`, or others may read them.
struct Part<const ALONE: bool>(NonNull<[u8]>);

// SAFETY: of a board.
unsafe impl<const ALONE: bool> Send for Part<ALONE> {}

// SAFETY: a test makes one of each range at a time.
unsafe impl<const ALONE: bool> Lendable for Part<ALONE> {
    const EXCLUSIVE: bool = ALONE;

    fn bytes(&self) -> NonNull<[u8]> {
        self.0
    }
}

#[test]
fn memory_of_others_is_moved_from_and_to_where_it_lies() {
    let Some(rail) = Rail::toward("10.77.0.1") else { return };
    let bytes = BULK_BYTES as usize;
    let leaked = NonNull::from(Box::leak(vec![7_u8; 3 * bytes].into_boxed_slice()));
    let (board, beyond) = (NonNull::slice_from_raw_parts(leaked.cast(), 2 * bytes), 2 * bytes - 1);
    let shared = Shared::new(&rail.domain, Arc::new(Board(board)), Access::Local).unwrap();
    let shared = Arc::new(shared);
    // SAFETY: inside.
    let part =
        |from, len| unsafe { NonNull::slice_from_raw_parts(leaked.cast::<u8>().add(from), len) };
    let (mut ours, _theirs) = rail.connected(Settings::default());
    let peer = rail.exposed(1);
    let remote = peer.remote();

    let lent = shared.lend(Part::<false>(part(bytes, bytes))).ok().unwrap();
    let refused = ours.transfer(Direction::Pull, vec![Transfer { local: lent.into(), remote }]);
    let Refused { why, given } = refused.unwrap_err();
    assert!(matches!(why, Why::ReadOnly), "{why}");

    let lent = shared.lend(Part::<true>(part(0, bytes))).ok().unwrap();
    ours.transfer(Direction::Pull, vec![Transfer { local: lent.into(), remote }]).unwrap();
    let (mut pulled, done) = outcome(&mut ours);
    assert_eq!(done, Ok(()));
    let owner = pulled.remove(0).local.into_owner::<Part<true>>().unwrap();
    // SAFETY: the transfer is over.
    assert!(unsafe { owner.0.as_ref() }.iter().all(|is| *is == 1));

    ours.transfer(Direction::Push, given).unwrap();
    assert_eq!(outcome(&mut ours).1, Ok(()));
    assert!(peer.close().iter().all(|is| *is == 7));

    assert!(shared.lend(Part::<true>(part(beyond, 2))).is_err(), "a byte outside");
    assert!(shared.lend(Part::<true>(part(beyond, 1))).is_ok());
}

#[test]
fn a_link_that_is_down_is_told_and_fails_what_is_on_it() {
    let Some(rail) = Rail::toward("10.77.1.200") else { return };
    let device = rail.domain.device();
    while device.event().unwrap().is_some() {}
    let (mut ours, _theirs) = rail.connected(Settings::default());
    let peer = rail.exposed(1);
    let until = |wanted: DeviceEvent| {
        let end = Instant::now() + PATIENCE;
        while device.event().unwrap() != Some(wanted) {
            assert!(Instant::now() < end, "{wanted:?} is not told");
            thread::sleep(Duration::from_millis(10));
        }
    };
    run("ip", "link set reed1 down");
    until(DeviceEvent::PortDown(1));
    assert!(!device.port(1).unwrap().active);
    ours.transfer(Direction::Push, vec![rail.transfer(&peer, 2)]).unwrap();
    let failed = outcome(&mut ours).1;
    run("ip", "link set reed1 up");
    until(DeviceEvent::PortUp(1));
    assert!(failed.is_err(), "nobody was there");
    // Its addresses come back one by one.
    let end = Instant::now() + PATIENCE;
    while place::within(&place::all().unwrap(), &["10.77.1.0/24".parse().unwrap()]).len() < 4 {
        assert!(Instant::now() < end, "the addresses stay away");
        thread::sleep(Duration::from_millis(10));
    }
    let again = Rail::toward("10.77.1.200").unwrap();
    let (mut ours, _theirs) = again.connected(Settings::default());
    ours.transfer(Direction::Push, vec![again.transfer(&again.exposed(1), 2)]).unwrap();
    assert_eq!(outcome(&mut ours).1, Ok(()));
}

#[test]
fn a_buffer_leaves_by_any_device() {
    let (Some(first), Some(second)) = (Rail::toward("10.77.0.200"), Rail::toward("10.77.1.200"))
    else {
        return;
    };
    let domains = [first.domain.clone(), second.domain.clone()];
    let pool = Pool::new(&domains, 2, BULK_BYTES, Access::Local).unwrap();
    let mut local = pool.take().unwrap();
    local.fill(7);
    for rail in [&first, &second] {
        let peer = rail.exposed(0);
        let (mut ours, _theirs) = rail.connected(Settings::default());
        let transfer = Transfer { local: local.into(), remote: peer.remote() };
        ours.transfer(Direction::Push, vec![transfer]).unwrap();
        let (mut transfers, outcome) = outcome(&mut ours);
        assert_eq!(outcome, Ok(()));
        assert!(peer.close().iter().all(|is| *is == 7));
        local = transfers.remove(0).local.into_buffer().unwrap();
    }
    // One that the device does not know is refused.
    let (mut ours, _theirs) = second.connected(Settings::default());
    let Refused { why, .. } = ours.send(first.messages.take().unwrap()).unwrap_err();
    assert!(matches!(why, Why::Error(Error::ForeignBuffer)), "{why}");
}

#[test]
fn what_cannot_be_done_is_refused_and_comes_back() {
    let Some(rail) = Rail::toward("10.77.0.200") else { return };
    let peer = rail.exposed(1);
    let mut alone = rail.pair(Settings::default());
    let early = alone.transfer(Direction::Pull, vec![rail.transfer(&peer, 0)]).unwrap_err();
    assert!(matches!(early.why, Why::Error(Error::Endpoint(_))), "{}", early.why);
    let (mut ours, _theirs) = rail.connected(Settings { works: 4, ..Settings::default() });
    let refused = |ours: &mut Pair, batch| ours.transfer(Direction::Pull, batch).unwrap_err();
    assert!(matches!(refused(&mut ours, Vec::new()).why, Why::Size));
    let mut small = rail.transfer(&peer, 0);
    small.remote.len = BULK_BYTES - 1;
    let back = refused(&mut ours, vec![small]);
    assert!(matches!(back.why, Why::Size));
    assert_eq!(back.given.len(), 1);
    let four = (0..4).map(|_| rail.transfer(&peer, 0)).collect();
    assert!(matches!(refused(&mut ours, four).why, Why::Full), "one is kept for grants");
    let mut empty = rail.messages.take().unwrap();
    empty.truncate(0);
    assert!(matches!(ours.send(empty).unwrap_err().why, Why::Size));
    for wrong in [
        Settings { works: 3, ..Settings::default() },
        Settings { messages: 1, ..Settings::default() },
        Settings { messages: 4097, ..Settings::default() },
    ] {
        let refused = Pair::new(&rail.domain, &rail.place, &rail.messages, wrong);
        assert!(matches!(refused, Err(Error::Setting { .. })), "{wrong:?}");
    }
    assert!(matches!(Device::open("no-such-card"), Err(Error::UnknownDevice(_))));
}

/// Counts of what the kernel holds for devices: queue pairs, queues, regions, domains, contexts.
fn resources() -> String {
    run("rdma", "resource")
}

#[test]
fn nothing_is_left_behind_even_by_errors() {
    // Before anything of this test exists. The tests run one after another there.
    if ff2_verbs::available().is_err() {
        Rail::toward("10.77.0.200");
        return;
    }
    let before = resources();
    {
        let rail = Rail::toward("10.77.0.200").unwrap();
        assert_ne!(resources(), before, "what there is is counted");
        let (bulk, messages) = (rail.bulk.free(), rail.messages.free());
        // In the midst of work, on both sides.
        for _ in 0..5 {
            let (mut ours, theirs) = rail.connected(Settings::default());
            let peers: Vec<_> = (0..4).map(|_| rail.exposed(1)).collect();
            let batch = peers.iter().map(|peer| rail.transfer(peer, 0)).collect();
            ours.transfer(Direction::Pull, batch).unwrap();
            rail.send(&mut ours, "in vain").unwrap();
            drop(theirs);
            drop(ours);
            assert_eq!(rail.messages.free(), messages);
            drop(peers);
            assert_eq!(rail.bulk.free(), bulk);
        }
        // By hand, with everything told.
        let (mut ours, _theirs) = rail.connected(Settings::default());
        ours.fail().unwrap();
        assert!(ours.poll_within(Duration::from_millis(100)).unwrap().is_empty());
        assert!(matches!(
            rail.send(&mut ours, "x"),
            Err(Why::Error(Error::Broken(Failure::Flushed)))
        ));
        drop((ours, _theirs));
        // Half made.
        let few =
            Pool::new(std::slice::from_ref(&rail.domain), 5, MESSAGE_BYTES, Access::Local).unwrap();
        let refused = Pair::new(&rail.domain, &rail.place, &few, Settings::default());
        assert!(matches!(refused, Err(Error::NoBuffers { wanted: 34, free: 5 })), "{refused:?}");
        let mut nowhere = rail.place.clone();
        nowhere.port = 9;
        assert!(Pair::new(&rail.domain, &nowhere, &rail.messages, Settings::default()).is_err());
        let foreign = Pool::new(&[], 40, MESSAGE_BYTES, Access::Local).unwrap();
        let refused = Pair::new(&rail.domain, &rail.place, &foreign, Settings::default());
        assert!(matches!(refused, Err(Error::ForeignBuffer)), "{refused:?}");
        assert_eq!((foreign.free(), few.free()), (40, 5));
    }
    assert_eq!(resources(), before);
}

/// Whatever the host has.
#[test]
fn all_of_this_holds_in_a_virtual_machine() {
    ff2_vm::rerun_tests("all_of_this_holds_in_a_virtual_machine");
}
