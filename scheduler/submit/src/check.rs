//! What of a job contradicts itself.

use std::fmt;

use crate::{dependency::Dependency, inherit::is_name, request::JobRequest, signal::Grace};

/// Two things that were said of a job and that cannot both be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    #[error("nothing runs: expected a script or a command")]
    NothingRuns,
    #[error("a script and a command: expected one of them")]
    ScriptAndCommand,
    #[error("a script without #! and a program, such as #!/bin/bash, at its beginning")]
    NoProgram,
    #[error("arguments without a script: expected them in the command")]
    ArgumentsWithoutScript,
    #[error("{ranks} ranks do not fit on {nodes} nodes with at most {ranks_per_node} on each")]
    TooManyRanks { ranks: u32, nodes: u32, ranks_per_node: u32 },
    #[error(
        "{ranks} ranks leave some of {nodes} nodes empty: expected as many ranks as nodes, or more"
    )]
    EmptyNodes { ranks: u32, nodes: u32 },
    #[error("{gpus} GPUs cannot be shared out evenly among {nodes} nodes")]
    Uneven { gpus: u32, nodes: u32 },
    #[error("{gpus} GPUs cannot be shared out with {each} for each {of}")]
    Remainder { gpus: u32, each: u32, of: &'static str },
    #[error("{gpus} GPUs in all are not {each} for each of {count} {of}")]
    OtherSum { gpus: u32, each: u32, count: u32, of: &'static str },
    #[error(
        "{gpus_per_node} GPUs of a node are too few for {ranks} ranks with {gpus_per_rank} each"
    )]
    TooFewGpus { gpus_per_node: u32, ranks: u32, gpus_per_rank: u32 },
    #[error("GPUs of the kinds {0} and {1}: expected one kind")]
    Kinds(String, String),
    #[error("at least {min} replicas and at most {max}: expected no more at least than at most")]
    Replicas { min: u32, max: u32 },
    #[error("an array of a service: expected an array, or replicas")]
    ArrayOfService,
    #[error(
        "a service with a time limit: expected none, because a service runs until it is cancelled"
    )]
    ServiceWithLimit,
    #[error("a grace of {grace} seconds, and {signal} with the signal: expected one of them")]
    Graces { grace: Grace, signal: Grace },
    #[error("a singleton without a name: expected the name that its jobs share")]
    NamelessSingleton,
    #[error("{0:?} is no name of a variable: expected letters, digits and _, no digit in front")]
    Variable(String),
    #[error("{what} has a NUL in it: expected text")]
    Nul { what: &'static str },
    #[error("{what} has control characters in it: expected one line of text")]
    Lines { what: &'static str },
}

/// All contradictions of a job; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradictions(pub Vec<Contradiction>);

impl fmt::Display for Contradictions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, contradiction) in self.0.iter().enumerate() {
            let end = if place == 0 { "" } else { "\n" };
            write!(f, "{end}{contradiction}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Contradictions {}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Among {
    Nodes,
    Ranks,
}

impl JobRequest {
    /// Tells whether all that was said can be at once. What was not said contradicts nothing, but that
    /// something has to run.
    ///
    /// # Errors
    /// All contradictions.
    pub fn check(&self) -> Result<(), Contradictions> {
        let mut found = Vec::new();
        self.check_run(&mut found);
        self.check_texts(&mut found);
        self.check_sizes(&mut found);
        self.check_members(&mut found);
        if found.is_empty() { Ok(()) } else { Err(Contradictions(found)) }
    }

    /// Whether ranks and GPUs can be laid on nodes.
    pub(crate) fn check_sizes(&self, found: &mut Vec<Contradiction>) {
        self.check_ranks(found);
        self.check_gpus(found);
    }

    fn check_run(&self, found: &mut Vec<Contradiction>) {
        match (&self.script, self.command.is_empty()) {
            (None, true) => found.push(Contradiction::NothingRuns),
            (Some(_), false) => found.push(Contradiction::ScriptAndCommand),
            (None, false) if !self.arguments.is_empty() => {
                found.push(Contradiction::ArgumentsWithoutScript);
            }
            _ => {}
        }
        if self.script.as_ref().is_some_and(|script| !script.starts_with("#!")) {
            found.push(Contradiction::NoProgram);
        }
        if let (Some(grace), Some(signal)) = (self.grace, self.signal.and_then(|s| s.grace()))
            && grace != signal
        {
            found.push(Contradiction::Graces { grace, signal });
        }
    }

    /// What the system's calls or a table cannot take.
    fn check_texts(&self, found: &mut Vec<Contradiction>) {
        if let Some(name) = self.environment.keys().find(|name| !is_name(name)) {
            found.push(Contradiction::Variable(name.clone()));
        }
        let has_nul = |text: &String| text.contains('\0');
        let texts = [
            ("the command", self.command.iter().any(has_nul)),
            ("an argument", self.arguments.iter().any(has_nul)),
            ("a variable", self.environment.values().any(has_nul)),
            ("the script", self.script.iter().any(has_nul)),
            ("a tag", self.tags.iter().any(has_nul)),
            ("an input", self.data.iter().any(has_nul)),
        ];
        let wrong = texts.into_iter().filter(|(_, is_wrong)| *is_wrong);
        found.extend(wrong.map(|(what, _)| Contradiction::Nul { what }));
        let lines = [
            ("the name", &self.name),
            ("the comment", &self.comment),
            ("the queue", &self.queue),
            ("the group", &self.group),
            ("the folder", &self.work_dir),
        ];
        let has_control =
            |text: &Option<String>| text.iter().any(|text| text.contains(char::is_control));
        let wrong = lines.into_iter().filter(|(_, text)| has_control(text));
        found.extend(wrong.map(|(what, _)| Contradiction::Lines { what }));
    }

    fn check_ranks(&self, found: &mut Vec<Contradiction>) {
        let (Some(nodes), Some(ranks)) = (self.nodes, self.ranks) else { return };
        let (nodes, ranks) = (nodes.get(), ranks.get());
        if ranks < nodes {
            found.push(Contradiction::EmptyNodes { ranks, nodes });
        }
        if let Some(per_node) = self.ranks_per_node {
            let ranks_per_node = per_node.get();
            if u64::from(ranks) > u64::from(nodes) * u64::from(ranks_per_node) {
                found.push(Contradiction::TooManyRanks { ranks, nodes, ranks_per_node });
            }
        }
    }

    fn check_gpus(&self, found: &mut Vec<Contradiction>) {
        let said = || [&self.gpus, &self.gpus_per_node, &self.gpus_per_rank].into_iter().flatten();
        let mut kinds = said().filter_map(|gpus| gpus.kind.as_ref());
        if let Some(first) = kinds.next()
            && let Some(other) = kinds.find(|kind| *kind != first)
        {
            found.push(Contradiction::Kinds(first.clone(), other.clone()));
        }
        let per_node = self.gpus_per_node.as_ref().map(|gpus| gpus.count);
        let per_rank = self.gpus_per_rank.as_ref().map(|gpus| gpus.count);
        let (nodes, ranks) = (self.nodes.map(u32::from), self.ranks.map(u32::from));
        if let Some(gpus) = self.gpus.as_ref().map(|gpus| gpus.count) {
            found.extend(shared_out(gpus, per_node, nodes, Among::Nodes));
            found.extend(shared_out(gpus, per_rank, ranks, Among::Ranks));
        }
        if let (Some(gpus_per_node), Some(gpus_per_rank)) = (per_node, per_rank) {
            let spread = || Some(ranks?.div_ceil(nodes?));
            let at_node = self.ranks_per_node.map(u32::from).or_else(spread).unwrap_or(1);
            if u64::from(at_node) * u64::from(gpus_per_rank) > u64::from(gpus_per_node) {
                found.push(Contradiction::TooFewGpus {
                    gpus_per_node,
                    ranks: at_node,
                    gpus_per_rank,
                });
            }
        }
    }

    fn check_members(&self, found: &mut Vec<Contradiction>) {
        if let Some((min, max)) = self.replicas() {
            if min > max {
                found.push(Contradiction::Replicas { min: min.get(), max: max.get() });
            }
            if self.array.is_some() {
                found.push(Contradiction::ArrayOfService);
            }
            if self.time_limit.is_some() {
                found.push(Contradiction::ServiceWithLimit);
            }
        }
        let dependencies = self.dependency.iter().flat_map(|dependencies| dependencies.list());
        if self.name.is_none() && dependencies.into_iter().any(|d| *d == Dependency::Singleton) {
            found.push(Contradiction::NamelessSingleton);
        }
    }
}

/// GPUs in all among so many nodes or ranks, with so many for each; what was not said may be anything.
fn shared_out(
    gpus: u32,
    each: Option<u32>,
    count: Option<u32>,
    of: Among,
) -> Option<Contradiction> {
    let (one, many) = match of {
        Among::Nodes => ("node", "nodes"),
        Among::Ranks => ("rank", "ranks"),
    };
    match (each, count) {
        (Some(each), Some(count)) => (u64::from(each) * u64::from(count) != u64::from(gpus))
            .then_some(Contradiction::OtherSum { gpus, each, count, of: many }),
        // Ranks without GPUs of their own may share those of their node.
        (None, Some(nodes)) => (of == Among::Nodes && !gpus.is_multiple_of(nodes))
            .then_some(Contradiction::Uneven { gpus, nodes }),
        (Some(each), None) => {
            (!gpus.is_multiple_of(each)).then_some(Contradiction::Remainder { gpus, each, of: one })
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{JobRequest, apply_arguments, from_yaml};

    fn told(options: &str) -> String {
        let mut job = JobRequest { command: vec!["true".to_owned()], ..JobRequest::default() };
        let words: Vec<&str> = options.split(' ').filter(|word| !word.is_empty()).collect();
        apply_arguments(&mut job, &words).unwrap();
        job.check().err().map_or(String::new(), |contradictions| contradictions.to_string())
    }

    #[test]
    fn sizes_have_to_agree() {
        let table = [
            ("", ""),
            ("-N 4 -n 32 --ntasks-per-node=8", ""),
            ("-N 4 -n 30 --ntasks-per-node=8", ""),
            (
                "-N 4 -n 33 --ntasks-per-node=8",
                "33 ranks do not fit on 4 nodes with at most 8 on each",
            ),
            (
                "-N 4 -n 3",
                "3 ranks leave some of 4 nodes empty: expected as many ranks as nodes, or more",
            ),
            ("-N 2 -G 16", ""),
            ("-N 3 -G 16", "16 GPUs cannot be shared out evenly among 3 nodes"),
            ("-G 16 --gpus-per-node=8", ""),
            ("-G 12 --gpus-per-node=8", "12 GPUs cannot be shared out with 8 for each node"),
            ("-G 16 --gpus-per-node=8 -N 2", ""),
            ("-G 16 --gres=gpu:4 -N 2", "16 GPUs in all are not 4 for each of 2 nodes"),
            ("-G 16 -n 16 --gpus-per-task=1", ""),
            ("-G 16 -n 4 --gpus-per-task=2", "16 GPUs in all are not 2 for each of 4 ranks"),
            ("-G 3 --gpus-per-task=2", "3 GPUs cannot be shared out with 2 for each rank"),
            ("-G 16 -n 5", ""),
            ("--gpus-per-node=8 --ntasks-per-node=4 --gpus-per-task=2", ""),
            (
                "--gpus-per-node=8 -N 2 -n 10 --gpus-per-task=2",
                "8 GPUs of a node are too few for 5 ranks with 2 each",
            ),
            (
                "--gpus-per-node=a100:8 --gpus-per-task=h100:1",
                "GPUs of the kinds a100 and h100: expected one kind",
            ),
            ("-G 0 --gpus-per-node=0 --gpus-per-task=0", ""),
        ];
        for (options, expected) in table {
            assert_eq!(told(options), expected, "{options}");
        }
    }

    #[test]
    fn members_have_to_agree() {
        let table = [
            ("--min-replicas=2 --max-replicas=8", ""),
            ("--max-replicas=8", ""),
            (
                "--min-replicas=8 --max-replicas=2",
                "at least 8 replicas and at most 2: expected no more at least than at most",
            ),
            ("--min-replicas=2 -a 1-4", "an array of a service: expected an array, or replicas"),
            (
                "--min-replicas=2 -t 60",
                "a service with a time limit: expected none, because a service runs until it is cancelled",
            ),
            ("-d singleton -J a", ""),
            ("-d singleton", "a singleton without a name: expected the name that its jobs share"),
            ("--signal=USR1@60 --grace=60", ""),
            ("--signal=USR1 --grace=30", ""),
            (
                "--signal=USR1@60 --grace=30",
                "a grace of 30 seconds, and 60 with the signal: expected one of them",
            ),
        ];
        for (options, expected) in table {
            assert_eq!(told(options), expected, "{options}");
        }
    }

    #[test]
    fn one_thing_runs() {
        let table = [
            ("{}", "nothing runs: expected a script or a command"),
            ("{command: [ls, -l]}", ""),
            ("{script: '#!/bin/sh', arguments: [y]}", ""),
            (
                "{script: ls}",
                "a script without #! and a program, such as #!/bin/bash, at its beginning",
            ),
            ("{script: '#!/bin/sh', command: [y]}", "a script and a command: expected one of them"),
            (
                "{command: [y], arguments: [z]}",
                "arguments without a script: expected them in the command",
            ),
            (
                "{command: [y], environment: {1A: x}}",
                "\"1A\" is no name of a variable: expected letters, digits and _, no digit in front",
            ),
            (r#"{command: ["a\0b"]}"#, "the command has a NUL in it: expected text"),
            (
                r#"{command: [y], name: "a\nb"}"#,
                "the name has control characters in it: expected one line of text",
            ),
        ];
        for (text, expected) in table {
            let told = from_yaml(text).unwrap().check().err().map(|found| found.to_string());
            assert_eq!(told.unwrap_or_default(), expected, "{text}");
        }
        let both = from_yaml("{arguments: [x], min-replicas: 2, max-replicas: 1}").unwrap();
        assert_eq!(both.check().unwrap_err().0.len(), 2, "all are told");
    }
}
