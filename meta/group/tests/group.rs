//! Three groups in one process on real folders: proposals, reads, failover, restarts, snapshots, and
//! members that come and go.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may panic, too")]

use std::{future::Future, path::Path, time::Duration, time::Instant};

use bytes::Bytes;
use ff2_group::{
    BackupPage, Group, GroupConfig, GroupError, Member, RocksStore, format_group,
    loopback::Loopback,
    probe::{PutMachine, put},
    restore_group,
};
use ff2_meta_core::KvRead;
use ff2_proto::{Code, GroupId, Status, pb::KeyValue};

const GROUP: GroupId = GroupId(7);
const PATIENCE: Duration = Duration::from_secs(40);

struct Cluster {
    folder: tempfile::TempDir,
    wires: Loopback,
    /// By node - 1; `None` while it is down.
    groups: Vec<Option<Group<PutMachine>>>,
}

fn address(node: u32) -> String {
    format!("node-{node}:1")
}

fn members(nodes: u32) -> Vec<Member> {
    let member = |node| Member { node, address: address(node), ..Default::default() };
    (1..=nodes).map(member).collect()
}

impl Cluster {
    async fn formed() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { folder, wires: Loopback::default(), groups: Vec::new() };
        for node in 1..=3 {
            format_group(&cluster.dir(node), GROUP, node, &members(3)).unwrap();
        }
        for node in 1..=3 {
            cluster.start(node);
        }
        cluster
    }

    fn dir(&self, node: u32) -> std::path::PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    fn config(&self, node: u32) -> GroupConfig {
        GroupConfig {
            peers: (1..=3).map(address).collect(),
            tick: Duration::from_millis(20),
            election_ticks: 30,
            heartbeat_ticks: 3,
            log_keep_entries: 50,
            cache_bytes: 1 << 20,
            ..GroupConfig::new(GROUP, node, &address(node), self.dir(node))
        }
    }

    fn start(&mut self, node: u32) {
        let link = self.wires.link(&address(node));
        let group = Group::open(self.config(node), PutMachine, link).unwrap();
        self.wires.register(&address(node), &group);
        let place = node as usize - 1;
        self.groups.resize(self.groups.len().max(place + 1), None);
        self.groups[place] = Some(group);
    }

    async fn stop(&mut self, node: u32) {
        self.wires.unregister(&address(node));
        if let Some(group) = self.groups[node as usize - 1].take() {
            group.shutdown_now().await;
        }
    }

    /// The index of the first entry in a node's log, as it lies on the disk; the node is stopped for that.
    async fn first_in_log(&mut self, node: u32) -> u64 {
        self.stop(node).await;
        let GroupConfig { cache_bytes, metrics, .. } = self.config(node);
        let (dir, address) = (self.dir(node), address(node));
        let store = RocksStore::open(&dir, GROUP, node, &address, cache_bytes, metrics).unwrap();
        let first = raft::Storage::first_index(&store).unwrap();
        drop(store);
        self.start(node);
        first
    }

    fn group(&self, node: u32) -> &Group<PutMachine> {
        self.groups[node as usize - 1].as_ref().expect("runs")
    }

    fn nodes(&self) -> Vec<u32> {
        (1..=self.groups.len() as u32).filter(|n| self.groups[*n as usize - 1].is_some()).collect()
    }

    fn others(&self, node: u32) -> Vec<u32> {
        self.nodes().into_iter().filter(|other| *other != node).collect()
    }

    /// The leader among these nodes, once there is one.
    async fn leader_of(&self, nodes: &[u32]) -> u32 {
        eventually("a leader", async || {
            let leads = |node: &u32| self.group(*node).leadership().borrow().is_leader;
            nodes.iter().copied().find(leads)
        })
        .await
    }

    async fn leader(&self) -> u32 {
        self.leader_of(&self.nodes()).await
    }

    /// Puts through whoever leads; puts may be repeated.
    async fn put(&self, key: &str, value: &str) {
        let command = put(key.as_bytes(), value.as_bytes());
        eventually("a put", async || {
            for node in self.nodes() {
                if self.group(node).propose(command.clone()).await.is_ok() {
                    return Some(());
                }
            }
            None
        })
        .await;
    }

    /// Everybody has applied the same, and has the same keys and values.
    async fn converge(&self) {
        self.leader().await;
        self.put("converged", "1").await;
        for node in self.nodes() {
            eventually("a caught up replica", async || self.group(node).read_index().await.ok())
                .await;
        }
        let hashes: Vec<u64> = self.nodes().iter().map(|node| hash(self.group(*node))).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "states differ: {hashes:?}");
    }

    async fn finish(mut self) {
        self.converge().await;
        for node in self.nodes() {
            self.stop(node).await;
        }
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, check: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn hash(group: &Group<PutMachine>) -> u64 {
    let pairs = group.read_stale(|kv| kv.scan(&[], &[0xff; 64], usize::MAX)).unwrap();
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for (key, value) in pairs {
        hash.update(&key);
        hash.update(b"=");
        hash.update(&value);
    }
    hash.digest()
}

async fn get(group: &Group<PutMachine>, key: &str) -> Result<Option<Bytes>, Status> {
    group.query(|kv| kv.get(key.as_bytes())).await
}

async fn get_soon(group: &Group<PutMachine>, key: &str) -> Option<Bytes> {
    eventually("an answered read", async || get(group, key).await.ok()).await
}

fn text(value: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(value.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_and_reads_on_leader_and_followers() {
    let cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    for n in 0..50 {
        cluster.put("n", &n.to_string()).await;
        for node in cluster.nodes() {
            // No wait in between: a read sees every earlier put, wherever it is asked.
            let value = get_soon(cluster.group(node), "n").await;
            assert_eq!(value, Some(Bytes::from(n.to_string())), "on node {node}");
        }
    }
    let follower = cluster.others(leader)[0];
    let refused = cluster.group(follower).propose(put(b"a", b"b")).await.unwrap_err();
    assert_eq!(refused.code, Code::NotLeader);
    assert_eq!(refused.leader_address, Some(address(leader)));
    eventually("a lease", async || cluster.group(leader).has_lease().then_some(())).await;
    assert!(!cluster.group(follower).has_lease());
    let many = (0..500).map(|n: u32| {
        let group = cluster.group(leader).clone();
        tokio::spawn(async move { group.propose(put(&n.to_be_bytes(), b"many")).await })
    });
    for task in many.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    let status = cluster.group(leader).status();
    assert!(status.commit_index < 400, "commands share entries: {}", status.commit_index);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_and_a_cut_off_leader() {
    let cluster = Cluster::formed().await;
    let old = cluster.leader().await;
    cluster.put("k", "old").await;
    eventually("a lease", async || cluster.group(old).has_lease().then_some(())).await;
    let term = |node| cluster.group(node).leadership().borrow().term;
    let before = term(old);
    cluster.wires.isolate(&address(old));
    let cut = Instant::now();
    let rest = cluster.others(old);
    let new = cluster.leader_of(&rest).await;
    assert_ne!(new, old);
    assert!(!cluster.group(old).has_lease(), "no two leaders may answer");
    assert!(cut.elapsed() < Duration::from_secs(10), "failover took {:?}", cut.elapsed());
    cluster.group(new).propose(put(b"k", b"new")).await.unwrap();
    let stale = get(cluster.group(old), "k").await;
    assert!(stale.is_err(), "a paused leader must not answer: {stale:?}");
    let lost = cluster.group(old).propose(put(b"lost", b"x")).await.unwrap_err();
    assert!(matches!(lost.code, Code::UnknownOutcome | Code::NotLeader), "{lost:?}");
    assert_eq!(get_soon(cluster.group(new), "k").await, text("new"));
    cluster.wires.heal();
    assert_eq!(get_soon(cluster.group(old), "k").await, text("new"));
    assert!(term(new) > before, "term {} after {before}", term(new));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_network_loses_nothing() {
    let cluster = Cluster::formed().await;
    cluster.leader().await;
    cluster.wires.lose(100, 42);
    for n in 0..60 {
        cluster.put(&format!("k{n}"), &n.to_string()).await;
    }
    cluster.wires.heal();
    for node in cluster.nodes() {
        for n in 0..60 {
            let value = get_soon(cluster.group(node), &format!("k{n}")).await;
            assert_eq!(value, Some(Bytes::from(n.to_string())));
        }
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_all_keeps_everything() {
    let mut cluster = Cluster::formed().await;
    for round in 0..3 {
        cluster.leader().await;
        for n in 0..120 {
            cluster.put(&format!("k{round}.{n}"), "v").await;
        }
        for node in cluster.nodes() {
            cluster.stop(node).await;
        }
        for node in 1..=3 {
            cluster.start(node);
        }
        cluster.leader().await;
        for node in cluster.nodes() {
            let count = eventually("a read", async || {
                let count = |kv: &dyn KvRead| kv.scan(b"k", b"l", usize::MAX).len();
                cluster.group(node).query(count).await.ok()
            });
            assert_eq!(count.await, (round + 1) * 120, "node {node}");
        }
    }
    let commit = cluster.group(1).status().commit_index;
    assert!(commit > 300, "each put was an entry: {commit}");
    let first = cluster.first_in_log(1).await;
    // 50 entries are kept, and some more so that not each tick deletes.
    assert!(first + 100 > commit, "the log of {commit} entries begins at {first}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_gets_a_snapshot() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    let away = cluster.others(leader)[0];
    cluster.put("before", "1").await;
    cluster.stop(away).await;
    let large = "x".repeat(30_000);
    for n in 0..150 {
        cluster.put(&format!("k{n}"), &large).await;
    }
    cluster.start(away);
    assert_eq!(get_soon(cluster.group(away), "k149").await.map(|v| v.len()), Some(30_000));
    assert_eq!(cluster.group(away).snapshots_installed(), 1);
    // And once more, so that the other state is filled.
    cluster.stop(away).await;
    for n in 0..150 {
        cluster.put(&format!("k{n}"), "small").await;
    }
    cluster.start(away);
    assert_eq!(get_soon(cluster.group(away), "k149").await, text("small"));
    assert_eq!(cluster.group(away).snapshots_installed(), 1);
    cluster.stop(away).await;
    cluster.start(away);
    assert_eq!(get_soon(cluster.group(away), "before").await, text("1"));
    assert_eq!(cluster.group(away).snapshots_installed(), 0, "the log was enough");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_replica_comes_back_under_a_new_id() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    let wiped = cluster.others(leader)[0];
    for n in 0..100 {
        cluster.put(&format!("k{n}"), "v").await;
    }
    cluster.stop(wiped).await;
    std::fs::remove_dir_all(cluster.dir(wiped)).unwrap();
    cluster.start(wiped);
    let ids = eventually("the new voter", async || {
        let leader = cluster.leader().await;
        let members = cluster.group(leader).status().members;
        let of_node: Vec<_> = members.iter().filter(|member| member.node == wiped).collect();
        (of_node.len() == 1 && of_node[0].raft_id > 3 && of_node[0].voter)
            .then(|| members.iter().map(|member| member.raft_id).collect::<Vec<_>>())
    })
    .await;
    assert_eq!(ids.len(), 3, "its old id is gone: {ids:?}");
    assert_eq!(get_soon(cluster.group(wiped), "k99").await, text("v"));
    // The newcomer counts: with another node down, the group still commits.
    let leader = cluster.leader().await;
    let other = cluster.others(leader).into_iter().find(|node| *node != wiped);
    if let Some(other) = other {
        cluster.stop(other).await;
        cluster.put("after", "1").await;
        cluster.start(other);
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go() {
    let mut cluster = Cluster::formed().await;
    cluster.put("k", "v").await;
    cluster.start(4);
    let voters = |cluster: &Cluster, leader: u32| {
        let members = cluster.group(leader).status().members;
        let mut nodes: Vec<u32> = members.iter().filter(|m| m.voter).map(|m| m.node).collect();
        nodes.sort_unstable();
        nodes
    };
    let leader = cluster.leader().await;
    eventually("a fourth voter", async || {
        (voters(&cluster, cluster.leader().await) == [1, 2, 3, 4]).then_some(())
    })
    .await;
    assert_eq!(get_soon(cluster.group(4), "k").await, text("v"));
    // The leader itself cannot be removed by itself: it hands over and says who goes on.
    let refused = cluster.group(leader).remove(leader).await.unwrap_err();
    assert_eq!(refused.code, Code::NotLeader);
    let next = cluster.leader_of(&cluster.others(leader)).await;
    eventually("the removal", async || cluster.group(next).remove(leader).await.ok()).await;
    // The status is as of the last tick.
    eventually("a status without it", async || {
        (!voters(&cluster, next).contains(&leader)).then_some(())
    })
    .await;
    cluster.stop(leader).await;
    let heir = cluster.others(next)[0];
    cluster.group(next).transfer(heir).await.unwrap();
    assert_eq!(cluster.leader_of(&[heir]).await, heir);
    cluster.put("k2", "v2").await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_member_leads_at_once_and_a_clean_stop_hands_over() {
    let folder = tempfile::tempdir().unwrap();
    format_group(folder.path(), GROUP, 1, &members(1)).unwrap();
    let again = format_group(folder.path(), GROUP, 1, &members(1));
    assert!(again.is_err(), "format replaces nothing");
    let wires = Loopback::default();
    let config = GroupConfig::new(GROUP, 1, &address(1), folder.path());
    let group = Group::open(config.clone(), PutMachine, wires.link("")).unwrap();
    let mut leadership = group.leadership();
    leadership.wait_for(|known| known.is_leader).await.unwrap();
    group.propose(put(b"k", b"v")).await.unwrap();
    assert_eq!(get(&group, "k").await.unwrap(), text("v"));
    let other = GroupConfig { node: 2, ..config };
    assert!(Group::open(other, PutMachine, wires.link("")).is_err(), "the folder is in use");
    group.shutdown().await;
    assert_eq!(group.propose(put(b"k", b"v")).await.unwrap_err().code, Code::ShuttingDown);
    assert_eq!(get(&group, "k").await.unwrap_err().code, Code::ShuttingDown);
    wrong_owner(folder.path(), &wires);

    let mut cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    let begun = Instant::now();
    cluster.wires.unregister("nobody");
    let stopping = cluster.groups[leader as usize - 1].take().unwrap();
    stopping.shutdown().await;
    cluster.leader().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    cluster.start(leader);
    cluster.finish().await;
}

fn wrong_owner(folder: &Path, wires: &Loopback) {
    let config = GroupConfig::new(GROUP, 2, &address(2), folder);
    let refused = Group::open(config, PutMachine, wires.link("")).unwrap_err();
    assert!(refused.to_string().contains("belongs to"), "{refused}");
}

/// The newest write-ahead log of the group's database.
fn newest_log(folder: &Path) -> std::path::PathBuf {
    let database = ff2_group::group_folder(folder, GROUP);
    let files = std::fs::read_dir(database).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap()
}

/// The only member of its group.
fn open_alone(folder: &Path) -> Result<Group<PutMachine>, GroupError> {
    let config = GroupConfig::new(GROUP, 1, &address(1), folder);
    Group::open(config, PutMachine, Loopback::default().link(""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_end_of_the_log_is_dropped_and_damage_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    format_group(folder.path(), GROUP, 1, &members(1)).unwrap();
    let open = || open_alone(folder.path());
    let group = open().unwrap();
    group.leadership().wait_for(|known| known.is_leader).await.unwrap();
    group.propose(put(b"k", b"acknowledged")).await.unwrap();
    group.shutdown_now().await;
    drop(group);
    let log = newest_log(folder.path());
    let bytes = std::fs::read(&log).unwrap();
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 1;
    std::fs::write(&log, damaged).unwrap();
    assert!(open().is_err(), "what was synced is damaged");
    // As if power went while an unsynced batch was on its way: the last one is the apply, which the
    // log brings about again.
    std::fs::write(&log, &bytes[..bytes.len() - 3]).unwrap();
    let group = open().unwrap();
    group.leadership().wait_for(|known| known.is_leader).await.unwrap();
    assert_eq!(get(&group, "k").await.unwrap(), text("acknowledged"));
    group.shutdown().await;
}

/// A sync that was cut off by a loss of power brought a later page of the log to the disk and not an earlier
/// one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_that_a_sync_left_is_dropped_with_what_is_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    format_group(folder.path(), GROUP, 1, &members(1)).unwrap();
    let open = || open_alone(folder.path());
    let group = open().unwrap();
    group.leadership().wait_for(|known| known.is_leader).await.unwrap();
    group.propose(put(b"k", b"acknowledged")).await.unwrap();
    let before = std::fs::metadata(newest_log(folder.path())).unwrap().len() as usize;
    group.propose(put(b"k", &[b'x'; 20_000])).await.unwrap();
    group.shutdown_now().await;
    drop(group);
    let log = newest_log(folder.path());
    let mut torn = std::fs::read(&log).unwrap();
    let page = (before / 4_096 + 2) * 4_096;
    torn[page..page + 4_096].fill(0);
    std::fs::write(&log, torn).unwrap();
    let group = open().unwrap();
    group.leadership().wait_for(|known| known.is_leader).await.unwrap();
    assert_eq!(get(&group, "k").await.unwrap(), text("acknowledged"));
    group.shutdown().await;
}

/// All pages of a backup, read from one replica while the rest goes on.
async fn back_up(group: &Group<PutMachine>, mut between: impl AsyncFnMut()) -> Vec<KeyValue> {
    let mut page = eventually("a backup", async || group.begin_backup().await.ok()).await;
    let mut pairs = Vec::new();
    loop {
        assert!(BackupPage::is_intact(&page.pairs, page.crc32c));
        pairs.extend(page.pairs);
        if page.end {
            return pairs;
        }
        between().await;
        let after = pairs.last().unwrap().key.clone();
        page = group.backup_page(page.snapshot, after).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_is_one_state_while_others_write() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.leader().await;
    let large = "x".repeat(300_000);
    for key in 0..20 {
        cluster.put(&format!("key-{key:02}"), &large).await;
    }
    let follower = cluster.others(leader)[0];
    let group = cluster.group(follower).clone();
    // What was acknowledged before is in it, at a follower too, and what comes later is not.
    let mut round = 0;
    let pairs = back_up(&group, async || {
        round += 1;
        cluster.put("key-99", "later").await;
        cluster.put(&format!("key-{round:02}"), "later").await;
    })
    .await;
    assert!(round > 3, "several pages");
    assert_eq!(pairs.len(), 20);
    assert!(pairs.iter().all(|pair| pair.value.len() == large.len()));
    // A second one ends the first; a snapshot that is let go is known by nobody.
    let first = group.begin_backup().await.unwrap();
    let second = group.begin_backup().await.unwrap();
    let gone = group.backup_page(first.snapshot, Bytes::new()).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    group.backup_page(second.snapshot, Bytes::new()).await.unwrap();
    cluster.converge().await;

    // The group is lost and made anew from it, above all that the old one was.
    let old_term = cluster.group(leader).leadership().borrow().term;
    for node in cluster.nodes() {
        cluster.stop(node).await;
        std::fs::remove_dir_all(cluster.dir(node)).unwrap();
    }
    let at_s = 1_764_000_000;
    for node in 1..=3 {
        let mut pages = pairs.chunks(3).map(<[KeyValue]>::to_vec);
        let next = || Ok::<_, GroupError>(pages.next());
        restore_group(&cluster.dir(node), GROUP, node, &members(3), at_s, next).unwrap();
        cluster.start(node);
    }
    let leader = cluster.leader().await;
    let term = cluster.group(leader).leadership().borrow().term;
    assert!(term > old_term && term > at_s);
    let restored = get_soon(cluster.group(leader), "key-03").await;
    assert_eq!(restored.map(|value| value.len()), Some(large.len()));
    assert_eq!(get_soon(cluster.group(leader), "key-99").await, None);
    cluster.finish().await;
}
