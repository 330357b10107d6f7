//! What a job comes to in nodes, ranks and GPUs.

use crate::{
    check::{Contradiction, Contradictions},
    request::JobRequest,
};

/// How a job lies on nodes that are all alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub nodes: u32,
    pub ranks: u32,
    /// On the nodes that have most.
    pub ranks_per_node: u32,
    pub gpus_per_node: u32,
    pub gpu_kind: Option<String>,
    /// Cores; 0 if nothing was said.
    pub cpus_per_node: u32,
}

impl JobRequest {
    /// Completes what was said, for nodes with so many GPUs. Without a number of nodes there are as few as
    /// hold the ranks and GPUs that were asked for; without a number of ranks there is one on each node, or
    /// one for each share of GPUs.
    ///
    /// # Errors
    /// Where [`check`](Self::check) or the completed job has contradictions.
    pub fn layout(&self, node_gpus: u32) -> Result<Layout, Contradictions> {
        self.check()?;
        let count = |gpus: &Option<crate::Gpus>| gpus.as_ref().map(|gpus| gpus.count);
        let (all, per_node, per_rank) =
            (count(&self.gpus), count(&self.gpus_per_node), count(&self.gpus_per_rank));
        let ranks_per_node = self.ranks_per_node.map(u32::from);
        let shares = || all?.checked_div(per_rank?).filter(|ranks| *ranks > 0);
        let ranks = self.ranks.map(u32::from).or_else(shares);

        let by_ranks = || Some(ranks?.div_ceil(ranks_per_node?));
        let of_node = per_node.unwrap_or(node_gpus).max(1);
        // A rank's GPUs are on one node.
        let by_rank_gpus = || Some(ranks?.div_ceil(of_node.checked_div(per_rank?)?.max(1)));
        let by_gpus = || Some(all?.div_ceil(of_node).max(1));
        let nodes = self
            .nodes
            .map(u32::from)
            .or_else(by_ranks)
            .or_else(by_rank_gpus)
            .or_else(by_gpus)
            .unwrap_or(1);
        let ranks = ranks.unwrap_or_else(|| nodes.saturating_mul(ranks_per_node.unwrap_or(1)));
        let ranks_per_node = ranks.div_ceil(nodes);

        // With all numbers said, what did not show before may contradict.
        let complete = Self {
            nodes: nodes.try_into().ok(),
            ranks: ranks.try_into().ok(),
            ranks_per_node: self.ranks_per_node,
            gpus: self.gpus.clone(),
            gpus_per_node: self.gpus_per_node.clone(),
            gpus_per_rank: self.gpus_per_rank.clone(),
            ..Self::default()
        };
        let gpus_per_node = per_node
            .or_else(|| per_rank.map(|gpus| gpus.saturating_mul(ranks_per_node)))
            .or_else(|| Some(all? / nodes))
            .unwrap_or(0);
        let mut found = Vec::new();
        complete.check_sizes(&mut found);
        let sum = u64::from(gpus_per_node) * u64::from(nodes);
        if let Some(gpus) = all
            && found.is_empty()
            && u64::from(gpus) != sum
        {
            let (each, count) = (gpus_per_node, nodes);
            found.push(Contradiction::OtherSum { gpus, each, count, of: "nodes" });
        }
        if !found.is_empty() {
            return Err(Contradictions(found));
        }
        let said = [&self.gpus, &self.gpus_per_node, &self.gpus_per_rank].into_iter().flatten();
        let cpus_per_rank = self.cpus_per_rank.map_or(0, u32::from);
        Ok(Layout {
            nodes,
            ranks,
            ranks_per_node,
            gpus_per_node,
            gpu_kind: said.filter_map(|gpus| gpus.kind.clone()).next(),
            cpus_per_node: cpus_per_rank.saturating_mul(ranks_per_node),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{JobRequest, apply_arguments};

    #[test]
    fn what_was_not_said_follows() {
        // Nodes, ranks, ranks of a node, GPUs of a node, cores of a node.
        let table = [
            ("", [1, 1, 1, 0, 0]),
            ("-N 4", [4, 4, 1, 0, 0]),
            ("-n 10 -c 2", [1, 10, 10, 0, 20]),
            ("-n 10 --ntasks-per-node=4", [3, 10, 4, 0, 0]),
            ("-N 2 --ntasks-per-node=8 --gpus-per-task=1 -c 12", [2, 16, 8, 8, 96]),
            ("-G 16", [2, 2, 1, 8, 0]),
            ("-G 12", [2, 2, 1, 6, 0]),
            ("-G 4", [1, 1, 1, 4, 0]),
            ("-G 16 --gpus-per-task=1", [2, 16, 8, 8, 0]),
            ("-n 16 --gpus-per-task=1", [2, 16, 8, 8, 0]),
            ("-G 16 --gpus-per-node=4", [4, 4, 1, 4, 0]),
            ("--gpus-per-node=8 --gpus-per-task=1 -n 16", [2, 16, 8, 8, 0]),
            ("-n 5 --gpus-per-task=3", [3, 5, 2, 6, 0]),
            ("--gres=gpu:4", [1, 1, 1, 4, 0]),
        ];
        for (options, expected) in table {
            let mut job = JobRequest { command: vec!["true".to_owned()], ..JobRequest::default() };
            let words: Vec<&str> = options.split(' ').filter(|word| !word.is_empty()).collect();
            apply_arguments(&mut job, &words).unwrap();
            let of = job.layout(8).unwrap();
            let found = [of.nodes, of.ranks, of.ranks_per_node, of.gpus_per_node, of.cpus_per_node];
            assert_eq!(found, expected, "{options}");
        }
    }

    #[test]
    fn what_follows_may_contradict() {
        let told = |options: &[&str]| {
            let mut job = JobRequest { command: vec!["true".to_owned()], ..JobRequest::default() };
            apply_arguments(&mut job, options).unwrap();
            assert_eq!(job.check(), Ok(()), "{options:?}");
            job.layout(8).unwrap_err().to_string()
        };
        assert_eq!(told(&["-G", "9"]), "9 GPUs cannot be shared out evenly among 2 nodes");
        assert_eq!(
            told(&["-G", "15", "--gpus-per-task=3"]),
            "15 GPUs in all are not 6 for each of 3 nodes"
        );
        assert_eq!(
            told(&["-N", "4", "-G", "8", "--gpus-per-task=4"]),
            "2 ranks leave some of 4 nodes empty: expected as many ranks as nodes, or more"
        );
    }
}
