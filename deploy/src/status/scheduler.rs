//! The scheduler's part of the status, where one is known.

use std::{fmt::Write as _, time::Duration};

use ff2_proto::pb;
use serde_json::{Value, json};

use crate::cli::Surroundings;

/// The file system's status does not wait for longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What it said, or why it did not.
pub(super) struct Scheduler(Result<pb::ListComputeNodesReply, String>);

/// None where no scheduler is known.
pub(super) async fn ask(around: &Surroundings) -> Option<Scheduler> {
    if !around.access.knows_sched() {
        return None;
    }
    let asked = async {
        let sched = around.access.connect_sched()?;
        sched.list_compute_nodes(pb::ListComputeNodesRequest { runs: false }).await
    };
    let reply = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(reply) => reply.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    };
    Some(Scheduler(reply))
}

impl Scheduler {
    pub(super) fn problems(&self) -> Vec<String> {
        let reply = match &self.0 {
            Ok(reply) => reply,
            Err(why) => return vec![format!("the scheduler does not answer: {why}")],
        };
        let wrong = |node: &&pb::ComputeNode| node.state == "down" || node.state == "quarantined";
        let told = reply.nodes.iter().filter(wrong).map(|node| {
            let why = if node.why.is_empty() { "nobody said why" } else { &node.why };
            format!("compute node {} is {}: {why}", node.name, node.state)
        });
        told.collect()
    }

    pub(super) fn value(&self) -> Value {
        let problems = self.problems();
        let Ok(reply) = &self.0 else { return json!({ "healthy": false, "problems": problems }) };
        let (up, gpus, used) = counts(reply);
        json!({
            "healthy": problems.is_empty(), "problems": problems, "leader_node": reply.leader,
            "term": reply.term, "nodes": reply.nodes.len(), "nodes_up": up, "gpus": gpus,
            "gpus_used": used, "jobs_waiting": reply.waiting,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if let Ok(reply) = &self.0 {
            let (up, gpus, used) = counts(reply);
            let _ = writeln!(
                text,
                "scheduler: led by schedd {}, {up} of {} compute nodes up, {used} of {gpus} GPUs used, {} jobs wait",
                reply.leader,
                reply.nodes.len(),
                reply.waiting
            );
        }
        for problem in self.problems() {
            let _ = writeln!(text, "  - {problem}");
        }
        text
    }
}

/// Nodes that are up, GPUs of all, and those that are used.
fn counts(reply: &pb::ListComputeNodesReply) -> (usize, u64, u64) {
    let up = reply.nodes.iter().filter(|node| node.state == "up").count();
    let sum =
        |of: fn(&pb::ComputeNode) -> u32| reply.nodes.iter().map(|node| u64::from(of(node))).sum();
    (up, sum(|node| node.gpus), sum(|node| node.gpus_used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_the_reason() {
        let node = |name: &str, state: &str, used| pb::ComputeNode {
            name: name.into(),
            state: state.into(),
            gpus: 8,
            gpus_used: used,
            why: if state == "down" { "silent for 20 s".into() } else { String::new() },
            ..Default::default()
        };
        let nodes = vec![node("a", "up", 3), node("b", "down", 0), node("c", "cordoned", 8)];
        let reply =
            pb::ListComputeNodesReply { nodes, leader: 2, waiting: 5, ..Default::default() };
        let of = Scheduler(Ok(reply));
        assert_eq!(
            of.text(),
            "scheduler: led by schedd 2, 1 of 3 compute nodes up, 11 of 24 GPUs used, 5 jobs wait\n  \
             - compute node b is down: silent for 20 s\n"
        );
        assert_eq!(of.value()["healthy"], false);
        let silent = Scheduler(Err("refused".into()));
        assert_eq!(silent.text(), "  - the scheduler does not answer: refused\n");
    }
}
