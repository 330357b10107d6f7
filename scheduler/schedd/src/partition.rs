//! Partitions: nodes that jobs ask for by a name, and what holds for jobs that do.
//!
//! A partition is a tag of nodes (`partition:NAME`). Operators give it by hand, or the configuration names leaves, and
//! their nodes get it as their agents call. Limits are looked at when a job is submitted, as with Slurm's
//! `EnforcePartLimits=ALL`: what can never run there is refused with the reason.

use ff2_daemon::config::PartitionConfig;

/// What a tag begins with that makes a node one of a partition.
pub(crate) const PARTITION: &str = "partition:";

/// That of jobs that name none. Without leaves it has all nodes.
const DEFAULT: &str = "default";

/// What a job gets of the partition that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Within {
    /// The tag of its nodes; none: all may be its.
    pub(crate) tag: Option<String>,
    pub(crate) limit_s: Option<u64>,
}

/// What a job asks for, as far as partitions are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) partition: Option<&'a str>,
    pub(crate) nodes: u32,
    pub(crate) limit_s: Option<u64>,
}

/// `tags` are those that nodes have or had.
///
/// # Errors
/// There is no such partition, or the job goes beyond its limits: in words for its submitter.
pub(crate) fn admit(
    asked: Asked<'_>,
    configured: &[PartitionConfig],
    tags: &[String],
) -> Result<Within, String> {
    let name = asked.partition.unwrap_or(DEFAULT);
    let of = configured.iter().find(|partition| partition.name == name);
    let Some(of) = of else {
        let tag = asked.partition.map(|name| tagged(name, configured, tags)).transpose()?;
        return Ok(Within { tag, limit_s: asked.limit_s });
    };
    let has_all_nodes = name == DEFAULT && of.leaves.is_empty();
    let tag = (!has_all_nodes).then(|| tag_of(name));
    if let Some(tag) = tag.as_ref().filter(|tag| !tags.contains(tag)) {
        return Err(format!(
            "partition {name:?} has no nodes yet: none is tagged {tag}, or at its leaves"
        ));
    }
    if of.nodes_max > 0 && asked.nodes > of.nodes_max {
        let (nodes, most) = (asked.nodes, of.nodes_max);
        return Err(format!("{nodes} nodes: a job in partition {name:?} has at most {most}"));
    }
    let usual_s = [of.time_default_s, of.time_max_s].into_iter().find(|limit| *limit > 0);
    let limit_s = asked.limit_s.or(usual_s);
    if let Some(limit_s) = limit_s.filter(|limit| of.time_max_s > 0 && *limit > of.time_max_s) {
        let most = minutes(of.time_max_s);
        return Err(format!(
            "a time limit of {}: in partition {name:?} it is at most {most}",
            minutes(limit_s)
        ));
    }
    Ok(Within { tag, limit_s })
}

/// The tag of a partition that operators made.
fn tagged(name: &str, configured: &[PartitionConfig], tags: &[String]) -> Result<String, String> {
    let tag = tag_of(name);
    if tags.contains(&tag) {
        return Ok(tag);
    }
    let made = tags.iter().filter_map(|tag| tag.strip_prefix(PARTITION));
    let mut known: Vec<&str> =
        made.chain(configured.iter().map(|partition| partition.name.as_str())).collect();
    known.sort_unstable();
    known.dedup();
    Err(match known.is_empty() {
        true => format!(
            "there is no partition {name:?}, nor any other: leave it out, or have an operator make one \
             (ff2ctl node tag NODE {tag})"
        ),
        false => format!("there is no partition {name:?}: expected {}", known.join(" or ")),
    })
}

fn tag_of(name: &str) -> String {
    format!("{PARTITION}{name}")
}

/// The tags that a node at a leaf should have, of those that it has: partitions made of leaves have just their nodes.
pub(crate) fn tags_at(leaf: &str, has: &[String], configured: &[PartitionConfig]) -> Vec<String> {
    let by_leaf = || configured.iter().filter(|partition| !partition.leaves.is_empty());
    let is_by_leaf = |tag: &&String| by_leaf().any(|partition| tag_of(&partition.name) == **tag);
    let its = by_leaf().filter(|partition| partition.leaves.iter().any(|at| at == leaf));
    let others = has.iter().filter(|tag| !is_by_leaf(tag)).cloned();
    others.chain(its.map(|partition| tag_of(&partition.name))).collect()
}

/// As one gives it to `--time`.
fn minutes(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn debug() -> PartitionConfig {
        PartitionConfig {
            name: "debug".into(),
            leaves: vec!["leaf-1".into()],
            time_default_s: 600,
            time_max_s: 1_800,
            nodes_max: 2,
        }
    }

    fn ask(partition: Option<&str>, nodes: u32, limit_s: Option<u64>) -> Result<Within, String> {
        let tags = ["big", "partition:debug", "partition:long"].map(String::from);
        admit(Asked { partition, nodes, limit_s }, &[debug()], &tags)
    }

    #[test]
    fn a_partition_limits_the_jobs_that_name_it() {
        let within = ask(Some("debug"), 2, Some(1_800)).unwrap();
        assert_eq!(within, Within { tag: Some("partition:debug".into()), limit_s: Some(1_800) });
        assert_eq!(ask(Some("debug"), 1, None).unwrap().limit_s, Some(600), "its default");
        let long = ask(Some("debug"), 1, Some(1_801)).unwrap_err();
        assert_eq!(long, "a time limit of 30:01: in partition \"debug\" it is at most 30:00");
        let large = ask(Some("debug"), 3, None).unwrap_err();
        assert_eq!(large, "3 nodes: a job in partition \"debug\" has at most 2");
        let long = Within { tag: Some("partition:long".into()), limit_s: None };
        assert_eq!(ask(Some("long"), 9, None), Ok(long), "made by tags it has no limits");
        assert_eq!(ask(None, 9, None), Ok(Within::default()), "nor has who names none");
    }

    #[test]
    fn without_a_default_time_the_longest_is_it() {
        let usual = PartitionConfig { time_default_s: 0, ..debug() };
        let asked = Asked { partition: Some("debug"), nodes: 1, limit_s: None };
        let tags = ["partition:debug".to_owned()];
        assert_eq!(admit(asked, &[usual], &tags).unwrap().limit_s, Some(1_800));
    }

    #[test]
    fn one_called_default_is_that_of_jobs_that_name_none() {
        let default = PartitionConfig { name: "default".into(), leaves: Vec::new(), ..debug() };
        let asked = Asked { partition: None, nodes: 1, limit_s: None };
        let within = admit(asked, std::slice::from_ref(&default), &[]);
        assert_eq!(within, Ok(Within { tag: None, limit_s: Some(600) }), "it has all nodes");
        let of_leaf = PartitionConfig { leaves: vec!["leaf-1".into()], ..default };
        let tags = ["partition:default".to_owned()];
        let within = admit(asked, &[of_leaf], &tags).unwrap();
        assert_eq!(within.tag.as_deref(), Some("partition:default"));
    }

    #[test]
    fn one_that_there_is_not_is_named_with_those_that_there_are() {
        let unknown = ask(Some("big"), 1, None).unwrap_err();
        assert_eq!(unknown, "there is no partition \"big\": expected debug or long");
        let asked = Asked { partition: Some("gpu"), nodes: 1, limit_s: None };
        let none = admit(asked, &[], &["big".into()]).unwrap_err();
        assert!(none.contains("ff2ctl node tag NODE partition:gpu"), "{none}");
        let empty = admit(Asked { partition: Some("debug"), ..asked }, &[debug()], &[]);
        assert!(empty.unwrap_err().contains("no nodes yet"));
    }

    #[test]
    fn leaves_make_partitions_and_leave_other_tags_alone() {
        let has = ["gpu:h100", "partition:long"].map(String::from);
        let at = |leaf, has: &[String]| tags_at(leaf, has, &[debug()]);
        let tagged = at("leaf-1", &has);
        assert_eq!(tagged, ["gpu:h100", "partition:long", "partition:debug"]);
        assert_eq!(at("leaf-1", &tagged), tagged, "again it is the same");
        assert_eq!(at("leaf-2", &tagged), has, "elsewhere it is not");
    }
}
