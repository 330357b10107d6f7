//! The end of `up`: waits until the cluster serves, and then until it lacks nothing that it can get.
//!
//! What cannot come by itself is not waited for: a target whose node is dead or whose disk is away,
//! and a chain that has nobody to copy from until one of those returns. `status` tells about them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ff2_proto::{pb, routing::ChainExt};
use pb::PublicState::{Lastsrv, Serving};

use crate::{
    cli::Surroundings,
    connect,
    output::Progress,
    show::{self, Picture},
};

/// For leases to run out, elections, and targets to be loaded.
const PATIENCE: Duration = Duration::from_secs(90);
/// A copy of much data takes long, but not as long as this without a single chunk.
const STALL: Duration = Duration::from_secs(60);
/// Nobody looks at a command for longer; the copies go on without it.
const COPY_PATIENCE: Duration = Duration::from_secs(1_800);
const POLL: Duration = Duration::from_millis(200);
/// Things waited for that a message names.
const NAMED: usize = 4;

/// Waits until every chain serves that can.
pub(super) async fn wait_serving(around: &Surroundings, progress: &Progress) -> Result<()> {
    let admin = around.access.connect()?.patience(PATIENCE);
    let started = Instant::now();
    loop {
        let picture = Picture::of(admin.status().await?);
        let silent = silent(&picture);
        let (all, waited) = (picture.chains.len(), silent.len());
        if silent.is_empty() {
            let serving = picture.chains.values().filter(|chain| serves(chain)).count();
            progress.done(&format!("{serving} of {all} chains serve"));
            return Ok(());
        }
        progress.now(format!("{} of {all} chains serve", all - waited));
        ensure!(
            started.elapsed() < PATIENCE,
            "after {} s chains {} do not serve; {}",
            PATIENCE.as_secs(),
            named(&silent),
            connect::SEE_STATUS
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until metads and targets that are there take part.
pub(crate) async fn wait_whole(around: &Surroundings, progress: &Progress) -> Result<()> {
    let admin = around.access.connect()?.patience(PATIENCE);
    let (started, mut moved, mut last) = (Instant::now(), Instant::now(), (0, 0));
    loop {
        let status = admin.status().await?;
        let copied: u64 = status.syncs.iter().map(|sync| sync.done_chunks).sum();
        let mut missing = silent_metads(&status);
        let picture = Picture::of(status);
        missing.extend(catching_up(&picture));
        if missing.is_empty() {
            let whole = picture.chains.values().filter(|chain| picture.is_whole(chain)).count();
            let all = picture.chains.len();
            let rest =
                if whole == all { "" } else { "; `ff2ctl status` says what the others lack" };
            progress.done(&format!("{whole} of {all} chains have all replicas{rest}"));
            return Ok(());
        }
        let now = (missing.len(), copied);
        if now != last {
            (moved, last) = (Instant::now(), now);
        }
        progress.now(format!("catching up: {}", named(&missing)));
        ensure!(
            moved.elapsed() < STALL && started.elapsed() < COPY_PATIENCE,
            "the cluster runs, but after {} s it still waits for {}; {}",
            started.elapsed().as_secs(),
            named(&missing),
            connect::SEE_STATUS
        );
        tokio::time::sleep(POLL).await;
    }
}

fn serves(chain: &pb::Chain) -> bool {
    chain.serving().next().is_some()
}

/// Chains that do not serve, but can.
fn silent(picture: &Picture) -> Vec<String> {
    let chains =
        picture.chains.values().filter(|chain| !serves(chain) && can_serve(picture, chain));
    chains.map(|chain| chain.id.to_string()).collect()
}

/// Somebody has the data: those who serve, or served last and are there.
fn can_serve(picture: &Picture, chain: &pb::Chain) -> bool {
    let last = |member: &pb::ChainMember| member.state() == Lastsrv;
    serves(chain) || chain.members.iter().any(|member| last(member) && is_there(picture, member))
}

/// Its node lives and has its disk.
fn is_there(picture: &Picture, member: &pb::ChainMember) -> bool {
    let alive = picture.nodes.get(&member.node).is_some_and(|node| node.alive);
    let disk = picture.targets.get(&member.target).and_then(|target| picture.disk_of(target));
    alive && disk.is_some_and(|disk| !disk.failed)
}

/// Targets that do not serve yet, and how far they are.
fn catching_up(picture: &Picture) -> Vec<String> {
    let mut found = Vec::new();
    for chain in picture.chains.values().filter(|chain| can_serve(picture, chain)) {
        let away = chain.members.iter().filter(|member| member.state() != Serving);
        for member in away.filter(|member| is_there(picture, member)) {
            let sync = picture.syncs.get(&member.target).filter(|sync| sync.total_chunks > 0);
            let far = sync.map_or_else(String::new, |sync| {
                format!(", {} of {} chunks", sync.done_chunks, sync.total_chunks)
            });
            let state = show::state(member.state());
            found.push(format!("target {} ({state}{far})", member.target));
        }
    }
    found
}

/// Replicas of a group whose node lives, but which the leader does not hear yet.
fn silent_metads(status: &pb::ClusterStatusReply) -> Vec<String> {
    let nodes = status.routing.iter().flat_map(|routing| &routing.nodes);
    let alive: BTreeSet<u32> = nodes.filter(|node| node.alive).map(|node| node.id).collect();
    let mut found = Vec::new();
    for group in &status.groups {
        let away = group.members.iter().filter(|member| !member.recently_active);
        for member in away.filter(|member| alive.contains(&member.node)) {
            found.push(format!("metad {} in group {}", member.node, group.group));
        }
    }
    found
}

fn named(all: &[String]) -> String {
    let first = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::PublicState::{self, Offline, Syncing, Waiting};

    /// A chain over nodes 1 and 2, where node 2 lives or not.
    fn picture(states: [PublicState; 2], second_lives: bool) -> Picture {
        let mut picture = Picture::of(show::tests::status());
        let chain = picture.chains.get_mut(&1).unwrap();
        for (member, state) in chain.members.iter_mut().zip(states) {
            member.set_state(state);
        }
        picture.nodes.get_mut(&2).unwrap().alive = second_lives;
        picture
    }

    #[test]
    fn what_is_there_is_waited_for() {
        for state in [Offline, Waiting, Syncing] {
            let missing = catching_up(&picture([Serving, state], true));
            assert_eq!(missing.len(), 1, "{state:?}");
            assert!(missing[0].starts_with("target 12"), "{missing:?}");
        }
        let mut copying = picture([Serving, Syncing], true);
        let sync =
            pb::TargetSync { target: 12, done_chunks: 3, total_chunks: 9, ..Default::default() };
        copying.syncs.insert(12, sync);
        assert_eq!(catching_up(&copying), ["target 12 (syncing, 3 of 9 chunks)"]);
        assert!(catching_up(&picture([Serving, Serving], true)).is_empty());
        assert_eq!(silent(&picture([Offline, Lastsrv], true)), ["1"]);
    }

    #[test]
    fn what_cannot_come_by_itself_is_not() {
        assert!(catching_up(&picture([Serving, Offline], false)).is_empty());
        let mut no_disk = picture([Serving, Offline], true);
        no_disk.nodes.get_mut(&2).unwrap().disks.clear();
        assert!(catching_up(&no_disk).is_empty());
        let mut failed = picture([Serving, Offline], true);
        failed.nodes.get_mut(&2).unwrap().disks[0].failed = true;
        assert!(catching_up(&failed).is_empty());
        // Only the dead node has the data: the other one waits in vain.
        let stuck = picture([Waiting, Lastsrv], false);
        assert!(catching_up(&stuck).is_empty() && silent(&stuck).is_empty());
    }

    #[test]
    fn a_metad_that_lives_is_waited_for() {
        let mut status = show::tests::status();
        let member = |node| pb::GroupMember { node, ..Default::default() };
        status.groups[0].members = vec![member(1), member(2)];
        assert_eq!(silent_metads(&status), ["metad 1 in group 0"]);
    }

    #[test]
    fn long_lists_are_cut() {
        let all: Vec<String> = (1..=6).map(|n| n.to_string()).collect();
        assert_eq!(named(&all), "1, 2, 3, 4 and 2 more");
        assert_eq!(named(&all[..2]), "1, 2");
    }
}
