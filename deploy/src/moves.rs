//! What is moved between disks, as the status tells it, and the commands' wait for the end of it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{
    bytes::ByteSize,
    cli::Surroundings,
    connect::{Admin, SEE_STATUS},
    output::table,
    show::{self, Picture},
};

const POLL: Duration = Duration::from_millis(300);
/// Something that has no place, while nothing else moves: it will not find one by itself.
const STUCK: Duration = Duration::from_secs(5);
/// Cells of the bar that shows how much is done.
const BAR: usize = 20;

/// A member that a newcomer replaces, or one that only comes or goes.
struct Move<'a> {
    from: Option<&'a pb::Target>,
    to: Option<&'a pb::Target>,
}

fn moves(picture: &Picture) -> Vec<Move<'_>> {
    let mut found = Vec::new();
    for target in picture.targets.values().filter(|target| target.chain != 0) {
        if target.replaces != 0 {
            found.push(Move { from: picture.targets.get(&target.replaces), to: Some(target) });
        } else if target.leaving {
            found.push(Move { from: Some(target), to: None });
        }
    }
    found
}

/// The moves under way, for people; nothing if there are none.
pub(crate) fn text(picture: &Picture) -> String {
    let moves = moves(picture);
    let mut text = String::new();
    if picture.rebalancing {
        text += "a rebalance goes on; `ff2ctl rebalance --stop` ends it\n";
    }
    if !moves.is_empty() {
        let rows = moves.iter().map(|step| {
            let place = |target: Option<&pb::Target>| {
                target.map_or_else(|| "-".to_owned(), |t| format!("{} (node {})", t.id, t.node))
            };
            let chain = step.from.or(step.to).map_or(0, |target| target.chain);
            vec![chain.to_string(), place(step.from), place(step.to), progress_of(picture, step)]
        });
        text += &table(&["CHAIN", "LEAVES", "COMES", "PROGRESS"], rows);
    }
    text
}

fn progress_of(picture: &Picture, step: &Move<'_>) -> String {
    let leaving = step.from.filter(|from| from.retiring != 0);
    match (step.to, leaving) {
        (_, Some(_)) => "all the others serve: it leaves".to_owned(),
        (Some(to), None) => match (to.public_state(), picture.syncs.get(&to.id)) {
            (pb::PublicState::Syncing, Some(sync)) => {
                format!("{} of {} chunks", sync.done_chunks, sync.total_chunks)
            }
            (state, _) => show::state(state).to_owned(),
        },
        (None, None) => "waits until all the others serve".to_owned(),
    }
}

pub(crate) fn value(picture: &Picture) -> Value {
    let step = |step: &Move<'_>| {
        let id = |target: Option<&pb::Target>| target.map(|target| target.id);
        let node = |target: Option<&pb::Target>| target.map(|target| target.node);
        let sync = step.to.and_then(|to| picture.syncs.get(&to.id));
        json!({
            "chain": step.from.or(step.to).map(|target| target.chain),
            "from_target": id(step.from), "from_node": node(step.from),
            "to_target": id(step.to), "to_node": node(step.to),
            "state": step.to.map(|to| show::state(to.public_state())),
            "done_chunks": sync.map(|sync| sync.done_chunks),
            "total_chunks": sync.map(|sync| sync.total_chunks),
        })
    };
    moves(picture).iter().map(step).collect()
}

pub(crate) fn stuck(stuck: &[pb::StuckMove]) -> Value {
    let one = |stuck: &pb::StuckMove| {
        json!({
            "chain": stuck.chain, "target": stuck.target, "node": stuck.node, "why": stuck.why,
        })
    };
    stuck.iter().map(one).collect()
}

/// What is left to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    pub(crate) targets: usize,
    pub(crate) bytes: u64,
}

/// Follows moves until `left` finds nothing more, with a bar; fails if what `is_ours` names has no place.
pub(crate) async fn follow(
    around: &Surroundings,
    admin: &Admin,
    what: &str,
    left: impl Fn(&Picture) -> Left,
    is_ours: impl Fn(&pb::StuckMove) -> bool,
) -> Result<()> {
    let progress = around.output.progress();
    let mut most = 0;
    let mut moved_at = Instant::now();
    loop {
        let picture = Picture::of(admin.status().await?);
        let left = left(&picture);
        if left.targets == 0 {
            progress.finish();
            return Ok(());
        }
        most = most.max(left.targets);
        let under_way = moves(&picture);
        let stuck: Vec<&pb::StuckMove> = picture.stuck.iter().filter(|s| is_ours(s)).collect();
        // One whose newcomer serves may be held up by another member.
        let goes_on = |step: &Move<'_>| {
            step.to.is_none_or(|to| to.public_state() != pb::PublicState::Serving)
        };
        if stuck.is_empty() || under_way.iter().any(goes_on) {
            moved_at = Instant::now();
        }
        if moved_at.elapsed() > STUCK {
            progress.finish();
            let first = stuck[0];
            bail!(
                "{what}: {} targets have no place to go to, or cannot leave yet; of chain {}: {}; {SEE_STATUS}",
                stuck.len(),
                first.chain,
                first.why
            );
        }
        progress.now(format!("{what}: {}", line(&picture, &under_way, left, most)));
        tokio::time::sleep(POLL).await;
    }
}

fn line(picture: &Picture, under_way: &[Move<'_>], left: Left, most: usize) -> String {
    let syncs = under_way.iter().filter_map(|step| picture.syncs.get(&step.to?.id));
    let (done, total) = syncs
        .fold((0, 0), |(done, total), sync| (done + sync.done_chunks, total + sync.total_chunks));
    let filled = (most - left.targets) * BAR / most.max(1);
    let bar = "#".repeat(filled) + &"-".repeat(BAR - filled);
    let bytes = match left.bytes {
        0 => String::new(),
        bytes => format!(", about {}", ByteSize(bytes)),
    };
    format!(
        "[{bar}] {} of {most} targets left{bytes}; {} under way, {done} of {total} chunks",
        left.targets,
        under_way.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving() -> Picture {
        let mut picture = Picture::of(show::tests::status());
        let newcomer = pb::Target {
            id: 13,
            chain: 1,
            node: 3,
            replaces: 12,
            public_state: pb::PublicState::Syncing.into(),
            ..Default::default()
        };
        picture.targets.insert(13, newcomer);
        let sync =
            pb::TargetSync { target: 13, done_chunks: 3, total_chunks: 9, ..Default::default() };
        picture.syncs.insert(13, sync);
        picture
    }

    #[test]
    fn moves_are_told_with_their_progress() {
        let picture = moving();
        let text = text(&picture);
        assert!(text.contains("12 (node 2)") && text.contains("13 (node 3)"), "{text}");
        assert!(text.contains("3 of 9 chunks"), "{text}");
        let value = value(&picture);
        assert_eq!((&value[0]["from_target"], &value[0]["to_node"]), (&json!(12), &json!(3)));
        let left = Left { targets: 1, bytes: 3 << 30 };
        let line = line(&picture, &moves(&picture), left, 4);
        assert_eq!(
            line,
            "[###############-----] 1 of 4 targets left, about 3 GiB; 1 under way, 3 of 9 chunks"
        );
    }

    #[test]
    fn nothing_is_told_when_nothing_moves() {
        assert_eq!(text(&Picture::of(show::tests::status())), "");
    }
}
